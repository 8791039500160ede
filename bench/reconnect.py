"""The time from a replica's death until all its clients have resumed on another one.

Two replicas share a broker. All clients are on the first, each in one of fifty rooms. It is killed,
a message is sent in every room meanwhile, and all clients reconnect to the second at once, each
with its last position. The time is from the first new connection to the last answer. A client
counts if it gets exactly what it missed (`recovered`, and the messages). Real clients wait a random
time; these do so only after a failed connection, which is the worst case. They share the machine
with the replica.

    .venv/bin/python bench/reconnect.py --clients 5000
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

from kafka_broker import KafkaBroker, unpack  # noqa: E402
from ready import fill  # noqa: E402

from bench.run import cpu_seconds  # noqa: E402

ROOMS = 50
MISSED = 5
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Client(asyncio.Protocol):
    """A minimal WebSocket client: it joins one room and keeps its position. `address` is its source
    address.
    """

    def __init__(self, name: str, room: str, address: str = "127.0.0.1") -> None:
        self.name = name
        self.room = room
        self._address = address
        self.position: str | None = None
        self.joined: asyncio.Future[dict[str, Any]]
        self.transport: asyncio.Transport

    async def connect(self, port: int) -> dict[str, Any]:
        """Connect and join. Returns the answer."""
        loop = asyncio.get_running_loop()
        self.joined = loop.create_future()
        self._received = b""
        self._shaken = False
        await loop.create_connection(lambda: self, "127.0.0.1", port, local_addr=(self._address, 0))
        return await self.joined

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._shaken:
            if b"\r\n\r\n" not in self._received:
                return
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            assert head.startswith(b"HTTP/1.1 101"), head
            self._shaken = True
            since = {"since": self.position} if self.position else {}
            self.say({"type": "hello", "user": self.name, "key": f"the-key-of-{self.name}"})
            self.say({"type": "join", "room": self.room} | since)
        while (frame := self._frame()) is not None:
            self._hear(json.loads(frame))

    def _frame(self) -> bytes | None:
        received = self._received
        if len(received) < 2:
            return None
        size, start = received[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(received[2:start], "big")
        if len(received) < start + size:
            return None
        self._received = received[start + size :]
        payload = received[start : start + size]
        if received[0] == 0x89:
            self._write(0x8A, payload)
        return payload if received[0] == 0x81 else b"{}"

    def _hear(self, frame: dict[str, Any]) -> None:
        match frame.get("type"):
            case "joined":
                self.position = frame["position"]
                self.joined.set_result(frame)
            case "message":
                self.position = frame["id"]
            case "error" if not self.joined.done():
                self.joined.set_exception(RuntimeError(frame["message"]))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.joined.done():
            self.joined.set_exception(error or ConnectionError("closed"))

    def say(self, frame: dict[str, Any]) -> None:
        self._write(0x81, json.dumps(frame).encode())

    def _write(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        sized = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        # The mask consists of zeros.
        self.transport.write(bytes([kind]) + sized + bytes(4) + payload)


def start_replica(broker: KafkaBroker, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    environment = os.environ | {
        "KAFKA_ENABLED": "true",
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "CHAT_ADDRESS": "127.0.0.1",
        "CHAT_PORT": "0",
        "CHAT_INTERNAL_PORT": "0",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "chat"], cwd=ROOT, env=environment, stderr=output
        )
    while not (found := re.search(r"page on port (\d+)", log.read_text())):
        if process.poll() is not None:
            sys.exit(log.read_text())
        time.sleep(0.05)
    return process, int(found[1])


async def measure(broker: KafkaBroker, folder: Path, count: int) -> None:
    first, port = start_replica(broker, folder / "first.log")
    second, other = start_replica(broker, folder / "second.log")
    clients = [Client(f"user-{number}", f"room-{number % ROOMS}") for number in range(count)]
    try:
        talkers = [Client(f"talker-{number}", f"room-{number}") for number in range(ROOMS)]
        for talker in talkers:
            while True:
                try:
                    await talker.connect(other)
                    break
                except RuntimeError:
                    await asyncio.sleep(0.2)
        for at in range(0, count, 250):
            await asyncio.gather(*(client.connect(port) for client in clients[at : at + 250]))
        first.kill()
        first.wait()
        for number in range(MISSED):
            for talker in talkers:
                frame = {"type": "send", "room": talker.room, "cid": str(number), "text": "missed"}
                talker.say(frame)
        await asyncio.sleep(2)
        before, own = cpu_seconds(second.pid), time.process_time()
        began = time.monotonic()
        taken = []

        attempts = 0

        async def come_back(client: Client) -> bool:
            nonlocal attempts
            while True:
                attempts += 1
                try:
                    answer = await client.connect(other)
                    break
                except OSError:
                    await asyncio.sleep(random.uniform(0.1, 0.5))
            taken.append(time.monotonic() - began)
            missed = [message["text"] for message in answer["messages"]]
            return answer["recovered"] and missed == ["missed"] * MISSED

        whole = await asyncio.gather(*(come_back(client) for client in clients))
        used, own = cpu_seconds(second.pid) - before, time.process_time() - own
        print(
            f"{sum(whole)} of {count} clients went on without a gap and without a reload: the last"
            f" after {max(taken):.2f} s, half of them after {statistics.median(taken):.2f} s, with"
            f" {attempts} connections; the replica computed for {used:.2f} s, the clients"
            f" for {own:.2f} s"
        )
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=5000, help="who all come back (5000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        broker = KafkaBroker(unpack(Path(folder)), Path(folder))
        try:
            broker.start()
            fill(broker, 0)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(broker, Path(folder), options.clients))
        finally:
            broker.close()


if __name__ == "__main__":
    main()
