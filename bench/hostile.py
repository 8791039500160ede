"""What one offender costs others: each kind alone, at full speed, next to 100 honest clients.

A server is started for each kind. Honest clients chat for the same time, first alone and then next
to the offender. The output has, before and with the offender: how long honest clients wait for an
`ack`; the longest wait for `/livez`, for a page of the HTTP API and for a `join` with `since`; the
server's share of a core, its memory and its log output; how many honest clients lost their
connection; and when the offender was disconnected. With `--against`, another checkout is measured
in turn.

    .venv/bin/python bench/hostile.py --against ../other-checkout pings texts
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import re
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

from kafka_broker import KafkaBroker, unpack  # noqa: E402
from ready import PARTITIONS, ROOMS, fill  # noqa: E402
from reconnect import HANDSHAKE, Client  # noqa: E402

from bench.run import LOAD_CORE, SERVER_CORE, cpu_seconds, rss  # noqa: E402
from chat.relay.base import partition_of  # noqa: E402

HONEST = 100
HONEST_PER_ROOM = 10
# Messages per second of each honest client.
SENDS_PER_SECOND = 2
# Each client has its own address, so that limits per address affect only the offender.
OFFENDERS_ADDRESS = "127.0.0.2"
# A wait is given up after this time, and counted as this long.
PATIENCE_SECONDS = 10.0
LOG_RECORDS = 300_000
FULL_ROOM_MESSAGES = 500
# 8 kB.
FULL_ROOM_TEXT = "\U0001f600" * 2000
FILLERS = 10

TEXT, CONTINUATION, FINAL, PING, PONG = 0x01, 0x00, 0x80, 0x89, 0x8A


# What offenders send.


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A client's frame, with a mask of zeros."""
    size = len(payload)
    sized = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([kind]) + sized + bytes(4) + payload


def say(**fields: object) -> bytes:
    return frame(FINAL | TEXT, json.dumps(fields).encode())


@dataclass(frozen=True)
class Site:
    """What an offender knows about the server. `since` is a position before all messages of room
    `full`; `ends` are the last offsets of the log's partitions.
    """

    port: int
    since: str
    ends: Sequence[int]

    @property
    def epoch(self) -> str:
        return self.since.split(":")[0]


@dataclass
class Fate:
    """What happened to an offender's connections: for each closed one the seconds until then, and
    the close code, if any.
    """

    connections: int
    refused: int = 0
    closed: list[float] = field(default_factory=list)
    codes: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        if not self.connections:
            return "hangs up itself"
        parts = []
        if self.refused:
            parts.append(f"{self.refused} refused")
        if self.closed:
            codes = f" ({', '.join(map(str, sorted(self.codes)))})" if self.codes else ""
            parts.append(f"{len(self.closed)} closed within {max(self.closed):.1f} s{codes}")
        if left := self.connections - self.refused - len(self.closed):
            parts.append(f"{left} not closed")
        return f"of {self.connections}: {', '.join(parts)}"


class Peer:
    """A connection of an offender. It sends `once`, and then `again` repeatedly; if it is `paced`,
    only after each received chunk.
    """

    def __init__(self, sock: socket.socket, once: bytes, again: bytes, *, paced: bool) -> None:
        self.sock = sock
        self.ended = False
        self._outgoing = memoryview(once)
        self._again = memoryview(again)
        self._paced = paced
        self._tail = b""

    @property
    def wants_to_write(self) -> bool:
        return bool(self._outgoing)

    def write(self) -> None:
        """Raises `OSError` if the server has closed the connection."""
        with contextlib.suppress(BlockingIOError):
            self._outgoing = self._outgoing[self.sock.send(self._outgoing) :]
        if not self._outgoing and not self._paced:
            self._outgoing = self._again

    def read(self, buffer: bytearray) -> None:
        """Raises `OSError` if the server has closed the connection."""
        size = self.sock.recv_into(buffer)
        if size == 0:
            raise ConnectionResetError
        self._tail = bytes(buffer[max(0, size - 127) : size])
        if self._paced and not self._outgoing:
            self._outgoing = self._again

    @property
    def close_code(self) -> int | None:
        """The code of the close frame at the end of the received data."""
        for at in range(len(self._tail) - 3):
            if self._tail[at] == 0x88 and at + 2 + self._tail[at + 1] == len(self._tail):
                return int.from_bytes(self._tail[at + 2 : at + 4], "big")
        return None


