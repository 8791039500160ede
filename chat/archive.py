"""Messages before the window, read back from the log in bounded pieces.

Whatever was a repeat when it arrived is a repeat here, too. A record is a repeat if the one before
it with the same room, user and cid is less than a window of offsets away (`Room.forget` says why).
So reading the window before a record is enough to decide. The log is read in *blocks* of one
window, each together with the window before it. For a block, the offsets of each room's messages
are kept: they are small, however long the texts are. The messages themselves are kept in *chunks*
of a block, as many as fit; a dropped chunk can be read again alone.

Whether a message was deleted or edited depends on the log after it (`chat/revisions.py`). Before
messages of a block are shown, all blocks after it have been read for their revisions. A client that
pages back has had them read already.

The contents of the log do not change, and a client that read one page usually requests the next.
Clients that request something that is being read already wait for that read.
"""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import structs

from chat.protocol import Position
from chat.relay.base import Entry, Portion, Revision, UnavailableError
from chat.revisions import Revised, TooManyError
from chat.room import Key, StoredMessage, key_of
from chat.turns import Turns
from chat.window import RoomWindow

# Maximum number of records in memory while a block is read; fewer if a portion of the log is less.
STEP = 2000
# Before each step, a read that is not urgent waits for urgent ones, but at most this long, because
# there may always be urgent ones.
STAND_BACK_SECONDS = 0.1
# Offsets per chunk. A chunk with more bytes is not read as a whole, but message by message. With
# the default limit for texts, no chunk is that large.
CHUNK = 250
CHUNK_BYTES = 10 << 20
# Records to read to find out whether the log has any at some offset.
PROBE = 100
# Cache sizes of blocks and of chunks, in bytes.
KEPT_OF_BLOCKS = 8 << 20
KEPT_OF_CHUNKS = 16 << 20
# Approximate memory of a room in a block, in addition to its offsets.
ROOM_BYTES = 200
# Approximate memory of a revision in a block.
REVISION_BYTES = 450

T = TypeVar("T")


class Asker(NamedTuple):
    """The client for which the log is read. Urgent reads do not wait for others."""

    address: str
    urgent: bool = False


class Page(NamedTuple):
    """Consecutive messages of a room, oldest first.

    The page ends with `position` (or starts with it, when paging backwards), and there may be
    `more` beyond. It is not `whole` if the log no longer has its start.
    """

    messages: list[StoredMessage]
    position: Position
    more: bool
    whole: bool = True


class Block(NamedTuple):
    """The offsets of each room's messages in a block that was read up to, not including, offset
    `end`, and the revisions in it.

    `first` is the first record in the block or the window before it. It is None if there is none,
    because the log starts later.
    """

    offsets: dict[str, array[int]]
    end: int
    first: int | None
    revisions: Sequence[Entry] = ()


# All records of a chunk, by offset.
Chunk = dict[int, StoredMessage]
# Placeholder for a chunk that is too large to keep.
_HEAVY = Chunk()


class Kept(Generic[T]):
    """The most recently used items, up to `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: OrderedDict[tuple[int, ...], tuple[T, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: tuple[int, ...]) -> T | None:
        found = self._items.get(key)
        if found is None:
            return None
        self._items.move_to_end(key)
        return found[0]

    def put(self, key: tuple[int, ...], item: T, size: int) -> None:
        _, before = self._items.pop(key, (None, 0))
        self._items[key] = item, size
        self.bytes += size - before
        # An item larger than the limit is kept alone.
        while self.bytes > self._most and len(self._items) > 1:
            _, (_, dropped) = self._items.popitem(last=False)
            self.bytes -= dropped


class Filling:
    """A page under construction: at most `limit` messages and `size` bytes. A first message that is
    larger is included anyway.
    """

    def __init__(self, limit: int, size: int) -> None:
        self._limit = limit
        self._left = size
        self.messages: list[StoredMessage] = []
        self.full = False

    def add(self, message: StoredMessage) -> bool:
        """Add a message if it fits. Returns whether it did."""
        self._left -= len(message.payload)
        if self.messages and self._left < 0:
            self.full = True
            return False
        self.messages.append(message)
        self.full = len(self.messages) >= self._limit
        return True


class Reading(Generic[T]):
    """A read from the log that runs when it is its turn, and the number of clients that wait for
    it.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[T]
        self.begun = False
        self.waiting = 0
        self.addresses: set[str] = set()


