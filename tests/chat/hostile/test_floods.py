"""Clients that send what costs the server more than it costs them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from chat_client import ChatClient
from conftest import Replica
from test_connection import LIMITS, Client, masked

from chat.relay.memory import MemoryRelay
from chat.relay.register import MemoryRegister
from chat.server import Server
from chat.settings import Settings
from chat.websocket.budget import FRAME_BYTES, HEADER_BYTES, PERSIST_SECONDS, Allowance, Budget
from chat.websocket.connection import TURN
from chat.websocket.frames import MOST_FRAGMENTS, Parser, Violation
from chat.websocket.wheel import TICK_SECONDS

BEGIN, GO_ON, PING, PONG = 0x01, 0x00, 0x89, 0x8A
# No payload is kept that was read, and some is allocated ahead.
SLACK = 1024
TICK = 1
WIDE = replace(
    LIMITS, reading=Allowance(1 << 30, 1 << 30), outbox_bytes=1 << 20, total_bytes=1 << 20
)

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_an_unfinished_message_costs_what_it_holds_however_small_its_fragments_are() -> None:
    parsers = [Parser(32_768) for _ in range(20)]
    fragments = masked("é".encode() * 8, BEGIN) + masked("é".encode() * 8, GO_ON) * 1000
    tracemalloc.start()
    try:
        for parser in parsers:
            parser.feed(fragments)
            for _ in range(1001):
                parser.next()
            assert parser.next() is None
        each = tracemalloc.get_traced_memory()[0] / len(parsers)
    finally:
        tracemalloc.stop()
    assert each < 1.25 * 16 * 1001 + SLACK


def test_a_message_comes_in_so_many_frames_at_most() -> None:
    parser = Parser(32_768)
    parser.feed(masked(b"x", BEGIN) + masked(b"", GO_ON) * MOST_FRAGMENTS)
    events = list(iter(parser.next, None))
    assert len(events) == MOST_FRAGMENTS + 1
    assert isinstance(events[-1], Violation)
    assert events[-1].code == 1008


@pytest.mark.parametrize("frame", [masked(b"", GO_ON), masked(b"", PONG), masked(b"", PING)])
async def test_a_chunk_of_tiny_frames_is_read_a_turn_at_a_time(
    frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(WIDE)
    read = 0
    following = Parser.next

    def count(parser: Parser) -> object:
        nonlocal read
        read += 1
        return following(parser)

    monkeypatch.setattr(Parser, "next", count)
    client.connection.data_received(masked(b"x", BEGIN) + 5 * TURN * frame)
    for turn in range(1, 6):
        assert read == turn * TURN
        # What comes meanwhile waits in the kernel.
        assert not client.transport.reading
        await asyncio.sleep(0)
    assert client.transport.reading


FLOODS = {
    "pings": masked(b"x" * 125, PING),
    "pongs": masked(b"", PONG),
    "fragmented texts": masked(b"x", BEGIN) + masked(b"", GO_ON) * 3 + masked(b"", 0x80),
    "texts": masked(b"{}"),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize("accepted", [False, True])
async def test_who_uses_up_its_budget_is_not_read_and_who_goes_on_is_closed(
    flood: bytes, accepted: bool
) -> None:
    client = Client(replace(LIMITS, accept_seconds=10, outbox_bytes=1 << 20, total_bytes=1 << 20))
    if accepted:
        client.connection.accept()
    frames = flood * 100
    burst, rate = LIMITS.reading.burst, LIMITS.reading.rate

    async def pour() -> int:
        """Send for as long as the server reads; returns how many bytes it took."""
        taken = 0
        while client.transport.reading and not client.transport.ended:
            taken += len(frames)
            client.connection.data_received(frames)
            for _ in range(len(frames) // TURN):
                await asyncio.sleep(0)
        return taken

    # A frame costs at least so much, and some may come on top: those of the last turn.
    assert await pour() <= burst / FRAME_BYTES * len(flood) + len(frames)
    answered = len(client.transport.written)
    client.wheel.turn(TICK)
    for _ in range(TURN):
        await asyncio.sleep(0)
    # It is read again, and no faster than it may.
    assert len(client.transport.written) - answered <= 2 * rate / 10 / FRAME_BYTES + TURN
    ticks = 0
    while b"\x03\xf0too fast" not in b"".join(client.transport.written[-1:]):
        await pour()
        client.wheel.turn(TICK)
        await asyncio.sleep(0)
        ticks += 1
        assert ticks / 10 <= PERSIST_SECONDS + 0.5
    client.wait(2)
    assert client.transport.ended == "aborted"


@pytest.mark.parametrize("frame_bytes", [1024, 32_768])
async def test_a_client_that_keeps_to_its_limits_is_never_over_budget(frame_bytes: int) -> None:
    settings = Settings(frame_bytes=frame_bytes)
    allowance = Server(settings, MemoryRelay(), MemoryRegister())._endpoint.limits.reading
    budget = Budget(allowance, now=0)
    for tick in range(1, 600):
        for _ in range(round(settings.rate * TICK_SECONDS)):
            budget.charge_read(HEADER_BYTES + frame_bytes)
            budget.charge_frames(1)
        assert not budget.over(allowance, tick)


async def test_a_new_connection_has_a_second_s_worth_and_earns_the_rest() -> None:
    rate, burst = LIMITS.reading.rate, LIMITS.reading.burst
    assert rate < burst
    budget = Budget(LIMITS.reading, now=0)
    budget.charge_read(rate)
    assert budget.over(LIMITS.reading, now=0)
    budget.charge_read(burst)
    assert not budget.over(LIMITS.reading, now=1000)
    assert budget.left == burst


async def test_who_keeps_to_the_rate_is_read_for_ever() -> None:
    client = Client()
    client.connection.accept()
    for _ in range(600):
        # Three texts in each tenth of a second.
        client.says("a", "b", "c")
        client.wheel.turn(TICK)
        await asyncio.sleep(0)
        client.connection.data_received(masked(b"", PONG))
        assert client.transport.reading
    assert not client.transport.ended
    assert len(client.receiver.heard) == 1800


@pytest.mark.parametrize("answers", [True, False])
async def test_who_answers_no_ping_is_cut_also_while_a_message_takes_long(answers: bool) -> None:
    client = Client()
    client.connection.accept()
    done = asyncio.get_running_loop().create_future()
    client.receiver.answer = lambda _: done
    client.says("takes long", "waits")
    pings = 0
    for _ in range(600):
        client.wheel.turn(TICK)
        await asyncio.sleep(0)
        if b"\x89\x00" in client.transport.written:
            client.transport.written.clear()
            pings += 1
            if answers:
                client.connection.data_received(masked(b"", PONG))
    assert client.receiver.heard[:1] == ["takes long"]
    if answers:
        assert pings >= 2
        assert not client.transport.ended
    else:
        assert pings == 1
        assert client.transport.ended == "aborted"
        client.connection.connection_lost(None)
        assert done.cancelled()


@contextlib.contextmanager
def offender(port: int, frames: bytes, *, hello: bool) -> Iterator[Callable[[], bool]]:
    """Send `frames` as fast as they are taken; says whether it has been cut off."""
    sent = socket.socket()

    def flood() -> None:
        with contextlib.suppress(OSError):
            sent.connect(("127.0.0.1", port))
            sent.sendall(UPGRADE)
            while b"\r\n\r\n" not in sent.recv(4096):
                pass
            if hello:
                sent.sendall(masked(b'{"type":"hello","user":"mallory"}'))
            while True:
                sent.sendall(frames)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield lambda: not thread.is_alive()
    finally:
        with contextlib.suppress(OSError):
            sent.shutdown(socket.SHUT_RDWR)
        thread.join()
        sent.close()


async def test_offenders_of_every_kind_are_cut_off_while_others_are_served(
    replica: Replica,
) -> None:
    server = await replica(CHAT_RATE="20", CHAT_BURST="100")
    kinds = [
        *((flood * 500, hello) for flood in FLOODS.values() for hello in (False, True)),
        (masked(b"x", BEGIN) + masked(b"", GO_ON) * 40_000, False),
    ]
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        with contextlib.ExitStack() as stack:
            cut = [
                stack.enter_context(offender(server.port, frames, hello=hello))
                for frames, hello in kinds
            ]
            async with asyncio.timeout(30):
                while not all(is_cut() for is_cut in cut):
                    await ada.send("lobby", "still here")
                    await asyncio.sleep(0.1)
        assert (await ada.send("lobby", "and after", cid="last"))["id"]
