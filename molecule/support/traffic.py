"""Traffic through Kafka during a fault or an operation.

    with Traffic(bootstrap_servers, topic) as traffic:
        ...                                   # stop, kill, cut, upgrade
        recovered = traffic.goes_on(within=60)
    print(traffic.longest_gap, traffic.failed)

A writer sends under several keys like a careful application (acks=all, idempotent, the client's own
retries), and a reader reads concurrently. When the block ends without an error, the writer stops,
and the whole log is read from the beginning. If `delivery.violations` finds a broken promise, an
AssertionError names the records.

kafka-python blocks, so writer and reader are threads. They change shared state under the condition
`_changed`, and notify it of every change.
"""

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Any, Self

from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_handshake import (
    limit_handshakes,
)
from delivery import History, Placed, Record, Violations, violations
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

# Ten records per second and key: gaps are measured to 0.1 s, and most of two cores' time is left
# for Kafka.
KEYS = [f"key{number}" for number in range(6)]
SECONDS_BETWEEN = 0.1
# Maximum number of unacknowledged records per key. At this number, the writer waits.
MOST_WAITING = 50
# Request timeout. A broker that does not respond in time is considered dead, and the record is sent
# to the next leader. This is the client's part of a gap.
ANSWER_MS = 3_000
# Tolerance for gaps, because other work on the machine takes time too.
NOISE_SECONDS = 12
# Time for outstanding acknowledgements after the writer has stopped: longer than any fault's limit.
SETTLE_SECONDS = 120

# With TLS, kafka-python would wait for a frozen broker until that goes on.
limit_handshakes()