def send(peers: Sequence[Peer], fate: Fate, began: float, until: float, *, reads: bool) -> None:
    """Let the peers send as fast as they can. After the server has ended a connection, its peer
    sends until the server accepts nothing more.
    """
    poll = select.epoll()
    by_number = {peer.sock.fileno(): peer for peer in peers}
    hears = select.EPOLLRDHUP | (select.EPOLLIN if reads else 0)
    for number in by_number:
        poll.register(number, hears | select.EPOLLOUT)
    buffer = bytearray(1 << 20)
    while by_number and (left := until - time.monotonic()) > 0:
        for number, what in poll.poll(left):
            peer = by_number[number]
            try:
                if what & select.EPOLLIN:
                    peer.read(buffer)
                if what & select.EPOLLOUT:
                    peer.write()
                ended = bool(what & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR))
                over = ended and not peer.wants_to_write
            except OSError:
                ended = True
                over = bool(what & (select.EPOLLHUP | select.EPOLLERR)) or not peer.wants_to_write
            if ended and not peer.ended:
                peer.ended = True
                fate.closed.append(time.monotonic() - began)
                if (code := peer.close_code) is not None:
                    fate.codes.add(code)
            if over:
                poll.unregister(number)
                del by_number[number]
                continue
            writes = select.EPOLLOUT if peer.wants_to_write else 0
            poll.modify(number, writes | (0 if peer.ended else hears))


@dataclass(frozen=True, kw_only=True)
class Flood:
    """A number of connections that send these bytes. `hello`: they introduce themselves first.
    Without `shake`, they are plain TCP connections without a handshake.
    """

    connections: int = 1
    shake: bool = True
    hello: bool = True
    once: Callable[[Site, int], bytes] = lambda _site, _number: b""
    again: Callable[[Site, int], bytes] = lambda _site, _number: b""
    paced: bool = False
    reads: bool = True

    def __call__(self, site: Site, until: float, returns: bool) -> Fate:
        fate = Fate(0)
        while True:
            began = time.monotonic()
            peers = []
            fate.connections += self.connections
            for number in range(self.connections):
                try:
                    peers.append(self._connect(site, number))
                except OSError:
                    fate.refused += 1
            send(peers, fate, began, until, reads=self.reads)
            for peer in peers:
                peer.sock.close()
            if not returns or time.monotonic() > until:
                return fate

    def _connect(self, site: Site, number: int) -> Peer:
        """Raises `OSError` if the server refuses the connection."""
        sock = socket.socket()
        sock.settimeout(PATIENCE_SECONDS)
        if not self.reads:
            # Let the kernel buffer little for an offender that does not read.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((OFFENDERS_ADDRESS, 0))
        sock.connect(("127.0.0.1", site.port))
        if self.shake:
            sock.sendall(HANDSHAKE)
            head = b""
            while b"\r\n\r\n" not in head:
                if not (chunk := sock.recv(4096)):
                    raise ConnectionResetError
                head += chunk
            if not head.startswith(b"HTTP/1.1 101"):
                raise ConnectionRefusedError
        sock.setblocking(False)
        hello = say(type="hello", user=f"offender-{number}") if self.hello and self.shake else b""
        once = hello + self.once(site, number)
        return Peer(sock, once, self.again(site, number), paced=self.paced)


def ask_far_ahead(site: Site, until: float, returns: bool) -> Fate:  # noqa: ARG001
    """Ask the HTTP API eight times for messages after a position far ahead, and disconnect."""
    place = f"{site.epoch}:{partition_of('lobby', len(site.ends))}:999999999"
    request = f"GET /api/rooms/lobby/messages?after={place} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    while time.monotonic() < until:
        for _ in range(8):
            with socket.socket() as sock:
                sock.settimeout(PATIENCE_SECONDS)
                with contextlib.suppress(OSError):
                    sock.bind((OFFENDERS_ADDRESS, 0))
                    sock.connect(("127.0.0.1", site.port))
                    sock.sendall(request.encode())
        time.sleep(0.2)
    return Fate(0)


@dataclass(frozen=True)
class Kind:
    """A kind of offender, and its server: the number of file descriptors, and whether it has a long
    log in Kafka.
    """

    does: str
    offend: Callable[[Site, float, bool], Fate]
    descriptors: int | None = None
    long_log: bool = False


