"""Producers: appends, which wait for Kafka's acknowledgement, and signals, which do not.

Both are called on the event loop. The watcher's thread creates, replaces and ends their producers.
Most state is used only on the event loop; `producer` and `_failed` are references that one thread
sets and others read.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError

from chat.relay.base import Record, TooLargeError, UnavailableError, partition_of
from chat.relay.kafka.client import ANSWER_MS, Topic, end, named
from chat.relay.kafka.record import OVERHEAD_BYTES, encode

# Maximum number of signals that wait for Kafka. Further ones are dropped.
MOST_SIGNALS = 1000
BATCH_BYTES = 65_536


class Append(NamedTuple):
    """An append that waits for Kafka."""

    producer: KafkaProducer
    bytes: int
    deadline: asyncio.TimerHandle


class Appender:
    """`in_flight` and `in_flight_bytes`: maximum number and total size of open appends."""

    def __init__(
        self,
        connect: Mapping[str, Any],
        topic: str,
        *,
        in_flight: int,
        in_flight_bytes: int,
        delivery_seconds: float,
    ) -> None:
        self._connect = connect
        self._topic = topic
        self._in_flight_limit = in_flight
        self._in_flight_bytes_limit = in_flight_bytes
        self._delivery_ms = round(delivery_seconds * 1000)
        self._loop: asyncio.AbstractEventLoop
        # Set by the watcher: the producer, its size limit, and the producer that failed a record.
        self.producer: KafkaProducer | None = None
        self._record_bytes = 0
        self._failed: KafkaProducer | None = None
        # Used only on the event loop.
        self.in_flight: dict[asyncio.Future[None], Append] = {}
        self.in_flight_bytes = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def append(self, record: Record, partitions: int) -> asyncio.Future[None]:
        """See `Relay.append`."""
        producer = self.producer
        if producer is None:
            raise UnavailableError("Kafka cannot be reached: try again.")
        value = encode(record)
        if len(value) + OVERHEAD_BYTES > self._record_bytes:
            raise TooLargeError("The message is larger than Kafka's topic takes: make it shorter.")
        if (
            len(self.in_flight) >= self._in_flight_limit
            or self.in_flight_bytes + len(value) > self._in_flight_bytes_limit
        ):
            raise UnavailableError("Kafka is slow, and too many messages wait for it: try again.")
        held: asyncio.Future[None] = self._loop.create_future()
        try:
            sent = producer.send(
                self._topic,
                key=record.room.encode(),
                value=value,
                partition=partition_of(record.room, partitions),
            )
        except (KafkaError, ValueError) as error:
            raise UnavailableError(f"Kafka does not take the message: {named(error)}.") from None
        # The producer should enforce this deadline itself, but does not always: see `worn_out`.
        deadline = self._loop.call_later(
            self._delivery_ms / 1000, self._give_up, held, "no answer in time"
        )
        self.in_flight[held] = Append(producer, len(value), deadline)
        self.in_flight_bytes += len(value)
        sent.add_callback(lambda _: self._loop.call_soon_threadsafe(self._settle, held, None))
        sent.add_errback(lambda error: self._loop.call_soon_threadsafe(self._settle, held, error))
        return held

    def _settle(self, held: asyncio.Future[None], error: Exception | None) -> None:
        """The producer has finished an append, so complete its future."""
        append = self.in_flight.pop(held, None)
        if append is None:
            return
        self.in_flight_bytes -= append.bytes
        append.deadline.cancel()
        if error is not None:
            self._failed = append.producer
            _refuse(held, named(error))
        elif not held.done():
            held.set_result(None)

    def _give_up(self, held: asyncio.Future[None], why: str) -> None:
        """Fail the append that waits for `held`. The producer may still complete it."""
        self._failed = self.in_flight[held].producer
        _refuse(held, why)

    def give_all_up(self) -> None:
        for held in self.in_flight:
            self._give_up(held, "it cannot be reached")

    def _forget(self, producer: KafkaProducer) -> None:
        """The producer has ended, possibly without settling all its appends."""
        for held, append in tuple(self.in_flight.items()):
            if append.producer is producer:
                self._settle(held, KafkaError("its producer has ended"))

    # The watcher's thread.

    @property
    def worn_out(self) -> bool:
        """Whether a new producer is needed.

        A producer that let a record expire may be stuck forever, waiting for a producer id
        (kafka-python 3.0.12).
        """
        return self.producer is None or self.producer is self._failed

    def renew(self, record_bytes: int) -> None:
        """Use a new producer. The topic accepts batches of at most `record_bytes`."""
        self._record_bytes = record_bytes
        self._replace(self._new_producer(), 0)

    def close(self, seconds: float) -> None:
        self._replace(None, seconds)

    def _replace(self, producer: KafkaProducer | None, seconds: float) -> None:
        """Let the old producer flush for up to `seconds`, then end it."""
        old, self.producer = self.producer, producer
        if old is not None:
            end(old, seconds)
            self._loop.call_soon_threadsafe(self._forget, old)

    def _new_producer(self) -> KafkaProducer:
        producer = KafkaProducer(
            **self._connect,
            bootstrap_timeout_ms=ANSWER_MS,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            linger_ms=0,
            # A topic with a smaller limit refuses larger batches, even if each record is small.
            batch_size=min(BATCH_BYTES, self._record_bytes),
            retry_backoff_ms=50,
            request_timeout_ms=self._delivery_ms,
            delivery_timeout_ms=self._delivery_ms,
            # `send` is called on the event loop, where it must not block. So fetch the metadata
            # now, and set the limit to zero afterwards.
            max_block_ms=ANSWER_MS,
            metrics_enabled=False,
        )
        producer.partitions_for(self._topic)
        producer.config["max_block_ms"] = 0
        return producer


class Signaller:
    """Sends each signal once, acknowledged by the leader only."""

    def __init__(self, connect: Mapping[str, Any], topic: str) -> None:
        self._connect = connect
        self._topic = topic
        self._loop: asyncio.AbstractEventLoop
        # Set by the watcher.
        self._producer: KafkaProducer | None = None
        # Used only on the event loop.
        self._in_flight = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def signal(self, payload: bytes, topic: Topic) -> None:
        producer = self._producer
        if producer is None or self._in_flight >= MOST_SIGNALS:
            return
        # A replica's signals all go to one partition, which keeps their order.
        partition = zlib.crc32(self._connect["client_id"].encode()) % topic.partitions
        try:
            sent = producer.send(self._topic, value=payload, partition=partition)
        except (KafkaError, ValueError):
            return
        self._in_flight += 1

        def settle() -> None:
            self._in_flight -= 1

        sent.add_both(lambda _: self._loop.call_soon_threadsafe(settle))

    # The watcher's thread.

    def open(self) -> None:
        if self._producer is None:
            self._producer = self._new_producer()

    def close(self, seconds: float) -> None:
        if self._producer is not None:
            end(self._producer, seconds)

    def _new_producer(self) -> KafkaProducer:
        producer = KafkaProducer(
            **self._connect,
            bootstrap_timeout_ms=ANSWER_MS,
            # The leader acknowledges, because that is how the client learns of a new leader. A
            # retried signal would arrive late and out of order.
            acks=1,
            enable_idempotence=False,
            retries=0,
            allow_auto_create_topics=False,
            request_timeout_ms=ANSWER_MS,
            delivery_timeout_ms=ANSWER_MS,
            max_block_ms=ANSWER_MS,
            metrics_enabled=False,
        )
        producer.partitions_for(self._topic)
        producer.config["max_block_ms"] = 0
        return producer


def _refuse(held: asyncio.Future[None], why: str) -> None:
    if not held.done():
        held.set_exception(UnavailableError(f"Kafka did not take the message: {why}."))
