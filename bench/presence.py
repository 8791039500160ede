"""What presence costs: CPU time of the service per client and minute.

Two replicas share a broker. All clients are in one room, half of them on each replica, and nobody
sends a message. First all of them stay. Then some leave every second and return a moment later,
over the same connection, so that no handshake is in the figure. The figure includes heartbeats,
pings and all other periodic work, and the frames about people who come and go.

    .venv/bin/python bench/presence.py --clients 1000 --moves 5
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

from kafka_broker import KafkaBroker, unpack  # noqa: E402
from ready import fill  # noqa: E402
from reconnect import Client, start_replica  # noqa: E402

from bench.run import cpu_seconds  # noqa: E402

ROOM = "lobby"
SETTLE_SECONDS = 6.0
AWAY_SECONDS = 1.0


class Person(Client):
    """A client that may join again, and counts the frames it gets."""

    told = 0

    def _hear(self, frame: dict[str, Any]) -> None:
        if frame.get("type") == "presence":
            Person.told += 1
        elif not self.joined.done():
            super()._hear(frame)


async def move(people: list[Person], moves: float, seconds: float) -> None:
    """Let this many people per second leave and return."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    there = random.sample(people, len(people))
    moving: list[asyncio.Task[None]] = []

    async def leave_and_return(person: Person) -> None:
        person.say({"type": "leave", "room": ROOM})
        await asyncio.sleep(AWAY_SECONDS)
        person.say({"type": "join", "room": ROOM})
        there.append(person)

    while loop.time() < end:
        moving.append(asyncio.create_task(leave_and_return(there.pop(0))))
        await asyncio.sleep(random.expovariate(moves))
    await asyncio.gather(*moving)


async def measure(broker: KafkaBroker, folder: Path, options: argparse.Namespace) -> None:
    replicas = [start_replica(broker, folder / f"{name}.log") for name in ("one", "other")]
    people = [Person(f"person-{number}", ROOM) for number in range(options.clients)]

    def spent() -> float:
        return sum(cpu_seconds(process.pid) for process, _ in replicas)

    async def report(what: str, happening: Awaitable[None]) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        told, before, began = Person.told, spent(), time.monotonic()
        await happening
        client_minutes = options.clients * (time.monotonic() - began) / 60
        print(
            f"{options.clients} people in a room, {what}:"
            f" {(spent() - before) / client_minutes * 1000:.2f} ms of CPU time per client and"
            f" minute, in which each is told {(Person.told - told) / client_minutes:.0f} times"
        )

    try:
        for number, person in enumerate(people):
            await come(person, replicas[number % 2][1])
        await report("and all stay", asyncio.sleep(options.seconds))
        await report(
            f"of whom {options.moves:g} a second leave and come back",
            move(people, options.moves, options.seconds),
        )
    finally:
        for process, _ in replicas:
            process.kill()
            process.wait()


async def come(person: Person, port: int) -> None:
    """Connect and join once the replica has read the log."""
    while True:
        try:
            await person.connect(port)
        except RuntimeError:
            await asyncio.sleep(0.2)
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000, help="people in the room (1000)")
    parser.add_argument("--moves", type=float, default=5, help="people who leave per second (5)")
    parser.add_argument(
        "--seconds", type=float, default=30, help="duration of each measurement (30)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = KafkaBroker(unpack(folder), folder)
        try:
            broker.start()
            fill(broker, 0)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(broker, folder, options))
        finally:
            broker.close()


if __name__ == "__main__":
    main()