def fragments(count: int) -> bytes:
    """The start of a message, in frames of one byte each; every character has several bytes."""
    first, second = "\u0101".encode()
    begun = frame(TEXT, bytes([first])) + frame(CONTINUATION, bytes([second]))
    more = frame(CONTINUATION, bytes([first])) + frame(CONTINUATION, bytes([second]))
    return begun + more * (count // 2 - 1)


def flags(_site: Site, number: int) -> bytes:
    text = "\U0001f1e6" * 2000
    sent = (say(type="send", room="lobby", text=text, cid=f"{number}-{n}") for n in range(98))
    return say(type="join", room="lobby") + b"".join(sent)


def texts(_site: Site, _number: int) -> bytes:
    return b"".join(
        say(type="send", room="lobby", text="buy now", cid=f"c-{number}") for number in range(1000)
    )


def join_twice(site: Site, _number: int) -> bytes:
    return say(type="join", room="full", since=site.since) * 2


def question(site: Site, number: int) -> bytes:
    """A request for messages that no replica has in memory. Each number asks for other messages."""
    room = f"room-{number}"
    partition = partition_of(room, len(site.ends))
    before = site.ends[partition] * (1 + number % 7) // 10
    return say(type="history", room=room, before=f"{site.epoch}:{partition}:{before}")


def requests(path: str, count: int) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * count


def first_question(site: Site, number: int) -> bytes:
    return say(type="join", room=f"room-{number}") + question(site, number)


KINDS = {
    "empty-before-hello": Kind(
        "sends empty continuation frames before `hello`",
        Flood(
            hello=False,
            once=lambda *_: frame(TEXT, b"a"),
            again=lambda *_: frame(CONTINUATION) * 40_000,
        ),
    ),
    "empty": Kind(
        "sends empty continuation frames",
        Flood(once=lambda *_: frame(TEXT, b"a"), again=lambda *_: frame(CONTINUATION) * 40_000),
    ),
    "pings": Kind(
        "sends pings of 125 bytes, and reads the pongs",
        Flood(again=lambda *_: frame(PING, b"x" * 125) * 2000),
    ),
    "pongs": Kind(
        "sends pongs nobody asked for", Flood(again=lambda *_: frame(PONG, b"x" * 125) * 2000)
    ),
    "fragments": Kind(
        "sends messages in fragments of one byte",
        Flood(again=lambda *_: fragments(10_000) + frame(FINAL | CONTINUATION, b"x")),
    ),
    "texts": Kind(
        "sends far more texts than it may, and reads the errors",
        Flood(once=lambda *_: say(type="join", room="lobby"), again=texts),
    ),
    "flags": Kind(
        "eight clients send as many texts as they may at once, of halves of flags",
        Flood(connections=8, once=flags),
    ),
    "unread-joins": Kind(
        "100 connections join a full room twice and never read",
        Flood(connections=100, once=join_twice, reads=False),
    ),
    "unfinished": Kind(
        "100 connections leave a message of 32 KB unfinished, in fragments of one byte",
        Flood(connections=100, once=lambda *_: fragments(32_000)),
    ),
    "idle": Kind(
        "300 TCP connections say nothing, to a server with 256 file descriptors",
        Flood(connections=300, shake=False),
        descriptors=256,
    ),
    "history": Kind(
        f"60 connections ask for old history of {LOG_RECORDS} records, each one thing at a time",
        Flood(connections=60, once=first_question, again=question, paced=True),
        long_log=True,
    ),
    "requests": Kind(
        "100 connections ask for pages that there are not, without waiting for the answers",
        Flood(connections=100, shake=False, again=lambda *_: requests("/nothing", 1000)),
    ),
    "handshakes": Kind(
        "50 connections ask for a WebSocket of a version that there is not, without waiting",
        Flood(connections=50, shake=False, again=lambda *_: requests("/ws", 1000)),
    ),
    "api": Kind("asks the HTTP API for a position far ahead, eight at a time", ask_far_ahead),
}


# The honest clients, who should not notice anything.


class Honest(Client):
    """Sends messages all the time, and measures the wait for each `ack`."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"honest-{number}", f"honest-{number // HONEST_PER_ROOM}", f"127.0.1.{number + 1}"
        )
        self.lost = False
        # Set while no `ack` is awaited.
        self.answered = asyncio.Event()
        self._sent: dict[str, float] = {}
        self._waits: list[float] = []

    async def talk(self) -> None:
        await asyncio.sleep(random.random() / SENDS_PER_SECOND)
        # The log may have messages of an earlier client with this name.
        run = random.randbytes(4).hex()
        number = 0
        while not self.lost:
            number += 1
            self.send(f"{run}-{number}", "hello all")
            await asyncio.sleep(1 / SENDS_PER_SECOND)

    def send(self, cid: str, text: str) -> None:
        self._sent[cid] = time.monotonic()
        self.answered.clear()
        self.say({"type": "send", "room": self.room, "cid": cid, "text": text})

    def waits(self) -> list[float]:
        """The waits since the last call. An unfinished wait counts with its time so far."""
        now = time.monotonic()
        waits, self._waits = self._waits, []
        return waits + [now - sent for sent in self._sent.values()]

    def _hear(self, heard: dict[str, Any]) -> None:
        if heard.get("type") == "ack":
            self._waits.append(time.monotonic() - self._sent.pop(heard["cid"]))
            if not self._sent:
                self.answered.set()
        elif heard.get("type") in ("joined", "error") and self.joined.done():
            return
        else:
            super()._hear(heard)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        super().connection_lost(error)


class Returning(Client):
    """Leaves its room and joins it again with an old position."""

    since = ""

    async def come_back(self) -> None:
        self.joined = asyncio.get_running_loop().create_future()
        self.say({"type": "leave", "room": self.room})
        self.say({"type": "join", "room": self.room, "since": self.since})
        await self.joined

    def _hear(self, heard: dict[str, Any]) -> None:
        if heard.get("type") == "joined" or not self.joined.done():
            super()._hear(heard)


class Probe:
    """Repeats an action, and measures the longest duration."""

    def __init__(self, act: Callable[[], Awaitable[object]], pause: float) -> None:
        self._act = act
        self._pause = pause
        self._began: float | None = None
        self._worst = 0.0

    async def run(self) -> None:
        while True:
            self._began = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._insist()
            self._note()
            await asyncio.sleep(self._pause)

    async def _insist(self) -> None:
        while True:
            try:
                await self._act()
            except (OSError, RuntimeError):
                await asyncio.sleep(0.05)
            else:
                return

    def worst(self) -> float:
        """The longest duration in seconds since the last call."""
        if self._began is not None:
            self._worst = max(self._worst, time.monotonic() - self._began)
        worst, self._worst = self._worst, 0.0
        return worst

    def _note(self) -> None:
        assert self._began is not None
        self._worst = max(self._worst, time.monotonic() - self._began)
        self._began = None


async def get(port: int, path: str, address: str) -> None:
    """Raises `OSError` unless the answer is 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        if not (await reader.read()).startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"no answer to {path}")
    finally:
        writer.transport.abort()


