"""The thread that reads all partitions, and hands records over to the event loop once per poll.

Every replica reads with `assign()`, without a consumer group: nothing to join, to rebalance or to
leak. It starts some records before the end, so that rooms have their history.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, LogTruncationError

from chat.relay.base import Batch, Entry, Listener
from chat.relay.kafka.batches import RecordBatch, read
from chat.relay.kafka.client import (
    POLL_BATCHES,
    POLL_MS,
    Topic,
    bounds,
    gather,
    named,
    new_consumer,
    note_interruptions,
)
from chat.relay.kafka.pace import Pace
from chat.relay.kafka.record import Skipped, entries
from chat.relay.kafka.watcher import Watcher

log = logging.getLogger("chat.kafka")

# Maximum size of a fetch, for all partitions and for one.
FETCH_BYTES = 8 << 20
FETCH_PARTITION_BYTES = 1 << 19
# A fetch from a frozen broker blocks its partitions for this long, even after other brokers lead
# them.
FETCH_ANSWER_MS = 10_000
# Approximate number of records per handover, and maximum number of handovers that the event loop
# has not processed: this limits both the delay of the loop and the memory of queued records.
HANDED_OVER = 2000
HANDED_OVER_BYTES = 1 << 20
# Longer than Kafka takes to elect another leader.
STALLED_SECONDS = 30.0
HANDOVERS_AHEAD = 4


class ReplacedError(Exception):
    """The log has another record, or none, at the offset of the last record read."""


class Reader:
    """`rewind`: start this many records before the end of each partition.

    `delivered` is the log whose records are delivered. For a moment it can differ from the one that
    the watcher found.
    """

    def __init__(
        self,
        connect: Mapping[str, Any],
        topic: str,
        signal_topic: str,
        watcher: Watcher,
        *,
        rewind: int,
    ) -> None:
        self._connect = connect
        self._topic = topic
        self._signal_topic = signal_topic
        self._watcher = watcher
        self._rewind = rewind
        self._loop: asyncio.AbstractEventLoop
        self._listener: Listener
        # The reader's progress: its log; the next offset of each partition; when the log stored the
        # record before that offset; and the partitions for which that time must still be compared.
        self._reading: Topic | None = None
        self._next: dict[int, int] = {}
        self._times: dict[int, int] = {}
        self._unverified: set[int] = set()
        self.lag: dict[int, int] = {}
        # The last time that something was read or nothing was left to read; the interruption since
        # then.
        self._got_on = time.monotonic()
        self._interruption = ""
        # An error on the event loop. It ends the reader.
        self._failure: BaseException | None = None
        # Polled records that are not handed over yet.
        self._taken: list[Batch] = []
        self._taken_records = 0
        self._taken_bytes = 0
        self._taken_skipped: Counter[Skipped] = Counter()
        self._handovers = threading.BoundedSemaphore(HANDOVERS_AHEAD)
        # Used only on the event loop.
        self.delivered: Topic | None = None
        self.caught_up = False
        self.skipped: Counter[Skipped] = Counter()

    @property
    def trouble(self) -> str:
        """Why the reader is stuck; empty if it is not, and while Kafka is down."""
        behind = sum(self.lag.values())
        since = time.monotonic() - self._got_on
        if not behind or since < STALLED_SECONDS or not self._watcher.reachable:
            return ""
        why = f" ({self._interruption})" if self._interruption else ""
        return f"the log has {behind} records that cannot be read, for {since:.0f} s now{why}"

    def start(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        self._loop = loop
        self._listener = listener

    # The reader's thread.

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            topic = self._watcher.messages
            if topic is not None:
                try:
                    self._read_topic(topic, self._watcher.signals, stopping)
                except (LogTruncationError, ReplacedError):
                    log.warning("Kafka lost records that this replica has read: starting over")
                    # The topic may have been replaced by another one of the same name. The watcher
                    # detects that. Positions of one log must not be used for another.
                    self._reading = None
                    self._watcher.forget()
                except KafkaError as error:
                    # Do not log that Kafka is down: the watcher has done so.
                    level = logging.WARNING if self._watcher.reachable else logging.DEBUG
                    log.log(level, "reading was interrupted: %s", named(error))
                    self._interruption = named(error)
                    self._watcher.forget_signals()
            stopping.wait(POLL_MS / 1000)

    def _read_topic(self, topic: Topic, signals: Topic | None, stopping: threading.Event) -> None:
        """Read until a topic changes or the relay stops. Raises `KafkaError`."""
        with contextlib.closing(self._consumer()) as consumer:
            interrupted = note_interruptions(consumer)
            partitions = topic.named(self._topic)
            signalling = signals.named(self._signal_topic) if signals else []
            consumer.assign(partitions + signalling)
            if signalling:
                consumer.seek_to_end(*signalling)
            first, end = (
                {tp.partition: at for tp, at in offsets.items()}
                for offsets in bounds(consumer, partitions)
            )
            if not self._can_go_on(topic, first, end):
                self._start_over(topic, first, end)
            self._go_on(consumer, partitions, first)
            self.lag = {number: at - self._next[number] for number, at in end.items()}
            behind = {number for number, at in end.items() if self._next[number] < at}
            if not behind:
                self._hand_over(self._catch_up)
            pace = Pace(time.monotonic())
            while not stopping.is_set() and self._still(topic, signals):
                if self._failure is not None:
                    raise RuntimeError("delivering records failed") from self._failure
                polled = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_BATCHES)
                if interrupted.is_set():
                    interrupted.clear()
                    self._go_on(consumer, partitions, first)
                    continue
                for batch in [batch for tp in signalling for batch in polled.pop(tp, ())]:
                    # One at a time: decompressed, they may be a thousand times as large.
                    payloads = [value for _, value in read(batch, batch.first).values]
                    if payloads:
                        self._hand_over(self._listener.signalled, payloads)
                before = sum(self._next.values())
                for tp, batches in polled.items():
                    self._take(tp.partition, batches, topic.partitions)
                self.lag = {
                    tp.partition: max(0, (consumer.highwater(tp) or 0) - self._next[tp.partition])
                    for tp in partitions
                }
                # After an interruption, old records are read again. They do not count as progress.
                records = sum(self._next.values()) - before
                if records or not any(self.lag.values()):
                    self._got_on, self._interruption = time.monotonic(), ""
                self._hand_over_taken()
                if behind:
                    behind = {number for number in behind if self._next[number] < end[number]}
                    if not behind:
                        self._hand_over(self._catch_up)
                pace.count(records, time.monotonic())
                gather(consumer, pace.busy)

    def _consumer(self) -> KafkaConsumer:
        return new_consumer(
            self._connect,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_PARTITION_BYTES,
            request_timeout_ms=FETCH_ANSWER_MS,
        )

    def _take(self, partition: int, batches: Sequence[RecordBatch], partitions: int) -> None:
        """Collect the records of a partition's batches, and hand them over when they are enough."""
        found: list[Entry] = []
        times: list[tuple[int, int]] = []
        for batch in batches:
            if partition in self._unverified:
                self._verify(partition, batch)
            if batch.last < self._next[partition]:
                continue
            records, skipped = entries(batch, self._next[partition], partition, partitions)
            self._next[partition] = batch.last + 1
            self._times[partition] = batch.time
            times.append((batch.last, batch.time))
            found += records
            self._taken_records += len(records)
            # A compressed batch may be a thousand times larger when decompressed.
            unpacked = sum(len(entry.record.text) for entry in records)
            self._taken_bytes += max(len(batch.raw), unpacked)
            if skipped:
                self._taken_skipped += skipped
            if self._taken_records >= HANDED_OVER or self._taken_bytes >= HANDED_OVER_BYTES:
                self._taken.append(Batch(partition, batch.last, found, times))
                self._hand_over_taken()
                found, times = [], []
        if times:
            self._taken.append(Batch(partition, times[-1][0], found, times))

    def _hand_over_taken(self) -> None:
        if self._taken:
            self._hand_over(self._deliver, self._taken, self._taken_skipped)
            self._taken, self._taken_records, self._taken_bytes = [], 0, 0
            self._taken_skipped = Counter()

    def _still(self, topic: Topic, signals: Topic | None) -> bool:
        return (self._watcher.messages, self._watcher.signals) == (topic, signals)

    def _go_on(
        self,
        consumer: KafkaConsumer,
        partitions: Sequence[TopicPartition],
        first: Mapping[int, int],
    ) -> None:
        """Start with the last record that was read, to check that it is still the same.

        A broker that lost the end of its log and became leader again reports nothing: even the
        leader epoch is the same.
        """
        for tp in partitions:
            number = tp.partition
            at = self._next[number]
            self._unverified.discard(number)
            if number in self._times and first[number] < at:
                self._unverified.add(number)
                at -= 1
            consumer.seek(tp, at)

    def _verify(self, partition: int, batch: RecordBatch) -> None:
        read = self._next[partition] - 1
        if not batch.first <= read <= batch.last or batch.time != self._times[partition]:
            raise ReplacedError
        self._unverified.discard(partition)

    def _can_go_on(self, topic: Topic, first: Mapping[int, int], end: Mapping[int, int]) -> bool:
        """Whether the log still has the records after the last one that was read."""
        return self._reading == topic and all(
            first[number] <= self._next[number] <= end[number] for number in range(topic.partitions)
        )

    def _start_over(self, topic: Topic, first: Mapping[int, int], end: Mapping[int, int]) -> None:
        self._taken, self._taken_records, self._taken_bytes = [], 0, 0
        self._taken_skipped = Counter()
        self._times = {}
        self._unverified = set()
        self._next = {number: max(first[number], end[number] - self._rewind) for number in first}
        self._reading = topic
        self._hand_over(
            self._reset, topic, [self._next[number] - 1 for number in range(topic.partitions)]
        )

    def _hand_over(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run the call on the event loop, in order."""
        self._handovers.acquire()
        self._loop.call_soon_threadsafe(functools.partial(self._take_over, call, *arguments))

    # On the event loop again.

    def _take_over(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except BaseException as error:
            # After a skipped record, the following ones must not be shown.
            self._failure = error
            raise
        finally:
            self._handovers.release()

    def _reset(self, topic: Topic, positions: Sequence[int]) -> None:
        self.caught_up = False
        self.delivered = topic
        self._listener.reset(topic.epoch, positions)

    def _deliver(self, batches: Sequence[Batch], skipped: Counter[Skipped]) -> None:
        self.skipped.update(skipped)
        self._listener.deliver(batches)

    def _catch_up(self) -> None:
        if not self.caught_up:
            log.info("the topic's history has been read")
        self.caught_up = True