class Archive:
    """The old messages of one log. `window` counts offsets; a request may read `scan` offsets.

    `read` is `Relay.read`. Its exceptions pass through all methods here.
    """

    def __init__(
        self,
        read: Callable[[int, int, int], Awaitable[Portion]],
        epoch: str,
        *,
        window: int,
        scan: int,
        page_bytes: int,
    ) -> None:
        self._read = read
        self._epoch = epoch
        self._window = window
        self._blocks_per_request = max(1, scan // window)
        self._page_bytes = page_bytes
        self._blocks = Kept[Block](KEPT_OF_BLOCKS)
        self._chunks = Kept[Chunk](KEPT_OF_CHUNKS)
        self._chunk_size = min(CHUNK, window)
        self._reading: dict[tuple[int | str, ...], Reading[Any]] = {}
        self._turns = Turns()
        self._urgent_turns = Turns()

    async def before(self, known: RoomWindow, end: int, limit: int, asker: Asker) -> Page:
        """The last messages before offset `end`, at most `limit` of them."""
        page = Filling(limit, self._page_bytes)
        for message in reversed(known.messages):
            if message.offset < end and (page.full or not page.add(message)):
                break
        reached = min(end, known.floor + 1)
        index = (reached - 1) // self._window
        for number in range(index, max(index - self._blocks_per_request, -1), -1):
            if page.full:
                break
            block = await self._block(known, number, reached, asker)
            if block.first is None:
                reached = 0
                break
            offsets = [at for at in block.offsets.get(known.room, ()) if at < reached]
            if offsets:
                await self.learn(known, number * self._window, asker)
            async for message in self._messages(known, number, block, reversed(offsets), asker):
                if page.full or not page.add(message):
                    break
            reached = number * self._window
        page.messages.reverse()
        if page.full:
            reached = page.messages[0].offset
        return Page(page.messages, self._position(known, reached, page.messages), reached > 0)

    async def after(self, known: RoomWindow, start: int, limit: int, asker: Asker) -> Page:
        """The first messages after offset `start`, at most `limit` of them."""
        page = Filling(limit, self._page_bytes)
        reached = start
        whole = True
        index = (start + 1) // self._window
        for number in range(index, index + self._blocks_per_request):
            if reached >= known.floor or page.full:
                break
            block = await self._block(known, number, known.floor + 1, asker)
            if number == index:
                whole = block.first is not None and block.first <= start + 1
            newer = block.offsets.get(known.room, ())
            offsets = [at for at in newer if start < at <= known.floor]
            if offsets:
                await self.learn(known, number * self._window, asker)
            async for message in self._messages(known, number, block, offsets, asker):
                if page.full or not page.add(message):
                    break
            reached = min((number + 1) * self._window - 1, known.floor)
        if reached >= known.floor and not page.full:
            for message in known.messages:
                if message.offset > start and (page.full or not page.add(message)):
                    break
            reached = known.end
        if page.full:
            reached = page.messages[-1].offset
        return Page(
            page.messages, self._position(known, reached, page.messages), reached < known.end, whole
        )

    async def begin(self, known: RoomWindow, asker: Asker) -> int:
        """An offset shortly before the first record that the log still has."""
        low, high = 0, known.end + 1
        while high - low > self._window:
            middle = (low + high) // 2
            upto = min(middle + PROBE, known.end)
            async with self._turn(asker):
                there = await self._read(known.partition, middle - 1, upto)
            if there.entries:
                high = middle
            else:
                low = middle
        return low - 1

    async def learn(self, known: RoomWindow, since: int, asker: Asker) -> None:
        """Let the replica know all revisions from offset `since` on.

        The log is read for this only once, however many ask, and what has been read is known even
        if nobody waits until the end.
        """
        revisions = known.revisions
        while (end := revisions.since) > since:
            number = (end - 1) // self._window
            block = await self._block(known, number, end, asker)
            if revisions.since != end:
                # Others have learned these meanwhile, or all were forgotten.
                continue
            try:
                revisions.learn(number * self._window, block.revisions)
            except TooManyError:
                raise UnavailableError(
                    "Too many messages were deleted or edited since then: what is older cannot be"
                    " shown."
                ) from None

    async def find(
        self, known: RoomWindow, position: Position, asker: Asker
    ) -> StoredMessage | None:
        """The message that the log has at this position, as it was written."""
        message = await self._read_one(known, position.offset, asker)
        if message is None or position.time not in (0, message.time):
            return None
        record = message.record
        return None if record.room != known.room or isinstance(record, Revision) else message

    async def _read_one(self, known: RoomWindow, offset: int, asker: Asker) -> StoredMessage | None:
        """What the log has there. It is read with its chunk: whoever wants one record, such as an
        edit, often wants others beside it, and each read waits for its turn. If the log does not
        fill the chunk yet, it is read alone: the chunk would be another one after each record.
        """
        number, place = divmod(offset, self._window)
        end = (number + 1) * self._window
        key = self._chunk_key(known.partition, number, place // self._chunk_size, end)
        alone = known.partition, offset, offset + 1
        chunk = await self._chunk(key if key[2] <= known.end + 1 else alone, asker)
        if chunk is _HEAVY:
            chunk = await self._chunk(alone, asker)
        return chunk.get(offset)

    async def as_revised(
        self, known: RoomWindow, message: StoredMessage, asker: Asker
    ) -> StoredMessage | None:
        """The message with its last text; None if it is deleted."""
        revised = revised_of(known, message)
        if revised is None:
            return message
        if revised.deleted:
            return None
        revision = await self._read_one(known, revised.at, asker)
        if revision is None:
            # The log was cut there.
            return None
        return message.edited_by(Entry(revised.at, revision.time, revision.record))

    def _position(
        self, known: RoomWindow, offset: int, messages: Sequence[StoredMessage]
    ) -> Position:
        for message in (*messages[:1], *messages[-1:]):
            if message.offset == offset:
                return message.position
        time = known.time if offset == known.end else 0
        return Position(self._epoch, known.partition, offset, time)

    async def _block(self, known: RoomWindow, number: int, end: int, asker: Asker) -> Block:
        """Return a block. If the log does not fill it yet, it covers at least the offsets before
        `end`.
        """
        partition = known.partition
        end = min(end, (number + 1) * self._window)

        def kept() -> Block | None:
            block = self._blocks.get((partition, number))
            return block if block is not None and block.end >= end else None

        if (block := kept()) is not None:
            return block

        async def read() -> Block:
            # It may have been read in the meantime.
            if (block := kept()) is not None:
                return block
            upto = min((number + 1) * self._window, max(known.end + 1, end))
            return await self._read_block(partition, number, upto, asker)

        # A block that was read for another request may end before `end`.
        found = await self.once((partition, number), asker, read)
        while found.end < end:
            found = await self.once((partition, number), asker, read)
        return found

    async def _messages(
        self,
        known: RoomWindow,
        number: int,
        block: Block,
        offsets: Iterable[int],
        asker: Asker,
    ) -> AsyncIterator[StoredMessage]:
        """The messages at these offsets of a block. Messages that the log has deleted are
        skipped.
        """
        index, chunk = -1, Chunk()
        for offset in offsets:
            wanted = (offset - number * self._window) // self._chunk_size
            if wanted != index:
                index = wanted
                key = self._chunk_key(known.partition, number, index, block.end)
                chunk = await self._chunk(key, asker)
            if chunk is _HEAVY:
                chunk_of_one = await self._chunk((known.partition, offset, offset + 1), asker)
                message = chunk_of_one.get(offset)
            else:
                message = chunk.get(offset)
            if message is not None:
                message = await self.as_revised(known, message, asker)
            if message is not None:
                yield message

    async def _chunk(self, key: tuple[int, int, int], asker: Asker) -> Chunk:
        partition, first, end = key

        async def read() -> Chunk:
            chunk = Chunk()
            size, after = 0, first - 1
            while after < end - 1 and (size <= CHUNK_BYTES or end - first == 1):
                portion = await self._read(partition, after, end - 1)
                for entry in portion.entries:
                    chunk[entry.offset] = message = self._stored(partition, entry)
                    size += message.size
                after = portion.reached
            return self._keep_chunk(key, chunk, size)

        if (chunk := self._chunks.get(key)) is not None:
            return chunk
        return await self.once(key, asker, read)

    def _turn(
        self, asker: Asker, waiting: Collection[str] = ()
    ) -> contextlib.AbstractAsyncContextManager[None]:
        turns = self._urgent_turns if asker.urgent else self._turns
        return turns.of(asker.address, waiting)

    async def once(
        self, what: tuple[int | str, ...], asker: Asker, read: Callable[[], Awaitable[T]]
    ) -> T:
        """Run a read when it is the client's turn, or wait for the same read that is already in
        progress.

        A read is cancelled when nobody waits any more, unless it has started: a thread cannot be
        stopped, and would run in parallel to the next turn.
        """
        key = (*what, asker.urgent)
        reading: Reading[T]
        if key in self._reading:
            reading = self._reading[key]
        else:
            reading = self._reading[key] = Reading()

            async def read_in_turn() -> T:
                async with self._turn(asker, reading.addresses):
                    reading.begun = True
                    return await read()

            reading.task = asyncio.create_task(read_in_turn())
            reading.task.add_done_callback(lambda task: self._finished(key, task))
        reading.waiting += 1
        # The read runs at the turn of any waiting client, so that nobody waits in another client's
        # queue.
        reading.addresses.add(asker.address)
        try:
            return await asyncio.shield(reading.task)
        finally:
            reading.waiting -= 1
            if not reading.waiting and not reading.begun:
                reading.task.cancel()
                if self._reading.get(key) is reading:
                    del self._reading[key]

    def _finished(self, key: tuple[int | str, ...], task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            # Pass the error to waiting clients; there may be none.
            task.exception()
            self._reading.pop(key, None)

    async def _read_block(self, partition: int, number: int, end: int, asker: Asker) -> Block:
        start = number * self._window
        offsets: dict[str, array[int]] = {}
        first = None
        # The last offset of each message.
        last: dict[tuple[str, Key], int] = {}
        revisions: list[Entry] = []
        index, chunk, size = 0, Chunk(), 0
        after = max(start - self._window, 0) - 1
        while after < end - 1:
            if not asker.urgent:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STAND_BACK_SECONDS):
                        await self._urgent_turns.idle()
            portion = await self._read(partition, after, min(after + STEP, end - 1))
            for entry in portion.entries:
                offset, record = entry.offset, entry.record
                if first is None:
                    first = offset
                before = None
                if not isinstance(record, Revision):
                    key = (record.room, key_of(record))
                    before = last.get(key)
                    last[key] = offset
                if offset < start:
                    continue
                if (offset - start) // self._chunk_size != index:
                    self._keep_chunk(self._chunk_key(partition, number, index, end), chunk, size)
                    index, chunk, size = (offset - start) // self._chunk_size, Chunk(), 0
                if size <= CHUNK_BYTES:
                    chunk[offset] = message = self._stored(partition, entry)
                    size += message.size
                if isinstance(record, Revision):
                    revisions.append(_without_text(entry, record))
                elif before is None or offset - before >= self._window:
                    found = offsets.get(record.room)
                    if found is None:
                        found = offsets[record.room] = array("q")
                    found.append(offset)
            after = portion.reached
        self._keep_chunk(self._chunk_key(partition, number, index, end), chunk, size)
        block = Block(offsets, end, first, revisions)
        size = sum(ROOM_BYTES + 8 * len(found) for found in offsets.values())
        size += REVISION_BYTES * len(revisions)
        self._blocks.put((partition, number), block, size)
        return block

    def _chunk_key(self, partition: int, number: int, index: int, end: int) -> tuple[int, int, int]:
        """The key of a chunk: its partition, its first offset, and its end. Its block was read up
        to, not including, offset `end`.
        """
        first = number * self._window + index * self._chunk_size
        return partition, first, min(first + self._chunk_size, (number + 1) * self._window, end)

    def _stored(self, partition: int, entry: Entry) -> StoredMessage:
        return StoredMessage(entry.offset, self._epoch, partition, entry.ts, entry)

    def _keep_chunk(self, key: tuple[int, int, int], chunk: Chunk, size: int) -> Chunk:
        """Cache a chunk of `size` bytes, or a placeholder if it is too large. Returns what is
        cached.
        """
        _, first, end = key
        if size > CHUNK_BYTES and end - first > 1:
            chunk, size = _HEAVY, 0
        self._chunks.put(key, chunk, size)
        return chunk


def revised_of(known: RoomWindow, message: StoredMessage) -> Revised | None:
    """The last revision of a message, as far as is known."""
    author = message.record.author
    return known.revisions.of(known.room, message.offset, message.time, author)


def _without_text(entry: Entry, revision: Revision) -> Entry:
    """Enough to know that there is a revision. Its text is read when somebody wants to see it."""
    text = "." if revision.text else ""
    return Entry(entry.offset, entry.ts, structs.replace(revision, text=text))
