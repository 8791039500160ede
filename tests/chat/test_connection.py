"""One connection over a transport that the test controls."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest

from chat.protocol import CloseCode
from chat.websocket.budget import Allowance
from chat.websocket.connection import TURN, Connection, Endpoint, Limits
from chat.websocket.wheel import SLOTS, TICK_SECONDS, Wheel

LIMITS = Limits(
    message_bytes=1000,
    reading=Allowance(rate=100_000, burst=200_000),
    outbox_bytes=100,
    total_bytes=10_000,
    accept_seconds=1,
    ping_seconds=20,
    pong_seconds=5,
)
PING = b"\x89\x00"


class Transport(asyncio.Transport):
    """Records what is written. It is paused like a transport whose client does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def write_eof(self) -> None:
        self.ended = "half closed"


class Receiver:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.heard: list[str] = []
        self.knows = False
        self.answer: Callable[[str], Awaitable[None] | None] = lambda _: None

    def receive(self, text: str) -> Awaitable[None] | None:
        self.heard.append(text)
        return self.answer(text)

    def beat(self) -> None:
        pass

    def silent(self) -> None:
        self.connection.close(CloseCode.POLICY, "silent")

    def slow(self) -> None:
        self.knows = True

    def overflow(self) -> None:
        self.connection.close(CloseCode.TRY_LATER, "slow")

    def close(self, code: CloseCode, reason: str) -> None:
        self.connection.close(code, reason)

    def gone(self) -> None:
        self.heard.append("gone")


class Client:
    def __init__(self, limits: Limits = LIMITS) -> None:
        self.wheel = Wheel(on_lag=lambda _: None)
        self.endpoint = Endpoint(limits, self.wheel)
        self.connection = Connection(self.endpoint)
        self.receiver = Receiver(self.connection)
        self.transport = Transport()
        self.connection.serve(self.receiver)
        self.connection.connection_made(self.transport)

    def says(self, *texts: str) -> None:
        self.connection.data_received(b"".join(masked(text.encode()) for text in texts))

    def wait(self, seconds: float) -> None:
        """Let this many seconds pass on the wheel."""
        for _ in range(round(seconds / TICK_SECONDS) + 2):
            self.wheel.turn(1)


def masked(payload: bytes, first: int = 0x81) -> bytes:
    """A client's frame of less than 126 bytes, with a mask of zeros."""
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


@pytest.fixture
async def client() -> Client:
    return Client()


async def test_what_is_pushed_in_one_turn_is_written_at_once(client: Client) -> None:
    for frame in (b"a", b"b", b"c"):
        client.connection.push(frame)
    assert client.transport.written == []
    await asyncio.sleep(0)
    client.connection.push(b"d")
    await asyncio.sleep(0)
    assert client.transport.written == [b"abc", b"d"]


async def test_what_is_written_goes_at_once_and_still_behind_what_was_pushed(
    client: Client,
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client.connection.written_by(ours)
        client.connection.write(b"now")
        assert theirs.recv(100) == b"now"
        client.connection.hold()
        client.connection.write(b"first ")
        client.connection.push(b"second ")
        client.connection.write(b"third")
        assert client.transport.written == []
        await asyncio.sleep(0)
        assert client.transport.written == [b"first second third"]
        client.connection.pause_writing()
        client.connection.write(b"later")
        assert client.transport.written == [b"first second third"]


async def test_what_the_socket_does_not_take_is_left_to_the_transport(client: Client) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        client.connection.written_by(ours)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(1 << 16))
        client.connection.write(b"whole")
        assert client.transport.written == [b"whole"]


async def test_what_is_pushed_while_the_endpoint_is_corked_is_written_when_it_is_uncorked(
    client: Client,
) -> None:
    client.endpoint.cork()
    client.connection.push(b"held ")
    client.connection.push(b"back")
    await asyncio.sleep(0)
    assert client.transport.written == []
    client.endpoint.uncork()
    assert client.transport.written == [b"held back"]
    client.connection.push(b"later")
    await asyncio.sleep(0)
    assert client.transport.written == [b"held back", b"later"]


async def test_while_a_client_is_slow_frames_wait_and_offers_are_dropped(client: Client) -> None:
    client.connection.offer(b"typing ")
    client.connection.push(b"first")
    client.connection.pause_writing()
    # Frames pushed before `slow` was called are on their way.
    assert client.receiver.knows
    assert client.transport.written.pop() == b"typing first"
    await asyncio.sleep(0)
    for frame in (b"second ", b"third"):
        client.connection.push(frame)
        client.connection.offer(b"dropped")
        await asyncio.sleep(0)
    assert client.transport.written == []
    client.connection.resume_writing()
    assert client.transport.written == [b"second third"]
    assert client.endpoint.dropped == 2


async def test_a_client_that_takes_nothing_is_given_up_once_the_limit_waits(client: Client) -> None:
    client.connection.pause_writing()
    # A single answer may be larger than the limit.
    client.connection.push(b"x" * 500)
    assert client.transport.written == []
    client.connection.push(b"y")
    assert client.transport.written == [b"\x88\x06\x03\xf5slow"]
    client.connection.push(b"z")
    assert client.connection.waiting == 0


