"""Broadcasts presence and typing to other replicas and to the members of rooms.

`Presence` holds the state. This module decides when to send it, and detects members who read too
slowly to get it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from chat import protocol
from chat.presence import Presence
from chat.protocol import IsTyping
from chat.relay.base import Relay
from chat.room import Member, Room, frame_of

# Presence changes are collected for this long and sent together.
PRESENCE_SECONDS = 0.1

# Process signals for at most this long per turn. Beyond this number of queued signals, drop the
# oldest; the next snapshot repairs the loss.
HEAR_SECONDS = 0.002
MOST_SIGNALS = 2500
MOST_SIGNAL_BYTES = 16 << 20


class Announcer:
    """`room` finds a room of this replica, `leave` removes a member from one."""

    def __init__(
        self,
        relay: Relay,
        presence: Presence,
        *,
        room: Callable[[str], Room | None],
        leave: Callable[[Member, str], None],
        typing_seconds: float,
    ) -> None:
        self._relay = relay
        self._presence = presence
        self._room = room
        self._leave = leave
        self._typing_seconds = typing_seconds
        self._signals: deque[bytes] = deque()
        self._signal_bytes = 0
        # Members who missed a change in a room because they read too slowly.
        self._stale: set[tuple[Member, str]] = set()

    async def run(self) -> None:
        """Send presence to other replicas, and changes on any replica to members."""
        while True:
            await asyncio.sleep(PRESENCE_SECONDS)
            now = time.monotonic()
            # Yield to other tasks in between, because there may be many people.
            self._presence.expire(now)
            for _ in self._presence.forget():
                await asyncio.sleep(0)
            for signal in self._presence.outgoing(now):
                self._relay.signal(signal)
                await asyncio.sleep(0)
            self._tell_stale()
            for name in self._presence.due(now):
                changes = self._presence.changes(name, now)
                if members := self._members(name):
                    frame = frame_of(changes)
                    self._stale.update(
                        (member, name) for member in members if not member.connection.offer(frame)
                    )
                    await asyncio.sleep(0)

    def farewell(self) -> None:
        self._relay.signal(self._presence.farewell())

    def welcome(self, member: Member, name: str) -> None:
        """Send the complete list to a new member."""
        if not member.connection.offer(frame_of(self._presence.whole(name))):
            self._stale.add((member, name))

    def typing(self, member: Member, name: str) -> None:
        """Tell the others in the room that `member` is typing."""
        if self._presence.types(name, member.person.user, time.monotonic()):
            self._tell_typing(name, member.person.user)

    def signalled(self, payloads: Sequence[bytes]) -> None:
        at_it = bool(self._signals)
        self._signals.extend(payloads)
        self._signal_bytes += sum(map(len, payloads))
        while len(self._signals) > MOST_SIGNALS or self._signal_bytes > MOST_SIGNAL_BYTES:
            self._next_signal()
        if not at_it:
            self._hear()

    def _hear(self) -> None:
        """Process signals of other replicas, for a limited time per turn."""
        until = time.monotonic() + HEAR_SECONDS
        while self._signals:
            heard = self._presence.heard(self._next_signal(), time.monotonic())
            for name, user in heard.lost:
                self._put_out(name, user)
            for name, user in heard.typing:
                self._tell_typing(name, user)
            if self._signals and time.monotonic() >= until:
                asyncio.get_running_loop().call_soon(self._hear)
                return

    def _next_signal(self) -> bytes:
        signal = self._signals.popleft()
        self._signal_bytes -= len(signal)
        return signal

    def _tell_stale(self) -> None:
        """Send the complete list to members who missed a change, when they read again."""
        wholes: dict[str, bytes] = {}
        for member, name in tuple(self._stale):
            room = self._room(name)
            if room is None or member not in room.members:
                self._stale.discard((member, name))
                continue
            if name not in wholes:
                wholes[name] = frame_of(self._presence.whole(name))
            if member.connection.offer(wholes[name]):
                self._stale.discard((member, name))

    def _tell_typing(self, name: str, user: str) -> None:
        if members := self._members(name):
            frame = frame_of(IsTyping(name, user, self._typing_seconds))
            for member in members:
                if member.person.user != user:
                    member.connection.offer(frame)

    def _put_out(self, name: str, user: str) -> None:
        """Take a name from its owner here, because somebody on another replica had it first."""
        for member in self._members(name):
            if member.person.user == user:
                self._leave(member, name)
                member.put_out(name, protocol.name_taken(name, user))

    def _members(self, name: str) -> tuple[Member, ...]:
        """A copy, because a member may leave while frames are sent."""
        room = self._room(name)
        return tuple(room.members) if room else ()
