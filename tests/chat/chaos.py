"""People who chat whatever happens, and the judge of what each of them saw.

A person says things, comes and goes, and is thrown out when a replica dies. They go on where they
were, on any replica, and send again what nobody confirmed. The judge compares what each of them
saw, over all their connections, with the log: nothing may be missing, shown twice or out of order.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import websockets
from kafka import KafkaConsumer, TopicPartition

from chat.protocol import Position
from chat.relay.base import Record
from chat.relay.kafka.record import decode

# Something is said all the time, so who hears nothing for so long is not connected any more.
SILENCE_SECONDS = 3.0
# How long somebody stays on one connection: on average, and as long as they come and go at all.
STAY_SECONDS = 2.0
MOST_PENDING = 5


def offset_of(position: str) -> int:
    read = Position.parse(position)
    assert read is not None, position
    return read.offset


class Shown(NamedTuple):
    """A message as somebody saw it."""

    id: str
    user: str
    cid: str
    text: str

    @property
    def offset(self) -> int:
        return offset_of(self.id)


@dataclass
class Person:
    """Somebody in a room. `ports` tells where replicas are; it may change at any time."""

    name: str
    room: str
    ports: Callable[[], Sequence[int]]
    random: random.Random
    talks: bool = False
    leaves: bool = False
    seen: list[Shown] = field(default_factory=list)
    acks: dict[str, str] = field(default_factory=dict)
    # What was said and is not confirmed, and which of that was refused.
    pending: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    position: str | None = None
    resumes: int = 0
    reloads: int = 0

    async def live(self) -> None:
        while True:
            try:
                url = f"ws://127.0.0.1:{self.random.choice(self.ports())}/ws"
                ws = await websockets.connect(
                    url, compression=None, max_queue=None, ping_interval=None, open_timeout=3
                )
            except (OSError, TimeoutError, websockets.WebSocketException):
                await asyncio.sleep(self.random.uniform(0.02, 0.2))
                continue
            try:
                await self._converse(ws)
            except (TimeoutError, websockets.ConnectionClosed):
                pass
            finally:
                # Gone without a goodbye, as when a train enters a tunnel.
                ws.transport.abort()
            await asyncio.sleep(self.random.uniform(0.02, 0.2))

    async def _converse(self, ws: websockets.ClientConnection) -> None:
        # With a key, they are not taken for somebody else while a dead replica is still missed.
        hello = {"type": "hello", "user": self.name, "key": f"the-key-of-{self.name}"}
        await ws.send(json.dumps(hello))
        since = {"since": self.position} if self.position is not None else {}
        await ws.send(json.dumps({"type": "join", "room": self.room} | since))
        talking: asyncio.Task[None] | None = None
        stay = self.random.expovariate(1 / STAY_SECONDS)
        try:
            async with asyncio.timeout(stay if self.leaves else None):
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        frame = json.loads(await ws.recv())
                    if frame["type"] == "joined":
                        self._joined(frame)
                        talking = asyncio.create_task(self._talk(ws))
                    elif frame["type"] == "error" and "cid" not in frame:
                        return
                    else:
                        self._hear(frame)
        finally:
            if talking is not None:
                talking.cancel()

    def _joined(self, frame: dict[str, Any]) -> None:
        if self.position is not None:
            self.resumes += 1
            self.reloads += not frame["recovered"]
        known = self.seen[-1].offset if self.seen and not frame["recovered"] else -1
        for message in frame["messages"]:
            # Who begins anew is told some of it again, and knows that.
            if offset_of(message["id"]) > known:
                self._see(message)
        self.position = frame["position"]

    def _hear(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "message":
                self._see(frame)
                self.position = frame["id"]
            case "position":
                self.position = frame["position"]
            case "ack":
                self.acks[frame["cid"]] = frame["id"]
                self.pending.pop(frame["cid"], None)
            case "error":
                self.refused.add(frame["cid"])

    def _see(self, frame: dict[str, Any]) -> None:
        self.seen.append(Shown(frame["id"], frame["user"], frame["cid"], frame["text"]))

    async def _talk(self, ws: websockets.ClientConnection) -> None:
        for cid in tuple(self.pending):
            await self._say(ws, cid)
        while True:
            await asyncio.sleep(self.random.uniform(0.1, 0.5))
            for cid in tuple(self.refused):
                await self._say(ws, cid)
            if self.talks and len(self.pending) < MOST_PENDING:
                cid = f"{self.name}-{len(self.acks) + len(self.pending)}"
                self.pending[cid] = f"{cid} says {self.random.random()}"
                await self._say(ws, cid)

    async def _say(self, ws: websockets.ClientConnection, cid: str) -> None:
        self.refused.discard(cid)
        if cid in self.pending:
            frame = {"type": "send", "room": self.room, "text": self.pending[cid], "cid": cid}
            await ws.send(json.dumps(frame))


@dataclass
class Verdict:
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    misordered: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether everybody saw everything once and in order."""
        return not (self.lost or self.duplicated or self.misordered)


def judge(log: Sequence[Shown], people: Iterable[Person]) -> Verdict:
    """Compare what people of one room saw, and what was confirmed to them, with the room's log."""
    verdict = Verdict()
    known = {(shown.user, shown.cid): shown for shown in log}
    for person in people:
        who = person.name
        for cid, confirmed in person.acks.items():
            shown = known.get((who, cid))
            if shown is None:
                verdict.lost.append(f"{who}: {cid} was confirmed and is not in the log")
            elif shown.id != confirmed:
                verdict.misordered.append(f"{who}: {cid} was confirmed as {confirmed}: {shown}")
        verdict.lost += [f"{who}: {shown}" for shown in log if shown not in set(person.seen)]
        if len(set(person.seen)) < len(person.seen):
            twice = {shown for shown in person.seen if person.seen.count(shown) > 1}
            verdict.duplicated += [f"{who}: {shown}" for shown in twice]
        in_log = set(log)
        verdict.duplicated += [
            f"{who}: {shown} is no first in the log" for shown in person.seen if shown not in in_log
        ]
        verdict.misordered += [
            f"{who}: {shown} after {before}"
            for before, shown in zip(person.seen, person.seen[1:], strict=False)
            if shown.offset < before.offset
        ]
    return verdict


def rooms_of(bootstrap_servers: str, topic: str, epoch: str) -> dict[str, list[Shown]]:
    """All that the topic holds, read by other means than the chat's; of repeats, the first."""
    rooms: dict[str, list[Shown]] = {}
    known = set()
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers, group_id=None, auto_offset_reset="earliest"
    )
    try:
        partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(tp) < end for tp, end in ends.items()):
            for tp, records in consumer.poll(timeout_ms=500).items():
                for record in records:
                    value = decode(record.value)
                    assert isinstance(value, Record)
                    if (value.room, value.user, value.cid) in known:
                        continue
                    known.add((value.room, value.user, value.cid))
                    position = Position(epoch, tp.partition, record.offset, record.timestamp)
                    shown = Shown(str(position), value.user, value.cid, value.text)
                    rooms.setdefault(value.room, []).append(shown)
    finally:
        consumer.close()
    return rooms