class Traffic:
    """A writer and a reader on `topic`, which must be new and empty.

    `acks`: values other than "all" can break the promises; a test uses one to see that. `security`:
    client options for TLS and passwords.
    """

    def __init__(
        self,
        bootstrap_servers: list[str],
        topic: str,
        *,
        acks: str | int = "all",
        security: Mapping[str, Any] | None = None,
    ) -> None:
        self.history = History()
        self.failed: list[Record] = []
        self._connection = {"bootstrap_servers": bootstrap_servers, **(security or {})}
        self._topic = topic
        self._acks = acks
        self._changed = threading.Condition()
        self._times: defaultdict[str, list[float]] = defaultdict(list)
        self._waiting = dict.fromkeys(KEYS, 0)
        self._next = dict.fromkeys(KEYS, 0)
        # The newest number under each key.
        self._acknowledged = dict.fromkeys(KEYS, -1)
        self._seen = dict.fromkeys(KEYS, -1)
        self._partitions: list[TopicPartition] = []
        self._broken_producer: KafkaProducer | None = None
        self._no_more = threading.Event()
        self._abandoned = False
        self._ends: dict[TopicPartition, int] | None = None
        self._problems: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            for work in (self._write, self._follow)
        ]

    def __enter__(self) -> Self:
        self._partitions = self._look_up()
        for thread in self._threads:
            thread.start()
        self.goes_on(within=30)
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._no_more.set()
        if failure is None:
            self._finish()
            return
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _look_up(self) -> list[TopicPartition]:
        deadline = time.monotonic() + 30
        with closing(self._consumer()) as consumer:
            # Brokers learn of a new topic a moment after the controller has created it.
            while not (numbers := consumer.partitions_for_topic(self._topic)):
                assert time.monotonic() < deadline, f"there is no topic {self._topic}"
                time.sleep(0.1)
        return [TopicPartition(self._topic, number) for number in sorted(numbers)]

    @property
    def acknowledged(self) -> int:
        return len(self.history.acknowledged)

    @property
    def longest_gap(self) -> float:
        """The longest time between two acknowledgements under one key, in seconds."""
        return max(
            after - before
            for times in self._times.values()
            for before, after in itertools.pairwise(times)
        )

    def assert_gap(self, goal: float) -> None:
        """The longest gap is at most `goal` seconds, plus NOISE_SECONDS."""
        print(f"longest gap between acknowledgements: {self.longest_gap:.1f} s of {goal:g}")
        assert self.longest_gap <= goal + NOISE_SECONDS

    @property
    def violations(self) -> Violations:
        return violations(self.history)

    def goes_on(self, within: float) -> float:
        """Wait until a record sent from now on is acknowledged and read under every key.

        Returns the time this took, in seconds. Raises AssertionError after `within` seconds.
        """
        began = time.monotonic()
        with self._changed:
            wanted = dict(self._next)
            self._wait(
                lambda: all(
                    min(self._acknowledged[key], self._seen[key]) >= wanted[key] for key in KEYS
                ),
                within,
                "records sent from now on are acknowledged and read",
            )
        return time.monotonic() - began

    def _wait(self, condition: Callable[[], bool], within: float, what: str) -> None:
        met = self._changed.wait_for(lambda: condition() or bool(self._problems), within)
        assert not self._problems, f"{what}: {self._problems[0]!r}"
        assert met, (
            f"{what}: not within {within} s; {self.acknowledged} acknowledged, "
            f"{len(self.failed)} failed, {sum(self._waiting.values())} wait"
        )

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as problem:
            with self._changed:
                self._problems.append(problem)
                self._changed.notify_all()
            raise

    # The writer.

    def _write(self) -> None:
        producer = self._new_producer()
        due = time.monotonic()
        while not self._no_more.wait(max(0.0, due - time.monotonic())):
            due = max(due + SECONDS_BETWEEN, time.monotonic())
            if producer is self._broken_producer:
                self._end(producer)
                producer = self._new_producer()
            for number, key in enumerate(KEYS):
                if self._waiting[key] < MOST_WAITING:
                    self._send(producer, key, self._partitions[number % len(self._partitions)])
        with self._changed:
            self._changed.wait_for(
                lambda: self._abandoned or not any(self._waiting.values()), SETTLE_SECONDS
            )
        self._end(producer)

    def _send(self, producer: KafkaProducer, key: str, to: TopicPartition) -> None:
        with self._changed:
            record = Record(key, self._next[key])
            self._next[key] += 1
            self._waiting[key] += 1
            self.history.sent.add(record)
        try:
            sent = producer.send(
                self._topic,
                key=key.encode(),
                value=str(record.number).encode(),
                partition=to.partition,
            )
        except KafkaError as error:
            self._fail(producer, record, error)
            return
        sent.add_callback(lambda metadata: self._acknowledge(record, metadata))
        sent.add_errback(lambda error: self._fail(producer, record, error))

    def _acknowledge(self, record: Record, metadata: Any) -> None:
        with self._changed:
            placed = Placed(record, metadata.partition, metadata.offset)
            self.history.acknowledged.append(placed)
            self._acknowledged[record.key] = record.number
            self._times[record.key].append(time.monotonic())
            self._waiting[record.key] -= 1
            self._changed.notify_all()

    def _fail(self, producer: KafkaProducer, record: Record, error: BaseException) -> None:
        print(f"the record {record} was not acknowledged: {error!r}")
        with self._changed:
            self.failed.append(record)
            self._waiting[record.key] -= 1
            # After a record has expired, a producer may never send again (kafka-python 3.0.12).
            self._broken_producer = producer
            self._changed.notify_all()

    def _new_producer(self) -> KafkaProducer:
        return KafkaProducer(
            **self._connection,
            acks=self._acks,
            enable_idempotence=self._acks == "all",
            allow_auto_create_topics=False,
            linger_ms=0,
            retry_backoff_ms=50,
            reconnect_backoff_max_ms=1_000,
            request_timeout_ms=ANSWER_MS,
            delivery_timeout_ms=SETTLE_SECONDS * 1_000,
            metrics_enabled=False,
        )

    def _end(self, producer: KafkaProducer) -> None:
        try:
            producer.close(timeout=0)
        except KafkaError:
            # `close` gives up when it cannot flush, and leaves its thread running.
            producer._sender.force_close()

    # The readers.

    def _follow(self) -> None:
        """Read until the end offsets that `_finish` sets."""
        positions = dict.fromkeys(self._partitions, 0)
        while not self._reached(positions):
            # After an error, a new consumer continues at the position of the last one.
            with suppress(KafkaError), closing(self._consumer()) as consumer:
                self._read(consumer, positions, self.history.followed)

    def _reached(self, positions: dict[TopicPartition, int]) -> bool:
        ends = self._ends
        return self._abandoned or (
            ends is not None and all(positions[tp] >= ends[tp] for tp in ends)
        )

    def _read(
        self, consumer: KafkaConsumer, positions: dict[TopicPartition, int], into: list[Placed]
    ) -> None:
        """Read from `positions` to the end offsets, and update `positions`."""
        consumer.assign(self._partitions)
        for tp, position in positions.items():
            consumer.seek(tp, position)
        while not self._reached(positions):
            polled = consumer.poll(timeout_ms=100)
            with self._changed:
                for tp, records in polled.items():
                    placed = [_placed(record) for record in records]
                    into += placed
                    self._seen.update(each.record for each in placed)
                    positions[tp] = consumer.position(tp)
                self._changed.notify_all()

    def _consumer(self) -> KafkaConsumer:
        return KafkaConsumer(
            **self._connection,
            group_id=None,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            # Never skip: a position that does not exist any more is an error.
            auto_offset_reset="none",
            reconnect_backoff_max_ms=1_000,
            request_timeout_ms=ANSWER_MS,
            metrics_enabled=False,
        )

    def _finish(self) -> None:
        writer, reader = self._threads
        writer.join(2 * SETTLE_SECONDS)
        assert not self._problems, self._problems[0]
        assert not any(self._waiting.values()), f"no answer for records: {self._waiting}"
        with closing(self._consumer()) as consumer:
            # A new leader knows the log's end only after its followers have fetched.
            self._ends = consumer.end_offsets(self._partitions, timeout_ms=SETTLE_SECONDS * 1_000)
            self._read(consumer, dict.fromkeys(self._partitions, 0), self.history.log)
        reader.join(SETTLE_SECONDS)
        assert not self._problems, self._problems[0]
        assert not reader.is_alive(), "the reader does not reach the end of the log"
        broken = self.violations
        assert not broken, f"of {self.acknowledged} acknowledged records: {broken}"


def _placed(record: Any) -> Placed:
    return Placed(Record(record.key.decode(), int(record.value)), record.partition, record.offset)
