"""What was said before the window: read back from the log, in bounded pieces.

What was a repeat when it was live is one here, too. A record is a repeat if the one before it with
the same room, user and cid is less than a window of offsets away (`Room.forget` says why); so the
window before a record is all that has to be known to tell. The log is read in *blocks* of a window,
each with the window before it. What is in the log does not change, and who has read one page mostly
reads the next: blocks are kept for a while, and who asks for one that is being read waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from chat.protocol import Position
from chat.relay.base import Entry, UnavailableError
from chat.room import StoredMessage
from chat.window import RoomWindow

# Records held at once while a block is read.
STEP = 2000
# Blocks that may wait to be read. They are read one after the other, with a rest as long as reading
# took: whatever people ask for, it takes half of one thread's time from what is said now.
MOST_READING = 100
MOST_REST = 1.0
# Records looked at to see whether the log has any at some offset.
PROBE = 100
# Messages that are kept, in bytes, for whoever asks for them next.
KEPT_BYTES = 16 << 20
KEPT_BLOCKS = 100


class Page(NamedTuple):
    """Messages of a room that follow each other, oldest first.

    The page ends with `position` (or, going back, begins with it), and there may be `more` beyond.
    It is not `whole` if the log has lost where it should begin.
    """

    messages: list[StoredMessage]
    position: Position
    more: bool
    whole: bool = True


class Block(NamedTuple):
    """The messages of all rooms in a block, repeats left out, and their bytes.

    `first` is the first record in the block or the window before; None if there is none, for the
    log begins later.
    """

    rooms: dict[str, list[StoredMessage]]
    size: int
    first: int | None


class Archive:
    """The past of one log. `window` counts offsets; `scan` is how many a request may look at.

    `read` is `Relay.read`: what it raises, everything here raises.
    """

    def __init__(
        self,
        read: Callable[[int, int, int], Awaitable[Sequence[Entry]]],
        epoch: str,
        *,
        window: int,
        scan: int,
    ) -> None:
        self._read = read
        self._epoch = epoch
        self._window = window
        self._blocks_per_request = max(1, scan // window)
        self._kept: OrderedDict[tuple[int, int, int], Block] = OrderedDict()
        self._kept_bytes = 0
        self._reading: dict[tuple[int, int, int], asyncio.Task[Block]] = {}
        self._turn = asyncio.Lock()
        self._rested = 0.0

    async def before(self, known: RoomWindow, end: int, limit: int) -> Page:
        """The last messages before offset `end`, at most `limit` of them."""
        found = [message for message in known.messages if message.offset < end]
        reached = min(end, known.floor + 1)
        index = (reached - 1) // self._window
        for number in range(index, max(index - self._blocks_per_request, -1), -1):
            if len(found) >= limit:
                break
            block = await self._block(known, number, reached)
            if block.first is None:
                reached = 0
                break
            older = block.rooms.get(known.room, ())
            found = [message for message in older if message.offset < reached] + found
            reached = number * self._window
        if len(found) >= limit:
            found = found[len(found) - limit :]
            reached = found[0].offset
        return Page(found, self._position(known, reached), reached > 0)

    async def after(self, known: RoomWindow, start: int, limit: int) -> Page:
        """The first messages after offset `start`, at most `limit` of them."""
        found: list[StoredMessage] = []
        reached = start
        whole = True
        index = (start + 1) // self._window
        for number in range(index, index + self._blocks_per_request):
            if reached >= known.floor or len(found) >= limit:
                break
            block = await self._block(known, number, known.floor + 1)
            if number == index:
                whole = block.first is not None and block.first <= start + 1
            newer = block.rooms.get(known.room, ())
            found += [message for message in newer if start < message.offset <= known.floor]
            reached = min((number + 1) * self._window - 1, known.floor)
        if reached >= known.floor:
            found += [message for message in known.messages if message.offset > start]
            reached = known.end
        if len(found) >= limit:
            found = found[:limit]
            reached = found[-1].offset
        return Page(found, self._position(known, reached), reached < known.end, whole)

    async def begin(self, known: RoomWindow) -> int:
        """An offset shortly before the first record that the log still has."""
        low, high = 0, known.end + 1
        while high - low > self._window:
            middle = (low + high) // 2
            upto = min(middle + PROBE, known.end)
            if await self._read(known.partition, middle - 1, upto):
                high = middle
            else:
                low = middle
        return low - 1

    def _position(self, known: RoomWindow, offset: int) -> Position:
        return Position(self._epoch, known.partition, offset)

    async def _block(self, known: RoomWindow, number: int, end: int) -> Block:
        """A block; one that the log does not fill yet, as far as it lies before offset `end`."""
        full = (number + 1) * self._window
        key = (known.partition, number, full if full <= known.end + 1 else end)
        block = self._kept.get(key)
        if block is not None:
            self._kept.move_to_end(key)
            return block
        reading = self._reading.get(key)
        if reading is None:
            if len(self._reading) >= MOST_READING:
                raise UnavailableError("Too many read the history: try again in a moment.")
            reading = self._reading[key] = asyncio.create_task(self._take_turn(*key))
            reading.add_done_callback(lambda _: self._reading.pop(key))
        # Whoever gives up waiting does not do so for the others.
        return await asyncio.shield(reading)

    async def _take_turn(self, partition: int, number: int, end: int) -> Block:
        """Read a block, after the others and after a rest."""
        async with self._turn:
            await asyncio.sleep(self._rested - time.monotonic())
            began = time.monotonic()
            try:
                return await self._read_block(partition, number, end)
            finally:
                now = time.monotonic()
                self._rested = now + min(now - began, MOST_REST)

    async def _read_block(self, partition: int, number: int, end: int) -> Block:
        start = number * self._window
        rooms: dict[str, list[StoredMessage]] = {}
        size = 0
        first = None
        # Where each (room, user, cid) was last.
        last: dict[tuple[str, str, str], int] = {}
        for after in range(max(start - self._window, 0) - 1, end - 1, STEP):
            for entry in await self._read(partition, after, min(after + STEP, end - 1)):
                offset, record = entry.offset, entry.record
                if first is None:
                    first = offset
                key = (record.room, record.user, record.cid)
                before = last.get(key)
                last[key] = offset
                if offset < start or (before is not None and offset - before < self._window):
                    continue
                message = StoredMessage(offset, self._epoch, partition, entry)
                rooms.setdefault(record.room, []).append(message)
                size += len(record.text)
        block = Block(rooms, size, first)
        self._keep((partition, number, end), block)
        return block

    def _keep(self, key: tuple[int, int, int], block: Block) -> None:
        self._kept[key] = block
        self._kept_bytes += block.size
        while self._kept_bytes > KEPT_BYTES or len(self._kept) > KEPT_BLOCKS:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.size
