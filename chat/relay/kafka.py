"""The log in Kafka: one topic, shared by all replicas that name it.

Reading: every replica reads all partitions by `assign()`, in no consumer group: nothing to join, to
rebalance or to leak. It begins some way back from the end, so that rooms have their history.
Writing: a record's key is its room, its partition is computed from it here, and it counts once all
in-sync replicas have it. Epoch: the topic's id, which changes when the topic is made anew.

Signals have a topic of their own, which keeps them for a minute. Nobody waits for them and none is
sent twice, so they have a producer of their own too. Without that topic there are no signals, and
all else works.

kafka-python blocks, so it lives in threads of its own, and this class is the border. The *watcher*
asks every second whether the topic is there, and which one it is: Kafka may be away when the
service starts, and come and go later. It also keeps producers that work. The *reader* reads, and
hands over to the event loop once per poll. *Readers back* answer `read`, a few at a time. What
belongs to the event loop is touched there alone; `_found`, `_signals`, `_reachable`, `_producer`,
`_signaller` and `_failed` are references that one thread sets and others read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from chat.relay.base import (
    Batch,
    Entry,
    Listener,
    Record,
    Relay,
    TooLargeError,
    UnavailableError,
    partition_of,
)

log = logging.getLogger("chat.kafka")

WATCH_SECONDS = 1.0
# Kafka answers a healthy client within milliseconds; past this it is as good as away.
ANSWER_MS = 2000
POLL_MS = 200
POLL_RECORDS = 2000
# Polls the reader may be ahead of the event loop: what it holds while the loop is busy stays
# bounded.
POLLS_AHEAD = 4
# Signals that may wait for Kafka; what comes on top is dropped.
MOST_SIGNALS = 1000
LAST_SIGNAL_SECONDS = 0.5
# Reading back: how many at once, how many more may wait, and how long one may take.
READERS_BACK = 2
MOST_READS = 100
READ_SECONDS = 5.0
READ_BYTES = 262_144

# What Kafka's format adds to a record's value, its key included.
OVERHEAD_BYTES = 256
BATCH_BYTES = 65_536
# `max.message.bytes` where nobody has said otherwise.
KAFKAS_MESSAGE_BYTES = 1_048_588


class Value(msgspec.Struct, frozen=True):
    """A record's value, version 1: JSON. Others may write to the topic: all bounds are checked."""

    v: Literal[1]
    room: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]
    user: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=262_144)]
    cid: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


_decoder = msgspec.json.Decoder(Value)


class Topic(NamedTuple):
    """Which log it is: another id, or another number of partitions, is another log."""

    epoch: str
    partitions: int


class Open(NamedTuple):
    """An append that waits for Kafka."""

    producer: KafkaProducer
    bytes: int
    deadline: asyncio.TimerHandle


