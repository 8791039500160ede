"""Shared configuration of kafka-python, and workarounds for its bugs."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import CorruptRecordError, KafkaError, LeaderNotAvailableError

from chat.relay.kafka.batches import RecordBatch, split

# Kafka responds to a healthy client within milliseconds. After this time it is considered down.
ANSWER_MS = 2000
# A machine without power closes no connection. After 4 s without a packet from it, the kernel does,
# whether a request is on its way or an answer is awaited.
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4000),
]
POLL_MS = 200
# Batches that one poll may bring.
POLL_BATCHES = 2000
# A fetch costs about 1 ms of CPU, whatever it brings: kafka-python writes and reads all partitions,
# and threads wake each other five times. A record costs about 10 µs, so a fetch is worth its cost
# with some hundred records. The bytes are those of about a thousand. Nobody sees 20 ms.
GATHER_BYTES = 256 << 10
GATHER_MS = 20


class Topic(NamedTuple):
    """Which log it is: another id, or another number of partitions, is another log."""

    epoch: str
    partitions: int

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        return cls(str(described["topic_id"]), len(described["partitions"]))

    def named(self, name: str) -> list[TopicPartition]:
        return [TopicPartition(name, number) for number in range(self.partitions)]


def _batches(tp: TopicPartition, buffer: bytes) -> Iterator[RecordBatch]:
    try:
        yield from split(buffer)
    except CorruptRecordError as error:
        raise CorruptRecordError(
            f"topic {tp.topic}, partition {tp.partition}, {error.args[0]}. The leader's disk is"
            " damaged: stop that broker, so that another one leads. If all brokers have this batch,"
            " delete the records up to there with kafka-delete-records.sh"
        ) from None


class Fetched:
    """What kafka-python keeps of a fetch in place of its `PartitionRecords`: batches, not records.

    The attributes and methods are those that its fetcher uses (3.0.12).
    """

    def __init__(
        self, fetch_offset: int, tp: TopicPartition, records: Any, *, on_drain: Any, **_: Any
    ) -> None:
        self.topic_partition = tp
        self.next_fetch_offset = fetch_offset
        self.leader_epoch = -1
        self.bytes_read = 0
        self._on_drain = on_drain
        self._batches: Iterator[RecordBatch] | None = (
            batch for batch in _batches(tp, records._buffer) if batch.last >= fetch_offset
        )

    def __bool__(self) -> bool:
        return self._batches is not None

    def take(self, count: int) -> list[RecordBatch]:
        if self._batches is None:
            return []
        taken = list(itertools.islice(self._batches, count))
        for batch in taken:
            self.bytes_read += len(batch.raw)
        if taken:
            self.next_fetch_offset = taken[-1].last + 1
            self.leader_epoch = taken[-1].epoch
        if len(taken) < count:
            self.drain()
        return taken

    def drain(self) -> None:
        if self._batches is not None:
            self._batches = None
            self._on_drain(self)


def new_consumer(connect: Mapping[str, Any], **more: Any) -> KafkaConsumer:
    """A consumer whose `poll` brings each `RecordBatch` as it is. The first one may begin before
    the position.
    """
    consumer = KafkaConsumer(
        **connect,
        **more,
        bootstrap_timeout_ms=ANSWER_MS,
        group_id=None,
        enable_auto_commit=False,
        allow_auto_create_topics=False,
        # Never skip: an offset that is not there any more ends `poll` with an error.
        auto_offset_reset="none",
        metrics_enabled=False,
    )
    fetcher = consumer._fetcher
    fetcher.PartitionRecords = Fetched
    _drain_before_fetching(fetcher)
    return consumer


def bounds(
    consumer: KafkaConsumer, partitions: Sequence[TopicPartition], timeout_ms: int | None = None
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """The first offset of each partition, and the next one. Raises `KafkaError`."""
    try:
        return (
            consumer.beginning_offsets(partitions, timeout_ms),
            consumer.end_offsets(partitions, timeout_ms),
        )
    except KeyError as partition:
        # kafka-python looks for it in an answer that leaves it out, as during an election.
        raise LeaderNotAvailableError(f"no offsets of {partition}") from None


def gather(consumer: KafkaConsumer, busy: bool) -> None:
    """Have brokers answer the fetches from now on at once, or, if `busy`, when they have
    `GATHER_BYTES` or after `GATHER_MS`.
    """
    config = consumer._fetcher.config
    if busy:
        config |= {"fetch_min_bytes": GATHER_BYTES, "fetch_max_wait_ms": GATHER_MS}
    else:
        config |= {name: consumer.config[name] for name in ("fetch_min_bytes", "fetch_max_wait_ms")}


def note_interruptions(consumer: KafkaConsumer) -> threading.Event:
    """Set the event whenever a broker may not be the one it was: a fetch failed, or the broker
    knows nothing of those before. It is set before anything that comes afterwards is polled.
    """
    interrupted = threading.Event()
    fetcher = consumer._fetcher
    failed, answered = fetcher._handle_fetch_error, fetcher._handle_fetch_response

    def note_failure(*arguments: Any) -> None:
        interrupted.set()
        failed(*arguments)

    def note_answer(node: Any, offsets: Any, sent: Any, response: Any) -> None:
        if response.error_code:
            interrupted.set()
        answered(node, offsets, sent, response)

    fetcher._handle_fetch_error = note_failure
    fetcher._handle_fetch_response = note_answer
    return interrupted


def _drain_before_fetching(fetcher: Any) -> None:
    """Have every fetch ask for all partitions (kafka-python 3.0.12).

    `poll` takes what has come, and asks for more if that was nothing. What comes in between makes
    it ask for all partitions *but those*, of which it then hears nothing until the broker has no
    more reason to wait: up to `fetch_max_wait_ms`, half a second, or somebody else's message. The
    thread that receives is also the one that asks, so there it is certain what has come.
    """
    fetch = fetcher._send_fetches_async

    async def fetch_if_drained() -> Sequence[Any]:
        # With something to take, `poll` does not wait, and asks again when it has taken it.
        return [] if fetcher._completed_fetches else await fetch()

    fetcher._send_fetches_async = fetch_if_drained


def end(producer: KafkaProducer, seconds: float) -> None:
    """Have the producer flush for so many seconds, and end it."""
    try:
        producer.close(timeout=seconds)
    except KafkaError:
        # `close` gives up when it cannot flush, and leaves its thread running.
        producer._sender.force_close()


def named(error: Exception) -> str:
    """An error in a few words: kafka-python's texts may run over many lines, but for our own."""
    if isinstance(error, CorruptRecordError) and error.args:
        return str(error.args[0])
    return type(error).__name__.removesuffix("Error")