# One run.


@dataclass(frozen=True)
class Figures:
    """Figures of one phase, in seconds, bytes and cores."""

    ack_p50: float
    ack_p99: float
    livez: float
    api: float
    join: float
    cores: float
    memory: int
    logged: int
    lost: int


@dataclass
class Server:
    pid: int
    port: int
    internal_port: int
    output: Path


@contextlib.contextmanager
def serve(
    checkout: Path, variables: Mapping[str, str], descriptors: int | None
) -> Iterator[Server]:
    """The chat of a checkout with its default limits, on its own core."""
    interpreter = checkout / ".venv" / "bin" / "python"
    command = ["taskset", "-c", str(SERVER_CORE), "setpriv", "--pdeathsig=KILL"]
    if descriptors is not None:
        command += ["prlimit", f"--nofile={descriptors}:{descriptors}"]
    command += [str(interpreter) if interpreter.exists() else sys.executable, "-m", "chat"]
    environment = {
        "PATH": os.environ["PATH"],
        "KAFKA_ENABLED": "false",
        "CHAT_ADDRESS": "127.0.0.1",
        "CHAT_PORT": "0",
        "CHAT_INTERNAL_PORT": "0",
        **variables,
    }
    with tempfile.NamedTemporaryFile() as file:
        output = Path(file.name)
        process = subprocess.Popen(command, cwd=checkout, env=environment, stderr=file)
        try:
            while not (ports := re.search(r"page on port (\d+), .* port (\d+)", _text(output))):
                if process.poll() is not None:
                    sys.exit(f"{checkout}: the server ended: {_text(output)}")
                time.sleep(0.05)
            yield Server(process.pid, int(ports[1]), int(ports[2]), output)
        finally:
            process.kill()
            process.wait()


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


