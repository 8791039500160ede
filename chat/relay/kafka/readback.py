"""Reading back: threads that read what the log holds beside the delivery, a few at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from chat.relay.base import Entry, UnavailableError
from chat.relay.kafka.client import ANSWER_MS, POLL_BATCHES, POLL_MS, Topic, named, new_consumer
from chat.relay.kafka.record import entries
from chat.relay.kafka.watcher import Watcher

# How many read at once, how many more may wait, and how long one may take.
READERS_BACK = 2
MOST_READS = 100
READ_SECONDS = 5.0
READ_BYTES = 262_144


class ReadersBack:
    def __init__(self, connect: Mapping[str, Any], topic: str, watcher: Watcher) -> None:
        self._connect = connect
        self._topic = topic
        self._watcher = watcher
        self._threads = ThreadPoolExecutor(READERS_BACK, "kafka-reader-back")
        # The consumers they are not using just now.
        self._idle: deque[KafkaConsumer] = deque()
        # The event loop's.
        self._reads = 0

    async def read(self, topic: Topic, partition: int, after: int, upto: int) -> Sequence[Entry]:
        """See `Relay.read`."""
        if self._reads >= MOST_READS:
            raise UnavailableError("Too many read the history: try again.")
        self._reads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads,
                self._read_back,
                topic,
                partition,
                after + 1,
                upto + 1,
                time.monotonic() + READ_SECONDS,
            )
        except (KafkaError, TimeoutError) as error:
            raise UnavailableError(f"Kafka does not give the history: {named(error)}.") from None
        finally:
            self._reads -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    # Their threads.

    def _read_back(
        self, topic: Topic, partition: int, start: int, end: int, deadline: float
    ) -> Sequence[Entry]:
        """The entries from offset `start` to before `end`. Raises `KafkaError`, `TimeoutError`."""
        try:
            consumer = self._idle.pop()
        except IndexError:
            consumer = new_consumer(self._connect, max_partition_fetch_bytes=READ_BYTES)
        try:
            found = list(self._entries_back(consumer, topic, partition, start, end, deadline))
        except BaseException:
            consumer.close()
            raise
        self._idle.append(consumer)
        return found

    def _entries_back(
        self,
        consumer: KafkaConsumer,
        topic: Topic,
        partition: int,
        start: int,
        end: int,
        deadline: float,
    ) -> Iterator[Entry]:
        tp = TopicPartition(self._topic, partition)
        start = max(start, consumer.beginning_offsets([tp], ANSWER_MS)[tp])
        end = min(end, consumer.end_offsets([tp], ANSWER_MS)[tp])
        consumer.assign([tp])
        consumer.seek(tp, start)
        while consumer.position(tp) < end:
            if time.monotonic() >= deadline or self._watcher.messages != topic:
                raise TimeoutError
            polled = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_BATCHES)
            for batch in polled.get(tp, ()):
                found, _ = entries(batch, start, partition, topic.partitions)
                for entry in found:
                    if entry.offset < end:
                        yield entry