async def test_who_asks_faster_than_it_reads_is_not_listened_to_for_a_while(client: Client) -> None:
    client.receiver.answer = lambda _: client.connection.push(b"x" * 51)
    client.connection.pause_writing()
    client.says("one", "two", "three")
    client.says("four")
    assert client.receiver.heard == ["one"]
    assert not client.transport.reading
    client.receiver.answer = lambda _: None
    client.connection.resume_writing()
    await asyncio.sleep(0)
    assert client.receiver.heard == ["one", "two", "three", "four"]
    assert client.transport.reading


async def test_the_next_message_waits_for_the_one_before(client: Client) -> None:
    done = asyncio.get_running_loop().create_future()
    client.receiver.answer = lambda text: done if text == "slow" else None
    client.says("fast", "slow", "later")
    await asyncio.sleep(0)
    client.says("last")
    client.connection.data_received(masked(b"\x03\xe8", 0x88))
    assert client.receiver.heard == ["fast", "slow"]
    assert not client.transport.ended
    done.set_result(None)
    await asyncio.sleep(0)
    assert client.receiver.heard == ["fast", "slow", "later", "last"]
    assert client.transport.ended == "closed"


async def test_what_waited_for_a_slow_client_goes_on_once_that_has_read(client: Client) -> None:
    done = asyncio.get_running_loop().create_future()
    client.receiver.answer = lambda text: done if text == "join" else None
    client.says("join", "send")
    client.connection.pause_writing()
    while not client.connection._outbox_is_half_full():
        client.connection.push(b"x" * 100)
    done.set_result(None)
    await asyncio.sleep(0)
    assert client.receiver.heard == ["join"]
    client.connection.resume_writing()
    await asyncio.sleep(0)
    assert client.receiver.heard == ["join", "send"]


async def test_what_waits_for_the_message_before_is_no_more_than_a_message_may_have(
    client: Client,
) -> None:
    done = asyncio.get_running_loop().create_future()
    client.receiver.answer = lambda text: done if text == "slow" else None
    client.connection.accept()
    later = [f"{number:0100}" for number in range(20)]
    client.says("slow", *later)
    assert not client.transport.reading
    assert client.connection._held_bytes < LIMITS.message_bytes + 200
    # Reading is paused, so the client's pongs cannot be read.
    client.wait(60)
    assert not client.transport.ended
    done.set_result(None)
    await asyncio.sleep(0)
    assert client.receiver.heard == ["slow", *later]
    assert client.connection._held_bytes == 0
    assert client.transport.reading


async def test_the_answer_that_a_lost_client_waits_for_is_given_up(client: Client) -> None:
    done = asyncio.get_running_loop().create_future()
    client.receiver.answer = lambda _: done
    client.says("slow")
    client.connection.connection_lost(None)
    await asyncio.sleep(0)
    assert done.cancelled()


async def test_others_have_their_turn_while_one_talks(client: Client) -> None:
    client.says(*["x"] * (TURN + 10))
    assert len(client.receiver.heard) == TURN
    await asyncio.sleep(0)
    assert len(client.receiver.heard) == TURN + 10
    assert client.transport.reading


async def test_a_close_goes_behind_what_waits_and_waits_for_its_answer(client: Client) -> None:
    client.connection.push(b"said ")
    client.connection.close(1000, "bye", last=b"last words ")
    assert client.transport.written == [b"said last words \x88\x05\x03\xe8bye"]
    client.says("not heard any more")
    client.connection.data_received(masked(b"\x03\xe8", 0x88))
    assert client.transport.ended == "closed"
    assert client.receiver.heard == []
    assert len(client.transport.written) == 1


async def test_a_client_that_does_not_answer_a_close_is_hung_up_on(client: Client) -> None:
    client.connection.close(1000)
    client.wait(2)
    assert client.transport.ended == "aborted"


async def test_a_violation_ends_our_half_and_drops_what_still_comes(client: Client) -> None:
    client.connection.data_received(masked(b"\xff") + masked(b"never"))
    assert client.transport.written[0].startswith(b"\x88\x0c\x03\xefsend UTF-8")
    assert client.transport.ended == "half closed"
    client.says("nor this")
    assert client.receiver.heard == []


async def test_who_is_not_accepted_in_time_is_sent_away(client: Client) -> None:
    client.wait(1)
    assert client.transport.written == [b"\x88\x08\x03\xf0silent"]


async def test_who_answers_pings_stays_and_who_does_not_is_gone(client: Client) -> None:
    client.connection.accept()
    for _ in range(5):
        client.transport.written.clear()
        for _ in range(SLOTS):
            if client.transport.written:
                break
            client.wheel.turn(1)
            await asyncio.sleep(0)
        assert client.transport.written == [PING]
        client.connection.data_received(masked(b"", 0x8A))
    assert not client.transport.ended
    client.wait(20)
    await asyncio.sleep(0)
    client.wait(5)
    assert client.transport.ended == "aborted"


async def test_a_ping_that_cannot_get_out_is_no_proof_of_absence(client: Client) -> None:
    client.connection.accept()
    client.connection.pause_writing()
    client.wait(20 + 5)
    assert client.transport.written == [b"\x88\x06\x03\xf5slow"]


async def test_a_connection_that_is_gone_leaves_nothing_behind(client: Client) -> None:
    client.connection.push(b"too late")
    client.connection.connection_lost(None)
    client.connection.connection_lost(None)
    client.connection.push(b"too late")
    client.connection.close(1000)
    await asyncio.sleep(0)
    client.wait(60)
    assert client.receiver.heard == ["gone"]
    assert client.transport.written == []
    assert client.transport.ended == ""
    assert client.connection.waiting == 0