async def come(client: Client, port: int) -> str:
    """Connect and join once the server has read the log. Returns the room's position."""
    while True:
        try:
            joined = await client.connect(port)
        except RuntimeError:
            # Frames of the old connection must not be mistaken for the new one's.
            client.transport.abort()
            await asyncio.sleep(0.1)
        else:
            position: str = joined["position"]
            return position


async def fill_room(port: int) -> str:
    """Let clients write much in room `full`. Returns the position before that."""
    fillers = [Honest(HONEST + number) for number in range(FILLERS)]
    for filler in fillers:
        filler.room = "full"
    since = min([await come(filler, port) for filler in fillers])
    each = FULL_ROOM_MESSAGES // FILLERS
    for filler in fillers:
        for number in range(each):
            filler.send(str(number), FULL_ROOM_TEXT)
    async with asyncio.timeout(60):
        await asyncio.gather(*(filler.answered.wait() for filler in fillers))
    for filler in fillers:
        filler.transport.abort()
    return since


async def measure(
    server: Server, kind: Kind, seconds: float, *, returns: bool
) -> tuple[Figures, Figures, Fate]:
    people = [Honest(number) for number in range(HONEST)]
    for person in people:
        await come(person, server.port)
    returning = Returning("returning", "room-199" if kind.long_log else "full", "127.0.2.1")
    if kind.long_log:
        returning.since = await come(returning, server.port)
        epoch, partition, offset, *_ = returning.since.split(":")
        # Older than the window, but within the limit of what is read for a `join`.
        returning.since = f"{epoch}:{partition}:{int(offset) - 6000}"
        since, ends = returning.since, long_log_ends()
    else:
        since = await fill_room(server.port)
        returning.since = await come(returning, server.port)
        ends = [0] * 4
    probes = {
        "livez": Probe(lambda: get(server.internal_port, "/livez", "127.0.0.1"), 0.1),
        "api": Probe(lambda: get(server.port, "/api/rooms/lobby/messages", "127.0.2.2"), 0.2),
        "join": Probe(returning.come_back, 0.5),
    }
    most = 0

    async def watch_memory() -> None:
        nonlocal most
        while True:
            most = max(most, rss(server.pid))
            await asyncio.sleep(0.05)

    async def phase() -> Figures:
        nonlocal most
        for person in people:
            person.waits()
        for probe in probes.values():
            probe.worst()
        most = 0
        cpu, logged, began = cpu_seconds(server.pid), server.output.stat().st_size, time.monotonic()
        await asyncio.sleep(seconds)
        used = (cpu_seconds(server.pid) - cpu) / (time.monotonic() - began)
        waits = sorted(wait for person in people for wait in person.waits())
        return Figures(
            ack_p50=waits[len(waits) // 2],
            ack_p99=waits[len(waits) * 99 // 100],
            **{name: probe.worst() for name, probe in probes.items()},
            cores=used,
            memory=max(most, rss(server.pid)),
            logged=server.output.stat().st_size - logged,
            lost=sum(person.lost for person in people),
        )

    async with background(
        watch_memory(),
        *(person.talk() for person in people),
        *(probe.run() for probe in probes.values()),
    ):
        await asyncio.sleep(1)
        before = await phase()
        site = Site(server.port, since, ends)
        with offender(kind, site, time.monotonic() + seconds, returns=returns) as told:
            during = await phase()
            fate = await asyncio.to_thread(told)
    return before, during, fate


@contextlib.asynccontextmanager
async def background(*happening: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one) for one in happening]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def offender(
    kind: Kind, site: Site, until: float, *, returns: bool
) -> Iterator[Callable[[], Fate]]:
    """Run the offender in its own process. The yielded function waits for its end."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    # Fork, because that is fast and the clock is the same.
    process = multiprocessing.get_context("fork").Process(
        target=_offend, args=(kind, site, until, returns, theirs), daemon=True
    )
    process.start()
    try:
        yield ours.recv
    finally:
        process.kill()
        process.join()


def _offend(kind: Kind, site: Site, until: float, returns: bool, told: Connection) -> None:
    # Honest clients share the core and must not wait for the offender.
    os.nice(10)
    told.send(kind.offend(site, until, returns))


# The report.


def median(runs: Sequence[Figures]) -> Figures:
    return Figures(
        **{
            name: statistics.median(getattr(run, name) for run in runs)
            for name in Figures.__dataclass_fields__
        }
    )


HEAD = (
    "| offender | code | ack p50, ms | ack p99, ms | `/livez` worst, s | API worst, s |"
    " `join` worst, s | CPU, % of a core | memory, MiB | log, KB | honest lost | offender |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def row(name: str, code: str, before: Figures, during: Figures, fate: Fate) -> str:
    def both(digits: int, scale: float, what: str) -> str:
        first, then = getattr(before, what) * scale, getattr(during, what) * scale
        return f"{first:.{digits}f} → {then:.{digits}f}"

    cells = [
        name,
        code,
        both(1, 1000, "ack_p50"),
        both(1, 1000, "ack_p99"),
        both(2, 1, "livez"),
        both(2, 1, "api"),
        both(2, 1, "join"),
        both(0, 100, "cores"),
        both(0, 1 / 2**20, "memory"),
        both(0, 1 / 1000, "logged"),
        f"{during.lost - before.lost:.0f}",
        str(fate),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds:\n" + "\n".join(f"  {name:20}{kind.does}" for name, kind in KINDS.items()),
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="kinds of offenders (all)")
    parser.add_argument("--against", type=Path, help="another checkout, measured alternately")
    parser.add_argument("--seconds", type=float, default=6, help="duration of each phase (6)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="number of rounds, for the median (1)"
    )
    parser.add_argument(
        "--returns", action="store_true", help="offenders reconnect when they were closed"
    )
    options = parser.parse_args()
    if unknown := set(options.kinds) - KINDS.keys():
        parser.error(f"no kind is called {min(unknown)!r}; there are: {', '.join(KINDS)}")
    checkouts = [ROOT, *([options.against.resolve()] if options.against else [])]
    if missing := [path for path in checkouts if not (path / "chat" / "__main__.py").exists()]:
        parser.error(f"{missing[0]} is no checkout of the chat: it has no chat/__main__.py")
    chosen = {name: KINDS[name] for name in options.kinds or KINDS}
    os.sched_setaffinity(0, {LOAD_CORE})
    print(HEAD, flush=True)
    with contextlib.ExitStack() as stack:
        variables: dict[str, str] = {}
        if any(kind.long_log for kind in chosen.values()):
            variables = stack.enter_context(long_log())
        for name, kind in chosen.items():
            found: dict[Path, list[tuple[Figures, Figures, Fate]]] = {one: [] for one in checkouts}
            for _ in range(options.rounds):
                for checkout in checkouts:
                    log = variables if kind.long_log else {}
                    with (
                        serve(checkout, log, kind.descriptors) as server,
                        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
                    ):
                        run = measure(server, kind, options.seconds, returns=options.returns)
                        found[checkout].append(runner.run(run))
            for checkout, runs in found.items():
                before, during, fates = zip(*runs, strict=True)
                print(
                    row(name, version(checkout), median(before), median(during), fates[-1]),
                    flush=True,
                )


def long_log_ends() -> list[int]:
    """The number of records in each partition of the long log."""
    ends = [0] * PARTITIONS
    for number in range(ROOMS):
        ends[partition_of(f"room-{number}", PARTITIONS)] += LOG_RECORDS // ROOMS
    return ends


@contextlib.contextmanager
def long_log() -> Iterator[dict[str, str]]:
    """A broker with many records. Yields the environment variables for it."""
    with tempfile.TemporaryDirectory() as folder:
        broker = KafkaBroker(unpack(Path(folder)), Path(folder))
        try:
            broker.start()
            fill(broker, LOG_RECORDS)
            yield {
                "KAFKA_ENABLED": "true",
                "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            }
        finally:
            broker.close()


def version(checkout: Path) -> str:
    git = ["git", "-c", "safe.directory=*", "describe", "--always", "--dirty=+"]
    return subprocess.run(
        git, cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