class KafkaRelay(Relay):
    """`rewind`: where to begin, in records before a partition's end. `in_flight` and
    `in_flight_bytes`: how many appends may be open, and how much they may hold. `security`: what
    kafka-python is told of TLS and SASL.
    """

    def __init__(
        self,
        bootstrap_servers: Sequence[str],
        topic: str,
        signal_topic: str,
        *,
        client_id: str,
        rewind: int,
        in_flight: int,
        in_flight_bytes: int,
        delivery_seconds: float,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        self._topic = topic
        self._signal_topic = signal_topic
        self._rewind = rewind
        self._in_flight_limit = in_flight
        self._in_flight_bytes_limit = in_flight_bytes
        self._delivery_ms = round(delivery_seconds * 1000)
        self._connect: dict[str, Any] = {
            "bootstrap_servers": list(bootstrap_servers),
            "client_id": client_id,
            "reconnect_backoff_max_ms": 1000,
            **(security or {}),
        }
        self._loop: asyncio.AbstractEventLoop
        self._listener: Listener
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        # What the watcher found and made, and the producer that did not deliver.
        self._found: Topic | None = None
        self._signals: Topic | None = None
        self._reachable = False
        self._producer: KafkaProducer | None = None
        self._signaller: KafkaProducer | None = None
        self._record_bytes = 0
        self._failed: KafkaProducer | None = None
        self._noted = (False, "")
        # The client says of a refused certificate or password that the connection failed.
        protocol = self._connect.get("security_protocol", "PLAINTEXT")
        self._hint = f"; it is asked by {protocol}: see to certificates and password"
        if protocol == "PLAINTEXT":
            self._hint = ""
        self._noted_signals = True
        # The reader's place: the log it reads, and the next offset of each partition.
        self._reading: Topic | None = None
        self._next: dict[int, int] = {}
        self._lag: dict[int, int] = {}
        self._handovers = threading.BoundedSemaphore(POLLS_AHEAD)
        # Those who read back, and the consumers they are not using just now.
        self._readers_back = ThreadPoolExecutor(READERS_BACK, "kafka-reader-back")
        self._idle: deque[KafkaConsumer] = deque()
        # The event loop's.
        # The log whose records are delivered; for a moment it is not the one that is found.
        self._delivered: Topic | None = None
        self._caught_up = False
        self._in_flight: dict[asyncio.Future[None], Open] = {}
        self._in_flight_bytes = 0
        self._signals_in_flight = 0
        self._reads = 0
        self._foreign = 0

    @property
    def up(self) -> bool:
        return self._reachable and self._producer is not None

    @property
    def caught_up(self) -> bool:
        return self._caught_up

    @property
    def lag(self) -> Mapping[int, int]:
        return self._lag

    @property
    def foreign_records(self) -> int:
        return self._foreign

    async def start(self, listener: Listener) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        for name, work in (("kafka-watcher", self._watch), ("kafka-reader", self._read)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def append(self, record: Record) -> asyncio.Future[None]:
        topic, producer = self._usable(), self._producer
        if producer is None:
            raise UnavailableError("Kafka cannot be reached: try again.")
        value = msgspec.json.encode(
            Value(v=1, room=record.room, user=record.user, text=record.text, cid=record.cid)
        )
        if len(value) + OVERHEAD_BYTES > self._record_bytes:
            raise TooLargeError("The message is larger than Kafka's topic takes: make it shorter.")
        if (
            len(self._in_flight) >= self._in_flight_limit
            or self._in_flight_bytes + len(value) > self._in_flight_bytes_limit
        ):
            raise UnavailableError("Kafka is slow, and too many messages wait for it: try again.")
        held: asyncio.Future[None] = self._loop.create_future()
        try:
            sent = producer.send(
                self._topic,
                key=record.room.encode(),
                value=value,
                partition=partition_of(record.room, topic.partitions),
            )
        except (KafkaError, ValueError) as error:
            raise UnavailableError(f"Kafka does not take the message: {_named(error)}.") from None
        # The producer should keep this time by itself, and does not always: see `_needs_producer`.
        deadline = self._loop.call_later(
            self._delivery_ms / 1000, self._give_up, held, "no answer in time"
        )
        self._in_flight[held] = Open(producer, len(value), deadline)
        self._in_flight_bytes += len(value)
        sent.add_callback(lambda _: self._loop.call_soon_threadsafe(self._settle, held, None))
        sent.add_errback(lambda error: self._loop.call_soon_threadsafe(self._settle, held, error))
        return held

    def _settle(self, held: asyncio.Future[None], error: Exception | None) -> None:
        """The producer is done with an append, and `held` with it."""
        append = self._in_flight.pop(held, None)
        if append is None:
            return
        self._in_flight_bytes -= append.bytes
        append.deadline.cancel()
        if error is not None:
            self._failed = append.producer
            _refuse(held, _named(error))
        elif not held.done():
            held.set_result(None)

    def _give_up(self, held: asyncio.Future[None], why: str) -> None:
        """Who waits for `held` is told; what the producer still does with it is its own affair."""
        self._failed = self._in_flight[held].producer
        _refuse(held, why)

    def _give_all_up(self) -> None:
        for held in self._in_flight:
            self._give_up(held, "it cannot be reached")

    def _forget(self, producer: KafkaProducer) -> None:
        """The producer has ended; it may not have said of each append what became of it."""
        for held, append in tuple(self._in_flight.items()):
            if append.producer is producer:
                self._settle(held, KafkaError("its producer has ended"))

    def _usable(self) -> Topic:
        """The log to append to and to read back; raises `UnavailableError`.

        A position belongs to a log, so none is used but the one that members are shown.
        """
        topic = self._found
        if topic is None or not self._reachable or self._delivered is None:
            raise UnavailableError("Kafka cannot be reached: try again.")
        if topic != self._delivered:
            raise UnavailableError("The log is being replaced: try again.")
        return topic

    async def read(self, partition: int, after: int, upto: int) -> Sequence[Entry]:
        topic = self._usable()
        if self._reads >= MOST_READS:
            raise UnavailableError("Too many read the history: try again.")
        self._reads += 1
        try:
            return await self._loop.run_in_executor(
                self._readers_back,
                self._read_back,
                topic,
                partition,
                after + 1,
                upto + 1,
                time.monotonic() + READ_SECONDS,
            )
        except (KafkaError, TimeoutError) as error:
            raise UnavailableError(f"Kafka does not give the history: {_named(error)}.") from None
        finally:
            self._reads -= 1

    def signal(self, payload: bytes) -> None:
        producer, topic = self._signaller, self._signals
        if producer is None or topic is None or not self._reachable:
            return
        if self._signals_in_flight >= MOST_SIGNALS:
            return
        # All of a replica's signals are in one partition: they keep their order.
        partition = zlib.crc32(self._connect["client_id"].encode()) % topic.partitions
        try:
            sent = producer.send(self._signal_topic, value=payload, partition=partition)
        except (KafkaError, ValueError):
            return
        self._signals_in_flight += 1

        def settle() -> None:
            self._signals_in_flight -= 1

        sent.add_both(lambda _: self._loop.call_soon_threadsafe(settle))

    async def stop(self, seconds: float) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._close, seconds)

    def _close(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._replace_producer(None, seconds)
        if self._signaller is not None:
            # The last words of a replica that leaves: worth a moment, and no more.
            _end(self._signaller, min(seconds, LAST_SIGNAL_SECONDS))
        self._readers_back.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()
        for thread in self._threads:
            # One that waits for a broker that does not answer ends with the process.
            thread.join(max(deadline - time.monotonic(), 2 * POLL_MS / 1000))

    # The watcher's thread.

    def _watch(self) -> None:
        admin: KafkaAdminClient | None = None
        while not self._stopping.is_set():
            try:
                if admin is None:
                    admin = KafkaAdminClient(
                        **self._connect,
                        request_timeout_ms=ANSWER_MS,
                        bootstrap_timeout_ms=ANSWER_MS,
                    )
                topic, signals = self._look(admin)
                if self._needs_producer(topic):
                    self._record_bytes = self._largest(admin)
                    self._replace_producer(self._new_producer())
                if signals is not None and self._signaller is None:
                    self._signaller = self._new_signaller()
                self._found, self._signals = topic, signals
                self._note_signals(signals is not None)
                self._note(True, f"topic {self._topic} has {topic.partitions} partitions")
            except UnknownTopicOrPartitionError:
                self._note(False, f"there is no topic {self._topic}: create it")
            except KafkaError as error:
                self._note(False, _named(error) + self._hint)
            self._stopping.wait(WATCH_SECONDS)
        if admin is not None:
            admin.close()

    def _look(self, admin: KafkaAdminClient) -> tuple[Topic, Topic | None]:
        """Which topics there are now, for messages and for signals.

        Raises `KafkaError` if there is none for messages that can be used.
        """
        names = [self._topic, self._signal_topic]
        try:
            described = admin.describe_topics(names)
        except (KafkaConnectionError, KafkaTimeoutError):
            # The broker that was asked has gone or hangs; the next attempt asks another one.
            described = admin.describe_topics(names)
        topics = {topic["name"]: topic for topic in described}
        messages, signals = (topics[name] for name in names)
        if messages["error_code"]:
            raise for_code(messages["error_code"])()
        # Signals must not hold up the messages: a partition that nobody leads would.
        usable = not signals["error_code"] and all(
            partition["leader_id"] >= 0 for partition in signals["partitions"]
        )
        return _topic(messages), _topic(signals) if usable else None

    def _largest(self, admin: KafkaAdminClient) -> int:
        """The bytes of the largest batch the topic takes, as far as this client may know it."""
        name = "max.message.bytes"
        topic = ConfigResource(ConfigResourceType.TOPIC, self._topic, [name])
        try:
            described = admin.describe_configs([topic], config_filter="all")
        except TopicAuthorizationFailedError:
            return KAFKAS_MESSAGE_BYTES
        return int(described["topic"][self._topic][name]["value"])

    def _note_signals(self, there: bool) -> None:
        if there != self._noted_signals:
            if there:
                log.info("topic %s is there: presence is on", self._signal_topic)
            else:
                log.warning(
                    "there is no usable topic %s: create it; until then nobody sees who is here",
                    self._signal_topic,
                )
        self._noted_signals = there

    def _note(self, reachable: bool, what: str) -> None:
        if (reachable, what) != self._noted:
            level = logging.INFO if reachable else logging.WARNING
            log.log(level, "Kafka is %s: %s", "there" if reachable else "away", what)
        self._noted = (reachable, what)
        self._reachable = reachable
        if not reachable:
            self._loop.call_soon_threadsafe(self._give_all_up)

    def _needs_producer(self, topic: Topic) -> bool:
        # One that let a record expire may be stuck for good, waiting for a producer id
        # (kafka-python 3.0.12). And it counts its records per partition, and would count on in
        # another topic of the same name.
        return self._producer is None or self._producer is self._failed or topic != self._found

    def _replace_producer(self, producer: KafkaProducer | None, seconds: float = 0) -> None:
        """Have the old one flush for so many seconds, and end it."""
        old, self._producer = self._producer, producer
        if old is not None:
            _end(old, seconds)
            self._loop.call_soon_threadsafe(self._forget, old)

    # The reader's thread.

    def _read(self) -> None:
        while not self._stopping.is_set():
            topic = self._found
            if topic is not None:
                try:
                    self._read_topic(topic, self._signals)
                except LogTruncationError:
                    log.warning("Kafka lost records that were read: starting over")
                    # It may be because the topic is another one of the same name. The watcher will
                    # tell: positions of one log must not be taken for those of another.
                    self._reading = self._found = None
                except KafkaError as error:
                    # Kafka being away is no news here: the watcher has said it.
                    level = logging.WARNING if self._reachable else logging.DEBUG
                    log.log(level, "reading is interrupted: %s", _named(error))
            self._stopping.wait(POLL_MS / 1000)

    def _read_topic(self, topic: Topic, signals: Topic | None) -> None:
        """Read until a topic is another one or the relay stops. Raises `KafkaError`."""
        with contextlib.closing(self._consumer()) as consumer:
            partitions = _partitions(self._topic, topic)
            signalling = _partitions(self._signal_topic, signals) if signals else []
            consumer.assign(partitions + signalling)
            if signalling:
                consumer.seek_to_end(*signalling)
            first = {tp.partition: at for tp, at in consumer.beginning_offsets(partitions).items()}
            end = {tp.partition: at for tp, at in consumer.end_offsets(partitions).items()}
            if not self._can_go_on(topic, first, end):
                self._start_over(topic, first, end)
            for tp in partitions:
                consumer.seek(tp, self._next[tp.partition])
            behind = {number for number, at in end.items() if self._next[number] < at}
            if not behind:
                self._hand_over(self._catch_up)
            while not self._stopping.is_set() and (self._found, self._signals) == (topic, signals):
                polled = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
                batches, foreign, payloads = [], 0, []
                for tp, records in polled.items():
                    if tp.topic == self._signal_topic:
                        payloads += [record.value for record in records if record.value is not None]
                        continue
                    entries = list(_entries(records, topic))
                    foreign += len(records) - len(entries)
                    self._next[tp.partition] = consumer.position(tp)
                    batches.append(Batch(tp.partition, self._next[tp.partition] - 1, entries))
                self._lag = {
                    tp.partition: max(0, (consumer.highwater(tp) or 0) - self._next[tp.partition])
                    for tp in partitions
                }
                if batches:
                    self._hand_over(self._deliver, batches, foreign)
                if payloads:
                    self._hand_over(self._listener.signalled, payloads)
                if behind:
                    behind = {number for number in behind if self._next[number] < end[number]}
                    if not behind:
                        self._hand_over(self._catch_up)

    def _can_go_on(self, topic: Topic, first: Mapping[int, int], end: Mapping[int, int]) -> bool:
        """Whether the log still has what follows the last record that was read."""
        return self._reading == topic and all(
            first[number] <= self._next[number] <= end[number] for number in range(topic.partitions)
        )

    def _start_over(self, topic: Topic, first: Mapping[int, int], end: Mapping[int, int]) -> None:
        self._next = {number: max(first[number], end[number] - self._rewind) for number in first}
        self._reading = topic
        self._hand_over(
            self._reset, topic, [self._next[number] - 1 for number in range(topic.partitions)]
        )

    def _consumer(self, **more: Any) -> KafkaConsumer:
        consumer = KafkaConsumer(
            **self._connect,
            **more,
            bootstrap_timeout_ms=ANSWER_MS,
            group_id=None,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            # Never skip: an offset that is not there any more ends `poll` with an error.
            auto_offset_reset="none",
            metrics_enabled=False,
        )
        _drain_before_fetching(consumer)
        return consumer

    def _new_producer(self) -> KafkaProducer:
        producer = KafkaProducer(
            **self._connect,
            bootstrap_timeout_ms=ANSWER_MS,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            linger_ms=0,
            # A topic that takes less takes no batch that holds more, however small each record is.
            batch_size=min(BATCH_BYTES, self._record_bytes),
            retry_backoff_ms=50,
            request_timeout_ms=self._delivery_ms,
            delivery_timeout_ms=self._delivery_ms,
            # `send` is called on the event loop, where it must not wait; what it would wait for
            # comes first.
            max_block_ms=ANSWER_MS,
            metrics_enabled=False,
        )
        producer.partitions_for(self._topic)
        producer.config["max_block_ms"] = 0
        return producer

    def _new_signaller(self) -> KafkaProducer:
        producer = KafkaProducer(
            **self._connect,
            bootstrap_timeout_ms=ANSWER_MS,
            # The leader has it: that is how the client learns that there is another leader. A
            # signal that is sent again would come late, and after those that followed it.
            acks=1,
            enable_idempotence=False,
            retries=0,
            allow_auto_create_topics=False,
            request_timeout_ms=ANSWER_MS,
            delivery_timeout_ms=ANSWER_MS,
            max_block_ms=ANSWER_MS,
            metrics_enabled=False,
        )
        producer.partitions_for(self._signal_topic)
        producer.config["max_block_ms"] = 0
        return producer

    def _hand_over(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have the event loop make the call, in the order of handing over."""
        self._handovers.acquire()
        self._loop.call_soon_threadsafe(functools.partial(self._take_over, call, *arguments))

    # The threads of those who read back.

    def _read_back(
        self, topic: Topic, partition: int, start: int, end: int, deadline: float
    ) -> Sequence[Entry]:
        """The entries from offset `start` to before `end`. Raises `KafkaError`, `TimeoutError`."""
        try:
            consumer = self._idle.pop()
        except IndexError:
            consumer = self._consumer(max_partition_fetch_bytes=READ_BYTES)
        try:
            entries = list(self._entries_back(consumer, topic, partition, start, end, deadline))
        except BaseException:
            consumer.close()
            raise
        self._idle.append(consumer)
        return entries

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
            if time.monotonic() >= deadline or self._found != topic:
                raise TimeoutError
            polled = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
            for entry in _entries(polled.get(tp, ()), topic):
                if entry.offset < end:
                    yield entry

    # On the event loop again.

    def _take_over(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        finally:
            self._handovers.release()

    def _reset(self, topic: Topic, positions: Sequence[int]) -> None:
        self._caught_up = False
        self._delivered = topic
        self._listener.reset(topic.epoch, positions)

    def _deliver(self, batches: Sequence[Batch], foreign: int) -> None:
        self._foreign += foreign
        self._listener.deliver(batches)

    def _catch_up(self) -> None:
        if not self._caught_up:
            log.info("all that the topic held is read")
        self._caught_up = True


def _topic(described: Mapping[str, Any]) -> Topic:
    return Topic(str(described["topic_id"]), len(described["partitions"]))


def _partitions(name: str, topic: Topic) -> list[TopicPartition]:
    return [TopicPartition(name, number) for number in range(topic.partitions)]


def _entries(records: Sequence[Any], topic: Topic) -> Iterator[Entry]:
    """What a chat of this version wrote, in its place; the rest is left out."""
    for record in records:
        try:
            value = _decoder.decode(record.value or b"")
        except (msgspec.MsgspecError, RecursionError):
            continue
        # A room's order holds within its partition; elsewhere, somebody else has put it.
        if partition_of(value.room, topic.partitions) == record.partition:
            said = Record(value.room, value.user, value.text, value.cid)
            yield Entry(record.offset, record.timestamp, said)


def _drain_before_fetching(consumer: KafkaConsumer) -> None:
    """Have every fetch ask for all partitions (kafka-python 3.0.12).

    `poll` takes what has come, and asks for more if that was nothing. What comes in between makes
    it ask for all partitions *but those*, of which it then hears nothing until the broker has no
    more reason to wait: up to `fetch_max_wait_ms`, half a second, or somebody else's message. The
    thread that receives is also the one that asks, so there it is certain what has come.
    """
    fetcher = consumer._fetcher
    fetch = fetcher._send_fetches_async

    async def fetch_if_drained() -> Sequence[Any]:
        # With something to take, `poll` does not wait, and asks again when it has taken it.
        return [] if fetcher._completed_fetches else await fetch()

    fetcher._send_fetches_async = fetch_if_drained


def _end(producer: KafkaProducer, seconds: float) -> None:
    """Have the producer flush for so many seconds, and end it."""
    try:
        producer.close(timeout=seconds)
    except KafkaError:
        # `close` gives up when it cannot flush, and leaves its thread running.
        producer._sender.force_close()


def _refuse(held: asyncio.Future[None], why: str) -> None:
    if not held.done():
        held.set_exception(UnavailableError(f"Kafka did not take the message: {why}."))


def _named(error: Exception) -> str:
    """An error in a few words: kafka-python's texts may run over many lines."""
    return type(error).__name__.removesuffix("Error")
