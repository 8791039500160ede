"""A log in the memory of this process: no Kafka, the same guarantees, lost when the process ends.

A relay has its own log. Relays that share a `MemoryLog` are replicas of each other, like relays
that use the same topic.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections import deque
from collections.abc import Sequence

from chat.relay.base import (
    Batch,
    Entry,
    Listener,
    Portion,
    Record,
    Relay,
    UnavailableError,
    partition_of,
)

# Maximum bytes of texts per partition. Beyond that, the oldest records are dropped.
PARTITION_BYTES = 16 << 20


class MemoryLog:
    """`retention`: number of records kept per partition, like the retention of a topic.

    Each log has a new epoch, so positions of an earlier log are recognised as lost.
    """

    def __init__(self, partitions: int = 4, retention: int = 10_000) -> None:
        self._retention = retention
        self.relays: list[MemoryRelay] = []
        self._begin(partitions)

    def _begin(self, partitions: int) -> None:
        self.epoch = uuid.uuid4().hex
        # Number of times the log lost its end.
        self.cuts = 0
        self._taken = 0
        self._partitions: list[deque[Entry]] = [deque() for _ in range(partitions)]
        self._bytes = [0] * partitions
        self.ends = [0] * partitions

    def recreate(self, partitions: int) -> None:
        """Start again with an empty log and another epoch, like a topic that was deleted and
        created.
        """
        self._begin(partitions)
        self._wake()

    def append(self, record: Record) -> None:
        partition = partition_of(record.room, len(self.ends))
        ts = max(time.time_ns() // 1_000_000, self._taken + 1)
        entry = Entry(self.ends[partition], ts, record)
        entries = self._partitions[partition]
        entries.append(entry)
        self.ends[partition] += 1
        self._bytes[partition] += sys.getsizeof(record.text)
        while len(entries) > self._retention or self._bytes[partition] > PARTITION_BYTES:
            self._bytes[partition] -= sys.getsizeof(entries.popleft().record.text)
        self._wake()

    def first(self, partition: int) -> int:
        """The offset of the oldest record kept, or of the next record if there is none."""
        return self.ends[partition] - len(self._partitions[partition])

    def cut(self, partition: int, end: int) -> None:
        """Lose the records from offset `end` on, like a broker whose machine loses power."""
        entries = self._partitions[partition]
        while entries and entries[-1].offset >= end:
            lost = entries.pop()
            self._bytes[partition] -= sys.getsizeof(lost.record.text)
            # Records that replace it get later times.
            self._taken = max(self._taken, lost.ts)
        self.ends[partition] = end
        self.cuts += 1
        self._wake()

    def read(self, partition: int, start: int, end: int) -> Sequence[Entry]:
        """The entries from offset `start` up to, not including, `end`, as far as they are kept."""
        entries, first = self._partitions[partition], self.first(partition)
        # Access by index is fast near the end of a deque.
        return [
            entries[offset - first]
            for offset in range(max(start, first), min(end, self.ends[partition]))
        ]

    def _wake(self) -> None:
        for relay in self.relays:
            relay.wake()


class MemoryRelay(Relay):
    """`rewind`: start this many records before the end of each partition."""

    def __init__(self, log: MemoryLog | None = None, *, rewind: int = 10_000) -> None:
        self._log = log or MemoryLog()
        self._rewind = rewind
        self._listener: Listener | None = None
        self._reading = ("", 0)
        self._next: list[int] = []
        self._awake = False
        # Appended records are stored at once, so this future is always done.
        self._held: asyncio.Future[None]

    @property
    def up(self) -> bool:
        return self._listener is not None

    @property
    def caught_up(self) -> bool:
        return self._listener is not None

    async def start(self, listener: Listener) -> None:
        self._listener = listener
        self._held = asyncio.get_running_loop().create_future()
        self._held.set_result(None)
        self._log.relays.append(self)
        self._follow()

    def append(self, record: Record) -> asyncio.Future[None]:
        if self._listener is None:
            raise UnavailableError("The service is not running.")
        self._log.append(record)
        return self._held

    async def read(self, partition: int, after: int, upto: int) -> Portion:
        if self._listener is None:
            raise UnavailableError("The service is not running.")
        return Portion.of(self._log.read(partition, after + 1, upto + 1), upto)

    def signal(self, payload: bytes) -> None:
        for relay in self._log.relays:
            asyncio.get_running_loop().call_soon(relay.hear, payload)

    async def stop(self, seconds: float) -> None:  # noqa: ARG002 - nothing waits
        if self._listener is not None:
            self._log.relays.remove(self)
        self._listener = None

    # Called by the log and other relays.

    def wake(self) -> None:
        """The log has changed. New records are delivered later, as with Kafka, so that callers
        cannot rely on delivery during `append`.
        """
        if not self._awake:
            self._awake = True
            asyncio.get_running_loop().call_soon(self._follow)

    def hear(self, payload: bytes) -> None:
        if self._listener is not None:
            self._listener.signalled([payload])

    def _follow(self) -> None:
        self._awake = False
        if self._listener is None:
            return
        log = self._log
        if self._reading != (log.epoch, log.cuts) or self._was_overtaken():
            self._reading = (log.epoch, log.cuts)
            self._next = [
                max(log.first(partition), end - self._rewind)
                for partition, end in enumerate(log.ends)
            ]
            self._listener.reset(log.epoch, [offset - 1 for offset in self._next])
        batches = []
        for partition, end in enumerate(log.ends):
            if (start := self._next[partition]) < end:
                entries = log.read(partition, start, end)
                times = [(entry.offset, entry.ts) for entry in entries]
                batches.append(Batch(partition, end - 1, entries, times))
                self._next[partition] = end
        if batches:
            self._listener.deliver(batches)

    def _was_overtaken(self) -> bool:
        """Whether unread records have been dropped."""
        for partition, offset in enumerate(self._next):
            if offset < self._log.first(partition):
                return True
        return False
