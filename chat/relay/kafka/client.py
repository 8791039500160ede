"""Shared configuration of kafka-python, and workarounds for its bugs."""

from __future__ import annotations

import functools
import itertools
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import CorruptRecordError, KafkaError, LeaderNotAvailableError

from chat.relay.handshake import limit_handshakes
from chat.relay.kafka.batches import RecordBatch, split
from chat.relay.kafka.brokers import Client, Failures
from chat.relay.security import Security

# Kafka responds to a healthy client within milliseconds. After this time it is considered down.
ANSWER_MS = 2000
# A machine that loses power does not close its connections. The kernel closes them after 4 s
# without a packet, whether a request is unacknowledged or an answer is awaited.
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4000),
]
# How long to try to connect to a broker: at first, and at most after failures. Only kafka-python's
# client takes this setting, not its public classes.
CONNECT_MS = 2000
MOST_CONNECT_MS = 10_000
# How often to ask which brokers lead. By itself, kafka-python asks only when a broker refuses or a
# connection breaks, which takes seconds. This costs a replica 0.4 % of a core.
LEADERS_MS = 1000
POLL_MS = 200
# Maximum number of batches per poll.
POLL_BATCHES = 2000
# A fetch costs about 1 ms of CPU regardless of its size: kafka-python encodes and decodes all
# partitions, and threads wake each other five times. A record costs about 10 µs, so a fetch pays
# off from some hundred records on. The bytes equal about a thousand records. Nobody notices 20 ms.
GATHER_BYTES = 256 << 10
GATHER_MS = 20


def connection_options(
    bootstrap_servers: Sequence[str], client_id: str, security: Security
) -> dict[str, Any]:
    """Raises `SecurityError`."""
    limit_handshakes()
    return {
        "bootstrap_servers": list(bootstrap_servers),
        "client_id": client_id,
        "kafka_client": functools.partial(
            Client,
            Failures(),
            socket_connection_setup_timeout_ms=CONNECT_MS,
            socket_connection_setup_timeout_max_ms=MOST_CONNECT_MS,
        ),
        "metadata_max_age_ms": LEADERS_MS,
        "reconnect_backoff_max_ms": 1000,
        "socket_options": SOCKET_OPTIONS,
        **security.client_options(),
    }


class Topic(NamedTuple):
    """The identity of a log: another topic id or number of partitions means another log."""

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
    """Replaces kafka-python's `PartitionRecords` in a fetch: keeps batches, not records.

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
    """A consumer whose `poll` returns unparsed `RecordBatch`es. The first one may start before the
    position.
    """
    consumer = KafkaConsumer(
        **connect,
        **more,
        bootstrap_timeout_ms=ANSWER_MS,
        group_id=None,
        enable_auto_commit=False,
        allow_auto_create_topics=False,
        # Never skip: `poll` raises an error if an offset no longer exists.
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
    """The first and the next offset of each partition. Raises `KafkaError`."""
    try:
        return (
            consumer.beginning_offsets(partitions, timeout_ms),
            consumer.end_offsets(partitions, timeout_ms),
        )
    except KeyError as partition:
        # kafka-python looks up a partition that is missing in the answer, as during an election.
        raise LeaderNotAvailableError(f"no offsets of {partition}") from None


def gather(consumer: KafkaConsumer, busy: bool) -> None:
    """Set how brokers answer fetches: at once, or if `busy`, when they have `GATHER_BYTES` or after
    `GATHER_MS`.
    """
    config = consumer._fetcher.config
    if busy:
        config |= {"fetch_min_bytes": GATHER_BYTES, "fetch_max_wait_ms": GATHER_MS}
    else:
        config |= {name: consumer.config[name] for name in ("fetch_min_bytes", "fetch_max_wait_ms")}


def note_interruptions(consumer: KafkaConsumer) -> threading.Event:
    """Return an event that is set whenever a broker's state may have changed: a fetch failed, or
    the broker does not know the fetch session. It is set before anything later is polled.
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
    """Make every fetch request all partitions (kafka-python 3.0.12).

    `poll` returns completed fetches, and sends new ones if there are none. A fetch that completes
    in between makes it request all partitions *except those*. The broker then says nothing about
    them until it ends its wait: after `fetch_max_wait_ms` (half a second), or when another
    partition gets a message. The receiving thread is also the sending one, so the check below has
    no such race.
    """
    fetch = fetcher._send_fetches_async

    async def fetch_if_drained() -> Sequence[Any]:
        # If there are completed fetches, `poll` returns without waiting, and sends the next ones
        # afterwards.
        return [] if fetcher._completed_fetches else await fetch()

    fetcher._send_fetches_async = fetch_if_drained


def end(producer: KafkaProducer, seconds: float) -> None:
    """Let the producer flush for up to `seconds`, and end it."""
    try:
        producer.close(timeout=seconds)
    except KafkaError:
        # If `close` cannot flush, it gives up and leaves its thread running.
        producer._sender.force_close()


def named(error: Exception) -> str:
    """An error in a few words. kafka-python's texts may have many lines, but our own do not."""
    if isinstance(error, CorruptRecordError) and error.args:
        return str(error.args[0])
    return type(error).__name__.removesuffix("Error")
