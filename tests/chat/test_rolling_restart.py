"""A rolling restart of two replicas with many clients: nobody misses a message, and few are
disconnected at the same time.

`ROLLING_CLIENTS=5000 pytest -s tests/chat/test_rolling_restart.py` measures it at full size, and
prints the results.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import statistics
import struct
import time
import urllib.request
from collections.abc import Callable

import pytest
import websockets
from chat_client import ChatClient
from conftest import Process, joined, until

MEASURED = "ROLLING_CLIENTS" in os.environ
CLIENTS = int(os.environ.get("ROLLING_CLIENTS", "300"))
# A measurement uses the value of role chat; a test has less time.
DRAIN_SECONDS = 10 if MEASURED else 4
SPEAKS_EACH_SECONDS = 0.2


class Crowd:
    """All clients, and the ports they may connect to: those of ready replicas, as an edge would
    choose.
    """

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.here = 0
        self.most_away = 0
        self.connects = 0
        # The duration of each disconnection.
        self.absences: list[float] = []
        self.wrong: list[str] = []

    def changed(self, by: int) -> None:
        self.here += by
        if by < 0:
            self.most_away = max(self.most_away, CLIENTS - self.here)


class Listener(asyncio.Protocol):
    """A minimal client: it joins, checks that messages arrive in order and without gaps, and
    reconnects when told to.
    """

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.crowd = crowd
        self.hello = {"type": "hello", "user": f"user {number}", "key": f"{number:032x}"}
        self.position = ""
        self.next: int | None = None
        self.retry_after = 0.0
        self.here = False
        self.left = 0.0
        self.transport: asyncio.Transport | None = None
        self.data = b""
        self.open = False

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        self.data, self.open = b"", False
        while True:
            try:
                port = random.choice(self.crowd.ports)
                await loop.create_connection(lambda: self, "127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                self.crowd.connects += 1
                return

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.open:
            head, found, self.data = self.data.partition(b"\r\n\r\n")
            if not found:
                self.data = head
                return
            if b" 101 " not in head:
                self.retry_after = 1.0
                self.leave()
                return
            self.open = True
            self.say(self.hello)
            since = {"since": self.position} if self.position else {}
            self.say({"type": "join", "room": "lobby"} | since)
        at = 0
        while (end := self.frame(at)) is not None:
            at = end
        self.data = self.data[at:]

    def frame(self, at: int) -> int | None:
        data = self.data
        if len(data) - at < 2:
            return None
        size, start = data[at + 1], at + 2
        if size >= 126:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : start], "big")
        if len(data) < start + size:
            return None
        payload = data[start : start + size]
        if data[at] == 0x81:
            self.heard(json.loads(payload))
        elif data[at] == 0x89:
            self.write(0x8A, payload)
        elif data[at] == 0x88:
            self.write(0x88, payload[:2])
            self.leave()
        return start + size

    def heard(self, frame: dict[str, object]) -> None:
        match frame:
            case {"type": "joined", "messages": list(messages), "position": str(position)}:
                if self.position and not frame["recovered"]:
                    self.crowd.wrong.append(f"{self.hello['user']}: not recovered")
                if self.position:
                    for message in messages:
                        self.heard(message)
                if self.left:
                    self.crowd.absences.append(time.monotonic() - self.left)
                self.position = position
                self.here = True
                self.crowd.changed(1)
            case {"type": "message", "text": str(text), "id": str(position)}:
                number = int(text)
                if self.next is not None and number != self.next:
                    self.crowd.wrong.append(f"{self.hello['user']}: {number}, not {self.next}")
                self.next = number + 1
                self.position = position
            case {"type": "position", "position": str(position)}:
                self.position = position
            case {"type": "bye", "retry_after": float(seconds)}:
                self.retry_after = seconds
            case {"type": "error"}:
                self.leave()

    def say(self, frame: dict[str, str]) -> None:
        self.write(0x81, json.dumps(frame).encode())

    def write(self, first: int, payload: bytes) -> None:
        assert self.transport is not None
        size = bytes([0x80 | len(payload)])
        if len(payload) > 125:
            size = b"\xfe" + struct.pack("!H", len(payload))
        # The mask consists of zeros.
        self.transport.write(bytes([first]) + size + bytes(4) + payload)

    def leave(self) -> None:
        assert self.transport is not None
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.here:
            self.here = False
            self.left = time.monotonic()
            self.crowd.changed(-1)
        loop = asyncio.get_running_loop()
        loop.call_later(self.retry_after, lambda: loop.create_task(self.connect()))
        self.retry_after = 0.1


async def speak(crowd: Crowd, done: asyncio.Event) -> int:
    """Send 0, 1, 2 … until it is `done`. Returns how many were acknowledged."""
    number = 0
    while not done.is_set():
        try:
            async with ChatClient(random.choice(crowd.ports), "speaker") as client:
                await joined(client)
                while not done.is_set():
                    await client.send("lobby", str(number))
                    number += 1
                    await asyncio.sleep(SPEAKS_EACH_SECONDS)
        except (websockets.WebSocketException, OSError):
            await asyncio.sleep(0.1)
    return number


def computed(who: int) -> float:
    """CPU seconds of this process, or of its children that have ended."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def wait_until_ready(replica: Process) -> None:
    url = f"http://127.0.0.1:{replica.internal_port}/readyz"
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, replica.log.read_text()
            time.sleep(0.1)
        else:
            return


@pytest.mark.timeout(600)
async def test_a_rolling_restart_loses_nothing(
    process: Callable[..., Process], kafka: dict[str, str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd()

    async def start() -> Process:
        replica = await asyncio.to_thread(
            process, kafka, CHAT_DRAIN_SECONDS=str(DRAIN_SECONDS), CHAT_POSITION_SECONDS="1"
        )
        await asyncio.to_thread(wait_until_ready, replica)
        return replica

    try:
        replicas = [await start(), await start()]
        crowd.ports = [replica.port for replica in replicas]
        done = asyncio.Event()
        speaking = asyncio.create_task(speak(crowd, done))
        listeners = [Listener(crowd, number) for number in range(CLIENTS)]
        for at in range(0, CLIENTS, 100):
            await asyncio.gather(*(one.connect() for one in listeners[at : at + 100]))
        await until(lambda: crowd.here == CLIENTS, 120)
        before = crowd.connects
        began = time.monotonic()
        for old in tuple(replicas):
            replicas.append(await start())
            # Like the edge, once the old replica is not ready any more.
            replicas.remove(old)
            crowd.ports = [replica.port for replica in replicas]
            old.popen.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(old.popen.wait, 60) == 0
            await until(lambda: crowd.here == CLIENTS, 60)
        took = time.monotonic() - began
        done.set()
        said = await speaking
        await until(lambda: all(one.next == said for one in listeners), 60)
        away = statistics.quantiles(crowd.absences, n=100)
        print(
            f"\n{CLIENTS} clients, {said} messages, two replicas restarted in {took:.0f} s:"
            f" {crowd.connects - before} reconnects, at most {crowd.most_away} away at once"
            f" ({100 * crowd.most_away / CLIENTS:.1f} %), each for {away[49]:.2f} s"
            f" (99 % of them at most {away[98]:.2f} s), {len(crowd.wrong)} wrong;"
            f" the replicas that went computed for {computed(resource.RUSAGE_CHILDREN):.1f} s,"
            f" the clients for {computed(resource.RUSAGE_SELF):.1f} s"
        )
        assert crowd.wrong == []
        # The number depends on how busy the machine is, so only a measurement asserts it.
        assert not MEASURED or crowd.most_away <= CLIENTS / 10
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
