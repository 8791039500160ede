"""The window: the last records of each partition, by room. It is the only part of the log that a
replica keeps, and it is filled in log order.

When a log is replaced, the window is replaced too and starts empty.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from chat.protocol import Ack, ErrorCode, Position, RefusedError, cid_used
from chat.relay.base import Entry, Record, Revision, author_by_name, partition_of
from chat.repeats import ENOUGH, Repeats
from chat.revisions import MOST, Revised, Revisions
from chat.room import ROOM_BYTES, First, Key, Room, StoredMessage, key_of, size_known, size_of
from chat.times import Times

# A client that moved here may have seen more than this replica has read. Usually the difference is
# milliseconds, and a few seconds while a partition waits for another leader. A position that is
# still ahead after this time does not belong to this log.
AHEAD_SECONDS = 20.0


class WindowEntry(msgspec.Struct, frozen=True, gc=False):
    """What the window needs to know of a record to remove it."""

    offset: int
    room: Room
    key: Key
    # The memory it takes to know this record, in bytes.
    size: int


class Partition:
    """One partition of the log, as far as it has been read, and its part of the window."""

    def __init__(self, number: int, position: int, revisions: Revisions) -> None:
        self.number = number
        self.position = position
        self.revisions = revisions
        # Everything after this offset is in the window.
        self.floor = position
        self.times = Times(position)
        self.entries: deque[WindowEntry] = deque()
        # The messages stored in rooms, as (room, offset, bytes).
        self.kept: deque[tuple[Room, int, int]] = deque()
        # Bytes taken by these messages, and by the entries and their rooms.
        self.kept_bytes = 0
        self.known_bytes = 0
        self._start = position
        self.occupied: set[Room] = set()
        # The position that all members here know at least; the time they were last sent a newer
        # one.
        self.told = position
        self.told_at = time.monotonic()
        # Futures of clients that wait until this replica has read up to an offset.
        self.waiting: dict[asyncio.Future[None], int] = {}
        # The smallest of these offsets.
        self.nearest = 0

    @property
    def middle(self) -> int:
        """Positions before this offset are in the older half of a full window."""
        if self.floor == self._start:
            return self._start
        return (self.floor + self.position) // 2


class RoomWindow(NamedTuple):
    """The window's part of a room: all its `messages` after offset `floor`. The log has been read
    up to offset `end`.
    """

    room: str
    partition: int
    floor: int
    end: int
    messages: Sequence[StoredMessage]
    revisions: Revisions
    # When the log stored the record at `end`; 0 if unknown.
    time: int = 0
    # `Revisions.forgotten` at this moment.
    forgotten: int = 0


class Window:
    """`size` counts offsets of a partition, `history` messages of a room. Everything together takes
    `memory` bytes, in equal shares for the partitions. A partition over its share drops messages.
    What identifies repeats is never dropped; if it takes nearly the whole share, messages still get
    a quarter.
    """

    def __init__(
        self, epoch: str, positions: Sequence[int], *, size: int, history: int, memory: int
    ) -> None:
        self.epoch = epoch
        most = MOST // max(len(positions), 1)
        self.partitions = [
            Partition(number, at, Revisions(at + 1, most)) for number, at in enumerate(positions)
        ]
        self.rooms: dict[str, Room] = {}
        # Whether another log has replaced this one.
        self.replaced = False
        self._repeats = Repeats()
        self._size = size
        self._bytes = memory // max(len(positions), 1)
        self._history = history

    def partition_of(self, name: str) -> Partition:
        return self.partitions[partition_of(name, len(self.partitions))]

    def room(self, name: str) -> Room:
        room = self.rooms.get(name)
        return self._make_room(name, self.partition_of(name)) if room is None else room

    def _make_room(self, name: str, partition: Partition) -> Room:
        room = Room(name, self.epoch, partition.number, self._history, partition.times)
        self.rooms[name] = room
        return room

    def drop_if_idle(self, room: Room) -> None:
        if room.idle and self.rooms.get(room.name) is room:
            del self.rooms[room.name]

    def part_of(self, name: str) -> RoomWindow:
        partition = self.partition_of(name)
        room = self.rooms.get(name)
        floor = room.reaches(partition.floor) if room else partition.floor
        messages = room.after(floor) if room else ()
        end = partition.position
        time = partition.times.at(end)
        revisions = partition.revisions
        return RoomWindow(
            name, partition.number, floor, end, messages, revisions, time, revisions.forgotten
        )

    def ack(self, record: Record) -> Ack | None:
        """Where the log already has this message; None if this replica does not know of it.

        Raises `RefusedError` (cid_used) if the same author used this cid for another text.
        """
        text = hash(record.text)
        first = self._first(record.room, key_of(record))
        if first is None:
            # A release that did not write authors may have accepted it before its sender moved
            # here.
            first = self._first(record.room, (author_by_name(record.user), record.cid))
            if first is None or first.text != text:
                return None
        if first.text != text:
            raise cid_used(record.cid)
        number = self.partition_of(record.room).number
        return Ack(record.cid, str(Position(self.epoch, number, first.offset, first.time)))

    def _first(self, name: str, key: Key) -> First | None:
        room = self.rooms.get(name)
        first = room.first(key) if room else None
        return self._repeats.first(name, key) if first is None else first

    def expire(self) -> None:
        """Remove repeats that were remembered long enough; called periodically."""
        self._repeats.expire()

    def position(self, room: Room) -> str:
        """The position up to which the room has been read."""
        return room.position(self.partitions[room.partition].position)

    def place(self, name: str, text: str) -> Position:
        """Parse a position of this room. Raises `RefusedError` (bad_position)."""
        position = Position.parse(text)
        expected = (self.epoch, partition_of(name, len(self.partitions)))
        if position is None or (position.epoch, position.partition) != expected:
            raise RefusedError(
                ErrorCode.BAD_POSITION,
                f"This is no position of {name}: take one that came with its messages.",
            )
        return position

    def know(self, partition: Partition, times: Sequence[tuple[int, int]]) -> None:
        """Store when the log stored the next records (`Batch.times`)."""
        partition.times.forget(partition.floor)
        partition.times.add(times)

    def take(self, partition: Partition, entry: Entry) -> tuple[Room, bool]:
        """Add a record to its room, to be shown later together with others. Returns the room, and
        whether the record is new, not a repeat.
        """
        record = entry.record
        key = key_of(record)
        # Before the record is examined, so that what counts as a repeat does not depend on batches.
        self.advance(partition, entry.offset)
        room = self.rooms.get(record.room)
        if room is None:
            room = self._make_room(record.room, partition)
        size = size_known(key)
        partition.entries.append(WindowEntry(entry.offset, room, key, size))
        partition.known_bytes += size if room.known else size + ROOM_BYTES
        new = room.post(entry, key)
        if new:
            self._keep(partition, room, entry.offset, size_of(record))
        return room, new

    def revised(self, name: str, message: StoredMessage) -> Revised | None:
        """The last revision of a message, as far as is known."""
        author = message.record.author
        revisions = self.partition_of(name).revisions
        return revisions.of(name, message.offset, message.time, author)

    def id_of(self, revision: Revision) -> str:
        """The id of the message that is revised."""
        number = self.partition_of(revision.room).number
        return str(Position(self.epoch, number, revision.offset, revision.time))

    def revise(self, partition: Partition, entry: Entry) -> Room:
        """Apply a revision to its room, to be shown later together with others. Returns the
        room.
        """
        self.advance(partition, entry.offset)
        revision = entry.record
        assert isinstance(revision, Revision)
        name = revision.room
        room = self.rooms.get(name)
        if room is None:
            # Nobody is there, and nothing of it is in memory.
            room = Room(name, self.epoch, partition.number, self._history, partition.times)
        if not room.disproves(revision) and partition.revisions.add(entry):
            edited = room.revise(entry)
            if edited is not None:
                self._keep(partition, room, entry.offset, size_of(edited.record))
        return room

    def _keep(self, partition: Partition, room: Room, offset: int, size: int) -> None:
        """Count what a room keeps, and drop what is too much, the oldest first."""
        partition.kept.append((room, offset, size))
        partition.kept_bytes += size
        most = max(self._bytes - partition.known_bytes, self._bytes // 4)
        while partition.kept_bytes > most and len(partition.kept) > 1:
            oldest, at, freed = partition.kept.popleft()
            partition.kept_bytes -= freed
            oldest.shed(at)

    def advance(self, partition: Partition, position: int) -> None:
        """The partition has been read up to `position`: remove everything a window behind it."""
        partition.position = position
        floor = position - self._size
        while partition.entries and partition.entries[0].offset <= floor:
            entry = partition.entries.popleft()
            first = entry.room.forget(entry.offset, entry.key)
            partition.known_bytes -= entry.size
            if not entry.room.known:
                partition.known_bytes -= ROOM_BYTES
            if first is not None and entry.room.known < ENOUGH:
                self._repeats.add(entry.room.name, entry.key, first)
            self.drop_if_idle(entry.room)
        while partition.kept and partition.kept[0][1] <= floor:
            partition.kept_bytes -= partition.kept.popleft()[2]
        partition.floor = max(partition.floor, floor)

    async def reach(self, position: Position) -> None:
        """Wait until this replica has read up to `position`, unless that can never happen."""
        if position.epoch != self.epoch or position.partition >= len(self.partitions):
            return
        partition = self.partitions[position.partition]
        if position.offset <= partition.position:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        partition.nearest = min(
            position.offset, partition.nearest if partition.waiting else position.offset
        )
        partition.waiting[reached] = position.offset
        try:
            async with asyncio.timeout(AHEAD_SECONDS):
                await reached
        except TimeoutError:
            return
        finally:
            partition.waiting.pop(reached, None)

    def release(self, partition: Partition) -> None:
        """Wake up the clients whose position this replica has read now."""
        if not partition.waiting or (partition.position < partition.nearest and not self.replaced):
            return
        for reached, offset in tuple(partition.waiting.items()):
            if offset <= partition.position or self.replaced:
                del partition.waiting[reached]
                if not reached.done():
                    reached.set_result(None)
        partition.nearest = min(partition.waiting.values(), default=0)

    def replace(self) -> None:
        """Another log has replaced this one: wake up everyone who waits for it."""
        self.replaced = True
        for partition in self.partitions:
            self.release(partition)
