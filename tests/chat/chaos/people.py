"""People who chat whatever happens, and somebody who is after their names.

A person says things, comes and goes, and is thrown out when a replica dies. They go on where they
were, on any replica, and send again what nobody confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import websockets
from tornado.httpclient import AsyncHTTPClient

from chaos.judge import Shown, Stretch, Witness, offset_of
from chat.protocol import ErrorCode

# Something is said all the time, so who hears nothing for so long is not connected any more.
SILENCE_SECONDS = 3.0
# A replica waits for the log to reach a client's position, which it may have lost, for 20 seconds.
JOIN_SECONDS = 30.0
# How long somebody stays on one connection: on average, and as long as they come and go at all.
STAY_SECONDS = 1.0
MOST_PENDING = 5
# How long a thief keeps a name, if nobody takes it back.
STEAL_SECONDS = 20.0

Ports = Callable[[], Sequence[int]]
# The headers of somebody with this name, who is this subject.
SignIn = Callable[[str, str], dict[str, str]]


class Resume(NamedTuple):
    """Somebody came back with a position. Times are those of the monotonic clock."""

    heard_last: float
    back: float
    recovered: bool


@dataclass
class Person:
    """Somebody in a room. `ports` tells where replicas are; it may change at any time."""

    name: str
    room: str
    ports: Ports
    random: random.Random
    sign_in: SignIn
    # Comes each time without a position, as a page does that was loaded again.
    forgets: bool = False
    talks: bool = False
    leaves: bool = False
    # Whether they are in the room now, as far as they know.
    here: bool = False
    author: str = ""
    stretches: list[Stretch] = field(default_factory=list)
    acks: dict[str, str] = field(default_factory=dict)
    # What was said and is not confirmed, and which of that was refused.
    pending: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    position: str | None = None
    heard_last: float = 0.0
    resumes: list[Resume] = field(default_factory=list)
    # When they were told that somebody else has their name, and for how many seconds they were told
    # so, each time.
    robbed_at: float | None = None
    robbed: list[float] = field(default_factory=list)

    @property
    def witness(self) -> Witness:
        return Witness(self.name, self.author, self.stretches, self.acks)

    @property
    def seen(self) -> list[Shown]:
        """In the stretch that goes on."""
        return self.stretches[-1].seen if self.stretches else []

    async def live(self) -> None:
        while True:
            try:
                headers = self.sign_in(self.name, self.name)
                ws = await connect(self.random.choice(self.ports()), headers)
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
        await say(ws, type="hello", user=self.name, key=f"the-key-of-{self.name}")
        since = None if self.forgets else self.position
        await say(ws, type="join", room=self.room, **({"since": since} if since else {}))
        talking: asyncio.Task[None] | None = None
        patience = JOIN_SECONDS
        stay = self.random.expovariate(1 / STAY_SECONDS)
        try:
            async with asyncio.timeout(stay if self.leaves else None):
                while True:
                    async with asyncio.timeout(patience):
                        frame = json.loads(await ws.recv())
                    if frame["type"] == "joined":
                        patience = SILENCE_SECONDS
                        self._joined(frame, since is not None)
                        talking = asyncio.create_task(self._talk(ws))
                    elif frame["type"] == "error" and "cid" not in frame:
                        if frame["code"] == ErrorCode.NAME_TAKEN:
                            self._be_robbed()
                        return
                    else:
                        self._hear(frame)
        finally:
            self.here = False
            if talking is not None:
                talking.cancel()

    def _joined(self, frame: dict[str, Any], came_back: bool) -> None:
        self.here = True
        self.robbed_at = None
        if came_back:
            self.resumes.append(Resume(self.heard_last, time.monotonic(), frame["recovered"]))
        if not frame["recovered"]:
            shown = [message["id"] for message in frame["messages"]]
            after = offset_of(shown[0]) - 1 if shown else offset_of(frame["position"])
            self.stretches.append(Stretch(after))
        for message in frame["messages"]:
            self._see(message)
        self._move(frame["position"])

    def _be_robbed(self) -> None:
        now = time.monotonic()
        if self.robbed_at is None:
            self.robbed_at = now
            self.robbed.append(0.0)
        self.robbed[-1] = now - self.robbed_at

    def _hear(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "welcome":
                self.author = frame["author"]
            case "message":
                self._see(frame)
                self._move(frame["id"])
            case "position":
                self._move(frame["position"])
            case "ack":
                self.acks[frame["cid"]] = frame["id"]
                self.pending.pop(frame["cid"], None)
            case "error":
                self.refused.add(frame["cid"])

    def _see(self, frame: dict[str, Any]) -> None:
        self.stretches[-1].seen.append(_shown(frame))

    def _move(self, position: str) -> None:
        self.position = position
        self.heard_last = time.monotonic()

    async def _talk(self, ws: websockets.ClientConnection) -> None:
        for cid in tuple(self.pending):
            await self._send(ws, cid)
        while True:
            await asyncio.sleep(self.random.uniform(0.1, 0.5))
            for cid in tuple(self.refused):
                await self._send(ws, cid)
            if self.talks and len(self.pending) < MOST_PENDING:
                cid = self.next_cid
                self.pending[cid] = f"{cid} says {self.random.random()}"
                await self._send(ws, cid)

    @property
    def next_cid(self) -> str:
        return f"{self.name}-{len(self.acks) + len(self.pending)}"

    async def _send(self, ws: websockets.ClientConnection, cid: str) -> None:
        self.refused.discard(cid)
        if cid in self.pending:
            await say(ws, type="send", room=self.room, text=self.pending[cid], cid=cid)


@dataclass
class Thief:
    """Comes again and again under the names of others, without their keys or as another subject.
    Once let in, they say something under the next `cid` of the owner, and stay.
    """

    victims: Sequence[Person]
    ports: Ports
    random: random.Random
    sign_in: SignIn
    tries: int = 0

    async def live(self) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError, websockets.WebSocketException):
                await self._come_as(self.random.choice(self.victims))
            await asyncio.sleep(self.random.uniform(0.02, 0.2))

    async def _come_as(self, victim: Person) -> None:
        headers = self.sign_in(victim.name, "a thief")
        async with await connect(self.random.choice(self.ports()), headers) as ws:
            self.tries += 1
            await say(ws, type="hello", user=victim.name, key="the-key-of-a-thief")
            await say(ws, type="join", room=victim.room)
            async with asyncio.timeout(STEAL_SECONDS):
                while (kind := json.loads(await ws.recv())["type"]) not in ("error", "left"):
                    if kind == "joined":
                        words = {"text": "I am somebody else", "cid": victim.next_cid}
                        await say(ws, type="send", room=victim.room, **words)


async def connect(
    port: int, headers: dict[str, str], patience: float = 3.0
) -> websockets.ClientConnection:
    return await websockets.connect(
        f"ws://127.0.0.1:{port}/ws",
        additional_headers=headers,
        compression=None,
        max_queue=None,
        ping_interval=None,
        open_timeout=patience,
    )


async def say(ws: websockets.ClientConnection, **frame: str) -> None:
    await ws.send(json.dumps(frame))


async def resume(port: int, room: str, position: str, sign_in: SignIn) -> list[Shown] | None:
    """What a replica says came after a position; None if it says that something may be missing."""
    # Somebody else each time: nobody waits for the name.
    name = uuid.uuid4().hex
    async with await connect(port, sign_in(name, name), JOIN_SECONDS) as ws:
        await say(ws, type="hello", user=name)
        await say(ws, type="join", room=room, since=position)
        async with asyncio.timeout(JOIN_SECONDS):
            while (frame := json.loads(await ws.recv()))["type"] != "joined":
                assert frame["type"] != "error", frame
    return [_shown(message) for message in frame["messages"]] if frame["recovered"] else None


async def history_of(port: int, room: str, sign_in: SignIn) -> list[Shown]:
    """All that a replica has of a room, asked over HTTP from the oldest on."""
    found: list[Shown] = []
    after = "oldest"
    client = AsyncHTTPClient()
    while True:
        url = f"http://127.0.0.1:{port}/api/rooms/{room}/messages?after={after}"
        headers = sign_in("historian", "historian")
        answer = await client.fetch(url, headers=headers, raise_error=False)
        if answer.code in (429, 503):
            # Too many at once, or not ready.
            await asyncio.sleep(0.2)
            continue
        page = json.loads(answer.body)
        assert answer.code == 200, page
        found += map(_shown, page["messages"])
        if not page["more"]:
            return found
        after = page["position"]


def _shown(frame: dict[str, Any]) -> Shown:
    return Shown(*(frame[name] for name in Shown._fields))
