"""The hub: all rooms of this replica, fed by the relay in log order.

It turns a log with partitions into rooms: it keeps the window (the last records of each partition,
the only state), tells members how far they have seen, and answers senders once their message has
come back. It knows neither bytes on a wire nor Kafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from chat import protocol
from chat.history import Archive, Memory, Slice
from chat.metrics import Metrics
from chat.presence import Presence
from chat.protocol import (
    Ack,
    CloseCode,
    ErrorCode,
    IsTyping,
    Joined,
    Position,
    Progress,
    RefusedError,
)
from chat.relay.base import (
    Batch,
    Entry,
    Record,
    Relay,
    TooLargeError,
    UnavailableError,
    partition_of,
)
from chat.room import Member, Outlets, Room
from chat.websocket.frames import text_frame

# A client that moved here may have seen more than this replica has read yet: mostly milliseconds'
# worth, and some seconds' while a partition waits for another leader. A position that is still
# ahead after this long is none of this log.
AHEAD_SECONDS = 20.0

# Messages that may be on their way through the log at once, and senders that may wait for one of
# them. A log that takes records and gives none back must not fill the memory.
MOST_SENDING = 100_000
MOST_SENDERS = 100

# Changes of who is here wait so long for others, to be told together.
PRESENCE_SECONDS = 0.1

# A replica with many people tells of them by many signals: they are taken in for so long at a time,
# and of those that wait, the oldest are dropped if they are too many. The next snapshot makes it
# good.
HEAR_SECONDS = 0.002
MOST_SIGNALS = 1000


T = TypeVar("T")


class Held(msgspec.Struct, frozen=True):
    """A record of the window, as far as it is needed to forget it."""

    offset: int
    room: Room
    user: str
    cid: str


class Partition:
    """One partition of the log, as far as it is read, and its window."""

    def __init__(self, number: int, position: int) -> None:
        self.number = number
        self.position = position
        # Everything after this offset is in the window.
        self.floor = position
        self.window: deque[Held] = deque()
        self.occupied: set[Room] = set()
        # The position that members were told last.
        self.told = position


class Sending(msgspec.Struct, frozen=True):
    """A message on its way through the log, and who waits for it."""

    since: float
    senders: list[Member]


class Stretch(NamedTuple):
    """Messages of a room that follow each other, as clients are given them.

    `position` is where the next page begins, if there is `more`. It is not `whole` if the log has
    lost what came right after the position that was asked for.
    """

    messages: list[Raw]
    position: str
    more: bool
    whole: bool


class Hub:
    """`history`, `recent` and `page` count messages of a room, `window` and `scan` offsets of a
    partition.
    """

    def __init__(
        self,
        relay: Relay,
        outlets: Outlets,
        metrics: Metrics,
        *,
        history: int,
        recent: int,
        window: int,
        page: int,
        scan: int,
        position_seconds: float,
        heartbeat: float,
        members_shown: int,
        typing_seconds: float,
    ) -> None:
        self._relay = relay
        self._outlets = outlets
        self._metrics = metrics
        self._history = history
        self._recent = recent
        self._window = window
        self._page = page
        self._scan = scan
        self._position_seconds = position_seconds
        self._epoch = ""
        self._archive = self._new_archive()
        self._partitions: list[Partition] = []
        self._rooms: dict[str, Room] = {}
        self._sending: dict[tuple[str, str, str], Sending] = {}
        # The rooms of the batches at hand, and the acks for those whose messages are kept.
        self._posted: dict[Room, list[tuple[Member, bytes]]] = {}
        # Who waits until this replica has read so far.
        self._ahead: dict[asyncio.Future[None], Position] = {}
        self._typing_seconds = typing_seconds
        self.presence = Presence(heartbeat=heartbeat, shown=members_shown, typing=typing_seconds)
        self._signals: deque[bytes] = deque(maxlen=MOST_SIGNALS)
        # Members who read too slowly to be told of a change in a room.
        self._stale: set[tuple[Member, str]] = set()
        self._tellers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._relay.start(self)
        self._tellers = [
            asyncio.create_task(self._tell_positions()),
            asyncio.create_task(self._tell_presence()),
        ]
        for teller in self._tellers:
            teller.add_done_callback(_raise_now)

    @property
    def rooms(self) -> int:
        """How many have members or history."""
        return len(self._rooms)

    async def stop(self, seconds: float) -> None:
        """Stop the relay, which has so many seconds to get everything into the log."""
        for teller in self._tellers:
            teller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await teller
        self._relay.signal(self.presence.farewell())
        await self._relay.stop(seconds)

    # What clients ask for.

    async def join(self, member: Member, name: str, since: str | None) -> None:
        """Put `member` into the room and push `joined`: what it missed since, or what was said
        last.
        """
        position = Position.parse(since) if since is not None else None
        older = None
        if position is not None:
            await self._reach(position)
            older = await self._older(name, position)
        # From here on nothing is awaited: what `joined` does not hold, `message` frames will bring.
        self._require_history()
        if not self._is_in(member, name):
            self.presence.enter(name, member.person)
        room = self._room(name)
        partition = self._partitions[room.partition]
        missed = None
        if (
            position is not None
            and (position.epoch, position.partition) == (room.epoch, room.partition)
            and position.offset <= partition.position
        ):
            since_then = older.reached if older else position.offset
            missed = room.missed(since_then, partition.floor)
            if older and missed is not None:
                missed = [said.payload for said in older.messages] + missed
                if len(missed) > self._history:
                    missed = None
        if since is not None:
            self._metrics.resumes.labels(str(missed is not None).lower()).inc()
        messages = room.recent(self._recent) if missed is None else missed
        room.members[member] = member.connection
        partition.occupied.add(room)
        _say(
            member,
            Joined(
                name,
                room.position(partition.position),
                missed is not None,
                [Raw(payload) for payload in messages],
            ),
        )
        if not member.connection.offer(_frame(self.presence.whole(name))):
            self._stale.add((member, name))

    def leave(self, member: Member, name: str) -> None:
        room = self._rooms.get(name)
        if room is None or member not in room.members:
            return
        del room.members[member]
        self.presence.exit(name, member.person)
        if not room.members:
            self._partitions[room.partition].occupied.discard(room)
            self._drop_if_idle(room)

    def send(self, sender: Member, name: str, user: str, text: str, cid: str) -> None:
        """Append a message; `sender` is pushed an `ack` once the log delivers it, or an error."""
        self._require_history()
        room = self._rooms.get(name)
        first = room.first(user, cid) if room else None
        if first is not None:
            _say(sender, Ack(cid, first))
            return
        key = (name, user, cid)
        sending = self._sending.get(key)
        if len(self._sending) >= MOST_SENDING or (
            sending is not None and len(sending.senders) >= MOST_SENDERS
        ):
            raise RefusedError(ErrorCode.UNAVAILABLE, "Too many messages wait for the log.")
        if sending is not None:
            sending.senders.append(sender)
            return
        try:
            held = self._relay.append(Record(name, user, text, cid))
        except UnavailableError as error:
            raise RefusedError(ErrorCode.UNAVAILABLE, str(error)) from None
        except TooLargeError as error:
            raise RefusedError(ErrorCode.TOO_LONG, str(error)) from None
        self._sending[key] = Sending(time.monotonic(), [sender])
        if held.done():
            self._appended(key, held)
        else:
            held.add_done_callback(lambda done: self._appended(key, done))

    async def before(self, name: str, before: str | None, limit: int | None) -> Stretch:
        """The messages before a position, or the last ones; raises `RefusedError`."""
        archive, memory = self._archive, self._memory(name)
        end = memory.held + 1
        if before is not None:
            end = min(self._place(name, before).offset, end)
        limit = min(limit or self._page, self._page)
        return await self._stretch(archive, name, archive.before(memory, end, limit))

    async def after(self, name: str, after: str | None, limit: int | None) -> Stretch:
        """The messages after a position, or the oldest ones; raises `RefusedError`."""
        if after is not None:
            await self._reach(self._place(name, after))
        archive, memory = self._archive, self._memory(name)
        limit = min(limit or self._page, self._page)
        if after is None:
            start = await self._look_up(archive.begin(memory))
        else:
            start = self._place(name, after).offset
        return await self._stretch(archive, name, archive.after(memory, start, limit))

    async def _stretch(self, archive: Archive, name: str, looking: Awaitable[Slice]) -> Stretch:
        found = await self._look_up(looking)
        if archive is not self._archive:
            raise RefusedError(ErrorCode.UNAVAILABLE, "The log was replaced: try again.")
        position = Position(self._epoch, partition_of(name, len(self._partitions)), found.reached)
        messages = [Raw(said.payload) for said in found.messages]
        return Stretch(messages, str(position), found.more, found.whole)

    async def _look_up(self, looking: Awaitable[T]) -> T:
        try:
            return await looking
        except UnavailableError as error:
            raise RefusedError(ErrorCode.UNAVAILABLE, str(error)) from None

    def _memory(self, name: str) -> Memory:
        self._require_history()
        number = partition_of(name, len(self._partitions))
        partition = self._partitions[number]
        room = self._rooms.get(name)
        if room is None:
            return Memory(name, number, partition.floor, partition.position, ())
        floor = room.reaches(partition.floor)
        return Memory(name, number, floor, partition.position, room.after(floor))

    def _place(self, name: str, text: str) -> Position:
        """Read a position of this room; raises `RefusedError` (bad_position)."""
        self._require_history()
        position = Position.parse(text)
        expected = (self._epoch, partition_of(name, len(self._partitions)))
        if position is None or (position.epoch, position.partition) != expected:
            raise RefusedError(
                ErrorCode.BAD_POSITION,
                f"This is no position of {name}: take one that came with its messages.",
            )
        return position

    async def _older(self, name: str, position: Position) -> Slice | None:
        """What the log has after `position`, if memory does not reach back to it, but the log
        does.
        """
        archive, memory = self._archive, self._memory(name)
        if (position.epoch, position.partition) != (self._epoch, memory.partition):
            return None
        if not memory.held - self._scan <= position.offset < memory.floor:
            return None
        try:
            found = await archive.after(memory, position.offset, self._history + 1)
        except UnavailableError:
            return None
        return found if found.whole and not found.more and archive is self._archive else None

    def positions(self, names: Iterable[str]) -> dict[str, str]:
        """How far these rooms are shown to their members. (What several have to say in one turn is
        pushed together, so nobody is between two of them.)
        """
        rooms = [self._rooms[name] for name in names]
        return {
            room.name: room.position(self._partitions[room.partition].position) for room in rooms
        }

    def typing(self, member: Member, name: str) -> None:
        """Tell the others in the room that `member` is typing."""
        if self.presence.types(name, member.person.user, time.monotonic()):
            self._tell_typing(name, member.person.user)

    def _is_in(self, member: Member, name: str) -> bool:
        room = self._rooms.get(name)
        return room is not None and member in room.members

    def _appended(self, key: tuple[str, str, str], held: asyncio.Future[None]) -> None:
        # Success is what the log delivers, and nothing before: see `_take`.
        if held.cancelled() or (error := held.exception()) is None:
            return
        self._refuse(key, str(error))

    def _refuse(self, key: tuple[str, str, str], why: str) -> None:
        sending = self._sending.pop(key, None)
        for sender in sending.senders if sending else ():
            self._metrics.refusals.labels(ErrorCode.UNAVAILABLE).inc()
            _say(sender, protocol.Error(ErrorCode.UNAVAILABLE, why, key[2]))

    def _require_history(self) -> None:
        if not self._relay.caught_up:
            raise RefusedError(
                ErrorCode.UNAVAILABLE,
                "This replica has not read the messages yet: try again in a moment.",
            )

    async def _reach(self, position: Position) -> None:
        """Wait until this replica has read up to `position`, if that is to be expected at all."""
        if position.epoch != self._epoch or position.partition >= len(self._partitions):
            return
        if position.offset <= self._partitions[position.partition].position:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ahead[reached] = position
        try:
            async with asyncio.timeout(AHEAD_SECONDS):
                await reached
        except TimeoutError:
            return
        finally:
            self._ahead.pop(reached, None)

    # What the relay tells.

    def reset(self, epoch: str, positions: Sequence[int]) -> None:
        members = {member for room in self._rooms.values() for member in room.members}
        self._epoch = epoch
        self._archive = self._new_archive()
        self._partitions = [Partition(number, at) for number, at in enumerate(positions)]
        self._rooms = {}
        for key in tuple(self._sending):
            self._refuse(key, "The log was replaced: try again.")
        self._release(lambda _: True)
        self.presence.clear()
        # Their rooms are gone. Joining again tells them honestly what is left (`recovered`).
        for member in members:
            member.close(CloseCode.RESTART, "the log was replaced; retry_after=1")

    def deliver(self, batches: Sequence[Batch]) -> None:
        now = time.monotonic()
        for batch in batches:
            partition = self._partitions[batch.partition]
            for entry in batch.entries:
                self._take(partition, entry, now)
            if partition.position != batch.position:
                partition.position = batch.position
                self._move_window(partition)
        self._outlets.cork()
        try:
            self._show()
        finally:
            self._outlets.uncork()
        if self._ahead:
            self._release(lambda at: at.offset <= self._partitions[at.partition].position)

    def signalled(self, payloads: Sequence[bytes]) -> None:
        at_it = bool(self._signals)
        self._signals.extend(payloads)
        if not at_it:
            self._hear()

    def _hear(self) -> None:
        """Take in what other replicas have signalled, for a moment at a time."""
        until = time.monotonic() + HEAR_SECONDS
        while self._signals:
            heard = self.presence.heard(self._signals.popleft(), time.monotonic())
            for name, user in heard.lost:
                self._put_out(name, user)
            for name, user in heard.typing:
                self._tell_typing(name, user)
            if self._signals and time.monotonic() >= until:
                asyncio.get_running_loop().call_soon(self._hear)
                return

    def _take(self, partition: Partition, entry: Entry, now: float) -> None:
        """Post one record in its room, for all rooms to be shown together."""
        record = entry.record
        name, user, cid = record.room, record.user, record.cid
        # Before the record is looked at, so that what is a repeat does not depend on the batches.
        partition.position = entry.offset
        self._move_window(partition)
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(name, self._epoch, partition.number, self._history)
        acks = self._posted.setdefault(room, [])
        posted = room.post(entry.offset, entry.ts, user, record.text, cid)
        if posted is None:
            self._metrics.repeats.value += 1
        else:
            self._metrics.messages.value += 1
            self._metrics.deliveries.value += len(room.members)
        partition.window.append(Held(entry.offset, room, user, cid))
        sending = self._sending.pop((name, user, cid), None)
        if sending is not None:
            self._metrics.round_trip.observe(now - sending.since)
            first = posted or room.first(user, cid)
            assert first is not None, "a room knows what it was just told"
            ack = _frame(Ack(cid, first))
            for sender in sending.senders:
                acks.append((sender, ack))

    def _show(self) -> None:
        """Show what was taken to the members of all rooms, and tell senders that it is kept."""
        alone = len(self._posted) == 1
        for room, acks in self._posted.items():
            # So that a sender gets both in one write.
            for sender, _ in acks:
                sender.connection.hold()
            room.show(alone=alone)
            for sender, ack in acks:
                sender.connection.push(ack)
        self._posted.clear()

    def _move_window(self, partition: Partition) -> None:
        floor = partition.position - self._window
        while partition.window and partition.window[0].offset <= floor:
            held = partition.window.popleft()
            held.room.forget(held.offset, held.user, held.cid)
            self._drop_if_idle(held.room)
        partition.floor = max(partition.floor, floor)

    def _release(self, can_go_on: Callable[[Position], bool]) -> None:
        for reached, position in tuple(self._ahead.items()):
            if can_go_on(position) and not reached.done():
                reached.set_result(None)

    async def _tell_positions(self) -> None:
        """Tell members how far their room's partition has moved, whoever's messages moved it."""
        while True:
            await asyncio.sleep(self._position_seconds)
            for partition in self._partitions:
                if partition.told == partition.position:
                    continue
                partition.told = partition.position
                for room in tuple(partition.occupied):
                    if room.newest == partition.position:
                        # Its members know: a message's id is a position.
                        continue
                    progress = Progress(room.name, room.position(partition.position))
                    frame = _frame(progress)
                    for member in tuple(room.members):
                        member.connection.push(frame)

    async def _tell_presence(self) -> None:
        """Tell other replicas who is here, and members who came and went anywhere."""
        while True:
            await asyncio.sleep(PRESENCE_SECONDS)
            now = time.monotonic()
            self.presence.expire(now)
            for signal in self.presence.outgoing(now):
                self._relay.signal(signal)
            self._tell_stale()
            for name in self.presence.due(now):
                changes = self.presence.changes(name, now)
                if members := self._members(name):
                    frame = _frame(changes)
                    self._stale.update(
                        (member, name) for member in members if not member.connection.offer(frame)
                    )
                    # When people come to many rooms at once, others have their turn in between.
                    await asyncio.sleep(0)

    def _tell_stale(self) -> None:
        """Tell everything to those who were not told of a change, if they read again."""
        wholes: dict[str, bytes] = {}
        for member, name in tuple(self._stale):
            if not self._is_in(member, name):
                self._stale.discard((member, name))
                continue
            if name not in wholes:
                wholes[name] = _frame(self.presence.whole(name))
            if member.connection.offer(wholes[name]):
                self._stale.discard((member, name))

    def _tell_typing(self, name: str, user: str) -> None:
        if members := self._members(name):
            frame = _frame(IsTyping(name, user, self._typing_seconds))
            for member in members:
                if member.person.user != user:
                    member.connection.offer(frame)

    def _put_out(self, name: str, user: str) -> None:
        """Take a name from whoever has it here: somebody on another replica had it first."""
        for member in self._members(name):
            if member.person.user == user:
                self.leave(member, name)
                member.put_out(name, protocol.name_taken(name, user))

    def _members(self, name: str) -> tuple[Member, ...]:
        """As they are now: a member may leave because of what it is told."""
        room = self._rooms.get(name)
        return tuple(room.members) if room else ()

    def _new_archive(self) -> Archive:
        return Archive(self._relay.read, self._epoch, window=self._window, scan=self._scan)

    def _room(self, name: str) -> Room:
        room = self._rooms.get(name)
        if room is None:
            number = partition_of(name, len(self._partitions))
            room = self._rooms[name] = Room(name, self._epoch, number, self._history)
        return room

    def _drop_if_idle(self, room: Room) -> None:
        # By identity: a room of a log that was replaced must not take its successor along.
        if room.idle and self._rooms.get(room.name) is room:
            del self._rooms[room.name]


def _raise_now(task: asyncio.Task[None]) -> None:
    """A task that works for as long as the hub does has failed: say so now, not at the end."""
    if not task.cancelled():
        task.result()


def _frame(frame: protocol.ServerFrame) -> bytes:
    return text_frame(protocol.encode(frame))


def _say(member: Member, frame: protocol.ServerFrame) -> None:
    member.connection.push(_frame(frame))
