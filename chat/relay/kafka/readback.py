"""Threads that read old records from the log in parallel to the delivery, a few at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from chat.relay.base import Portion, UnavailableError
from chat.relay.kafka.batches import RecordBatch
from chat.relay.kafka.client import (
    ANSWER_MS,
    POLL_BATCHES,
    POLL_MS,
    Topic,
    bounds,
    named,
    new_consumer,
)
from chat.relay.kafka.record import entries
from chat.relay.kafka.watcher import Watcher

# Parallel reads, maximum number of open reads, and maximum duration of one.
READERS_BACK = 2
MOST_READS = 100
READ_SECONDS = 5.0
READ_BYTES = 262_144

T = TypeVar("T")


class Span(NamedTuple):
    """A range of a log: the offsets of one partition from `start` up to, not including, `end`."""

    topic: Topic
    partition: int
    start: int
    end: int


class ReadersBack:
    def __init__(self, connect: Mapping[str, Any], topic: str, watcher: Watcher) -> None:
        self._connect = connect
        self._topic = topic
        self._watcher = watcher
        self._threads = ThreadPoolExecutor(READERS_BACK, "kafka-reader-back")
        # Consumers that no thread is using now.
        self._idle: deque[KafkaConsumer] = deque()
        # Used only on the event loop.
        self._reads = 0

    async def read(self, topic: Topic, partition: int, after: int, upto: int) -> Portion:
        """See `Relay.read`."""

        def portion_of(batches: Iterator[RecordBatch]) -> Portion:
            found = (
                entry
                for batch in batches
                for entry in entries(batch, after + 1, partition, topic.partitions)[0]
                if entry.offset <= upto
            )
            return Portion.of(found, upto)

        return await self._in_a_thread(Span(topic, partition, after + 1, upto + 1), portion_of)

    async def time_at(self, topic: Topic, partition: int, offset: int) -> int | None:
        """See `Relay.time_at`."""

        def time_of(batches: Iterator[RecordBatch]) -> int | None:
            batch = next(batches, None)
            return batch.time if batch and batch.first <= offset <= batch.last else None

        return await self._in_a_thread(Span(topic, partition, offset, offset + 1), time_of)

    async def _in_a_thread(self, span: Span, take: Callable[[Iterator[RecordBatch]], T]) -> T:
        """Run `take` on the batches of a span, in a thread, and return its result."""
        if self._reads >= MOST_READS:
            raise UnavailableError("Too many read the history: try again.")
        self._reads += 1
        deadline = time.monotonic() + READ_SECONDS
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._read_back, span, take, deadline
            )
        except (KafkaError, TimeoutError) as error:
            raise UnavailableError(f"Kafka does not give the history: {named(error)}.") from None
        finally:
            self._reads -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    # In the threads.

    def _read_back(
        self, span: Span, take: Callable[[Iterator[RecordBatch]], T], deadline: float
    ) -> T:
        """Raises `KafkaError`, `TimeoutError`."""
        try:
            consumer = self._idle.pop()
        except IndexError:
            consumer = new_consumer(self._connect, max_partition_fetch_bytes=READ_BYTES)
        try:
            taken = take(self._batches(consumer, span, deadline))
        except BaseException:
            consumer.close()
            raise
        self._idle.append(consumer)
        return taken

    def _batches(
        self, consumer: KafkaConsumer, span: Span, deadline: float
    ) -> Iterator[RecordBatch]:
        tp = TopicPartition(self._topic, span.partition)
        first, following = bounds(consumer, [tp], ANSWER_MS)
        start, end = max(span.start, first[tp]), min(span.end, following[tp])
        consumer.assign([tp])
        consumer.seek(tp, start)
        while consumer.position(tp) < end:
            if time.monotonic() >= deadline or self._watcher.messages != span.topic:
                raise TimeoutError
            polled = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_BATCHES)
            yield from polled.get(tp, ())
