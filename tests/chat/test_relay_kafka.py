"""What only Kafka can do: be unreachable, return, be replaced, and contain records of others."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from conftest import make_topic, signals_of, until
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.protocol.consumer import FetchRequest
from kafka_broker import KafkaBroker, KafkaCluster
from test_relay import AUTHOR, Recorder, record

from chat.relay.base import Record, TooLargeError, UnavailableError, partition_of
from chat.relay.kafka import KafkaRelay
from chat.relay.kafka.batches import read
from chat.relay.kafka.client import GATHER_BYTES, GATHER_MS, Topic, bounds, gather, new_consumer
from chat.relay.kafka.watcher import WATCH_SECONDS

Start = Callable[..., Awaitable[tuple[KafkaRelay, Recorder]]]


@pytest.fixture
async def start(kafka_broker: KafkaBroker, request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    started: list[KafkaRelay] = []

    async def start(
        topic: str = "",
        *,
        servers: str = kafka_broker.bootstrap_servers,
        rewind: int = 1000,
        in_flight: int = 1000,
        in_flight_bytes: int = 1_000_000,
        delivery_seconds: float = 2,
        wait: bool = True,
    ) -> tuple[KafkaRelay, Recorder]:
        topic = topic or request.getfixturevalue("topic")
        relay = KafkaRelay(
            servers.split(","),
            topic,
            signals_of(topic),
            client_id="test",
            rewind=rewind,
            in_flight=in_flight,
            in_flight_bytes=in_flight_bytes,
            delivery_seconds=delivery_seconds,
        )
        started.append(relay)
        listener = Recorder()
        await relay.start(listener)
        if wait:
            await until(lambda: relay.caught_up and relay.up)
        return relay, listener

    yield start
    await asyncio.gather(*(relay.stop(1) for relay in started))


@pytest.fixture
def producer(kafka_broker: KafkaBroker) -> Iterator[KafkaProducer]:
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers)
    ) as producer:
        yield producer


def said(text: str, cid: str) -> Record:
    return Record("lobby", "ada", text, cid, AUTHOR)


def made_again(admin: KafkaAdminClient, topic: str) -> bool:
    with contextlib.suppress(TopicAlreadyExistsError):
        make_topic(admin, topic)
        return True
    return False


async def test_it_begins_some_way_back_and_has_caught_up_when_it_was_read(start: Start) -> None:
    relay, listener = await start()
    await asyncio.gather(*(relay.append(record(n)) for n in range(50)))
    await until(lambda: len(listener.heard) == 50)
    _, everything = await start(rewind=1000)
    assert everything.heard == listener.heard
    _, end = await start(rewind=20)
    assert end.heard == listener.heard[-20:]


async def test_records_that_no_chat_wrote_are_skipped_and_counted(
    start: Start, topic: str, producer: KafkaProducer
) -> None:
    right = partition_of("lobby", 3)
    wrong = (right + 1) % 3
    good = {"v": 1, "room": "lobby", "user": "eve", "text": "hi", "cid": "1"}
    foreign: list[tuple[bytes | None, int]] = [
        (b"", right),
        (b"\xff\x00 not JSON", right),
        (b"[" * 5000, right),
        (b"{}", right),
        (msgspec.json.encode(good | {"v": 2}), right),
        (msgspec.json.encode(good | {"room": "no such\nroom"}), right),
        (msgspec.json.encode(good | {"cid": "x" * 65}), right),
        (msgspec.json.encode(good | {"text": 7}), right),
        (msgspec.json.encode(good), wrong),
        (None, right),
    ]
    for value, partition in foreign:
        producer.send(topic, key=b"lobby", value=value, partition=partition)
    producer.send(topic, value=msgspec.json.encode(good | {"new": "field"}), partition=right)
    producer.flush()
    relay, listener = await start()
    assert [one.text for one in listener.records] == ["hi"]
    assert relay.foreign_records == len(foreign)
    # The position is after them, so a client that resumes there misses nothing.
    assert listener.positions[right] == len(foreign) - 1


async def test_what_comes_while_fetching_is_prepared_does_not_hold_up_what_follows(
    kafka_broker: KafkaBroker, topic: str, producer: KafkaProducer
) -> None:
    connect = {"bootstrap_servers": kafka_broker.bootstrap_servers}
    tp = TopicPartition(topic, 0)

    def say(text: bytes) -> None:
        producer.send(topic, value=text, partition=0).get(10)

    def hear() -> Sequence[bytes]:
        # A fetch without the partition would last for twenty seconds.
        with contextlib.closing(new_consumer(connect, fetch_max_wait_ms=20_000)) as consumer:
            consumer.assign([tp, TopicPartition(topic, 1)])
            consumer.seek(tp, 0)
            consumer.seek(TopicPartition(topic, 1), 0)
            fetcher = consumer._fetcher
            drain = fetcher.fetched_records

            def drain_too_early(*arguments: Any, **more: Any) -> Any:
                drained = drain(*arguments, **more)
                fetcher.fetched_records = drain
                say(b"in between")
                while not fetcher._completed_fetches:
                    time.sleep(0.001)
                return drained

            # The first response lists every partition, later ones only those with new records.
            say(b"before")
            heard = consumer.poll(timeout_ms=5000)[tp]
            while not fetcher.in_flight_fetches():
                assert consumer.poll(timeout_ms=100) == {}
            fetcher.fetched_records = drain_too_early
            heard += consumer.poll(timeout_ms=5000)[tp]
            consumer.poll(timeout_ms=100)
            say(b"afterwards")
            heard += consumer.poll(timeout_ms=5000)[tp]
            return [value for batch in heard for _, value in read(batch, 0).values]

    assert await asyncio.to_thread(hear) == [b"before", b"in between", b"afterwards"]


async def test_offsets_that_kafka_python_leaves_out_are_kafkas_trouble_and_not_ours(
    kafka_broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the thread would end the process. Kafka's errors are retried instead."""

    async def nothing(*_: Any) -> dict[TopicPartition, Any]:
        return {}

    connect = {"bootstrap_servers": kafka_broker.bootstrap_servers}
    with contextlib.closing(new_consumer(connect)) as consumer:
        monkeypatch.setattr(consumer._fetcher, "_fetch_offsets_by_times_async", nothing)
        with pytest.raises(KafkaError, match=topic):
            bounds(consumer, [TopicPartition(topic, 0)])


async def test_every_fetch_says_whether_the_broker_may_wait_for_more(
    kafka_broker: KafkaBroker, topic: str, producer: KafkaProducer
) -> None:
    connect = {"bootstrap_servers": kafka_broker.bootstrap_servers}
    tp = TopicPartition(topic, 0)

    def asked() -> list[tuple[int, int]]:
        fetches = []
        with contextlib.closing(new_consumer(connect)) as consumer:
            consumer.assign([tp])
            consumer.seek(tp, 0)
            manager = consumer._fetcher._manager
            send = manager.send

            def note(request: Any, *arguments: Any, **more: Any) -> Any:
                if isinstance(request, FetchRequest):
                    fetches.append((request.min_bytes, request.max_wait_ms))
                return send(request, *arguments, **more)

            manager.send = note
            for busy in (False, True, False):
                gather(consumer, busy)
                producer.send(topic, value=b"one", partition=0).get(10)
                assert consumer.poll(timeout_ms=5000)
        return fetches

    assert await asyncio.to_thread(asked) == [(1, 500), (GATHER_BYTES, GATHER_MS), (1, 500)]


async def test_a_topic_that_is_not_there_yet_is_waited_for(
    start: Start, kafka_admin: KafkaAdminClient
) -> None:
    relay, listener = await start("made-later", wait=False)
    await asyncio.sleep(0.3)
    assert not relay.up
    assert not relay.caught_up
    with pytest.raises(UnavailableError, match="cannot be reached"):
        relay.append(record(0))
    make_topic(kafka_admin, "made-later")
    await until(lambda: relay.up and relay.caught_up)
    await relay.append(record(1))
    await until(lambda: listener.records == [record(1)])


async def test_another_topic_of_the_same_name_is_another_log(
    start: Start, topic: str, kafka_admin: KafkaAdminClient
) -> None:
    relay, listener = await start()
    await relay.append(record(0))
    await until(lambda: listener.heard)
    kafka_admin.delete_topics([topic])
    # Kafka deletes asynchronously, and refuses the name until then.
    await until(lambda: made_again(kafka_admin, topic))
    await until(lambda: len(listener.epochs) == 2 and relay.up and relay.caught_up)
    assert listener.epochs[0] != listener.epochs[1]
    await relay.append(record(1))
    await until(lambda: listener.records == [record(0), record(1)])


async def test_a_log_that_was_not_delivered_is_neither_read_nor_written(start: Start) -> None:
    """Nobody here knows any of its positions."""
    relay, listener = await start()
    await relay.append(record(0))
    await until(lambda: listener.heard)
    delivered, relay._reader.delivered = relay._reader.delivered, Topic("another", 3)
    for use in (lambda: relay.append(record(1)), lambda: relay.read(0, -1, 0)):
        with pytest.raises(UnavailableError, match="replaced"):
            await use()
    relay._reader.delivered = delivered
    await relay.append(record(1))


@pytest.mark.parametrize("bound", [{"in_flight": 3}, {"in_flight_bytes": 3 * 1200}])
async def test_when_too_much_is_in_flight_more_is_refused_at_once(
    start: Start, kafka_broker: KafkaBroker, bound: dict[str, int]
) -> None:
    relay, _ = await start(**bound, delivery_seconds=10)

    def kilobyte(number: int) -> Record:
        return said("x" * 1024, str(number))

    kafka_broker.pause()
    try:
        held = [relay.append(kilobyte(n)) for n in range(3)]
        with pytest.raises(UnavailableError, match="too many"):
            relay.append(kilobyte(3))
    finally:
        kafka_broker.resume()
    await asyncio.gather(*held)
    await relay.append(kilobyte(3))


async def test_who_waits_is_told_as_soon_as_kafka_is_away(
    start: Start, kafka_broker: KafkaBroker
) -> None:
    relay, listener = await start(delivery_seconds=300)
    kafka_broker.pause()
    try:
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(10):
                await relay.append(record(0))
        assert not relay.up
    finally:
        kafka_broker.resume()
    await until(lambda: relay.up)
    # The record may be in the log nevertheless, and must no longer count as open.
    await relay.append(record(1))
    await until(lambda: record(1) in listener.records)
    await until(lambda: not relay._appender.in_flight)
    assert relay._appender.in_flight_bytes == 0


async def test_a_record_the_topic_does_not_take_is_refused_for_good_and_alone(
    start: Start, topic: str, kafka_admin: KafkaAdminClient
) -> None:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "2000"})
    kafka_admin.alter_configs([resource])
    relay, listener = await start()
    producer = relay._appender.producer
    with pytest.raises(TooLargeError):
        relay.append(said("x" * 3000, "too large"))
    # Together they exceed a batch, but each alone fits.
    records = [said("x" * size, str(size)) for size in (1000, 1500, 1600, 1200)]
    await asyncio.gather(*(relay.append(one) for one in records))
    await until(lambda: listener.records == records)
    assert relay._appender.producer is producer


async def test_a_large_record_of_others_does_not_stop_the_reading(
    start: Start, topic: str, producer: KafkaProducer
) -> None:
    relay, listener = await start()
    room = partition_of("lobby", 3)
    producer.send(topic, value=b"x" * 900_000, partition=room).get(10)
    await relay.append(record(0))
    await until(lambda: listener.records == [record(0)])
    assert [entry.record for entry in (await relay.read(room, -1, 1)).entries] == [record(0)]


async def test_more_partitions_are_another_log(
    start: Start, topic: str, kafka_admin: KafkaAdminClient
) -> None:
    """Rooms move to other partitions, so operators should not do this. If they do, no room is in
    two partitions.
    """
    (one, first), (other, second) = await start(), await start()
    stays = next(f"room-{n}" for n in range(99) if _place(n, 3) == _place(n, 5))
    moves = next(f"room-{n}" for n in range(99) if _place(n, 3) != _place(n, 5))
    for room in (stays, moves):
        await one.append(record(0, room))
    kafka_admin.create_partitions({topic: 5})
    await until(lambda: len(first.started_at) == len(second.started_at) == 5)
    await until(lambda: one.caught_up and other.caught_up)
    # The room that moved starts empty; its old messages stay in a partition where nobody looks.
    assert first.records[2:] == second.records[2:] == [record(0, stays)]
    for relay in (one, other):
        await relay.append(record(1, moves))
    await until(lambda: len(first.heard) == len(second.heard) == 5)
    assert first.heard[2:] == second.heard[2:]


def _place(room: int, partitions: int) -> int:
    return partition_of(f"room-{room}", partitions)


async def test_the_loss_of_a_leader_costs_seconds_and_no_record(
    start: Start,
    kafka_cluster: KafkaCluster,
    record_property: Callable[[str, object], None],
) -> None:
    topic = f"leader-{uuid.uuid4().hex[:12]}"
    with contextlib.closing(
        KafkaAdminClient(bootstrap_servers=kafka_cluster.bootstrap_servers)
    ) as admin:
        make_topic(admin, topic, signals_of(topic), replicas=3)
        relay, listener = await start(topic, servers=kafka_cluster.bootstrap_servers)
        (described,) = admin.describe_topics([topic])
    place = partition_of("lobby", 3)
    (leader,) = (
        one["leader_id"] for one in described["partitions"] if one["partition_index"] == place
    )
    held: list[Record] = []

    async def keep(number: int) -> None:
        """Retry like a client, until the record is stored."""
        while True:
            try:
                await relay.append(record(number))
            except UnavailableError:
                await asyncio.sleep(0.1)
            else:
                return held.append(record(number))

    for number in range(10):
        await keep(number)
    began = time.monotonic()
    kafka_cluster.brokers[leader].kill()
    try:
        await keep(10)
        took = time.monotonic() - began
        for number in range(11, 20):
            await keep(number)
        await until(lambda: set(map(str, listener.records)) >= set(map(str, held)))
    finally:
        kafka_cluster.brokers[leader].start()
    record_property("leader_change_s", round(took, 1))
    print(f"\nThe first message after the leader was killed took {took:.1f} s")
    firsts = list(dict.fromkeys(one.cid for one in listener.records))
    assert firsts == [str(number) for number in range(20)]
    assert len(listener.epochs) == 1


async def test_a_frozen_broker_is_told_to_the_sender_in_time_and_is_survived(
    start: Start, kafka_broker: KafkaBroker
) -> None:
    relay, listener = await start()
    producer = relay._appender.producer
    loop = asyncio.get_running_loop()
    kafka_broker.pause()
    try:
        began = loop.time()
        with pytest.raises(UnavailableError):
            await relay.append(record(0))
        assert loop.time() - began < 4
        await until(lambda: not relay.up)
        began = loop.time()
        with pytest.raises(UnavailableError):
            relay.append(record(1))
        assert loop.time() - began < 1
    finally:
        kafka_broker.resume()
    await until(lambda: relay.up)
    # A producer that let a record expire may never send again.
    assert relay._appender.producer is not producer
    await relay.append(record(2))
    await until(lambda: record(2) in listener.records)
    assert len(listener.epochs) == 1


async def test_a_broker_that_stops_and_starts_is_survived(
    start: Start, kafka_broker: KafkaBroker
) -> None:
    relay, listener = await start()
    await relay.append(record(0))
    producer = relay._appender.producer
    kafka_broker.stop()
    try:
        await until(lambda: not relay.up)
        assert relay.caught_up
    finally:
        kafka_broker.start()
    await until(lambda: relay.up)
    # A starting broker may have told this producer that the topic does not exist.
    assert relay._appender.producer is not producer
    await relay.append(record(1))
    await until(lambda: listener.records == [record(0), record(1)])
    assert len(listener.epochs) == 1


async def test_kafka_may_come_after_the_service(
    start: Start, kafka_broker: KafkaBroker, topic: str
) -> None:
    kafka_broker.stop()
    try:
        relay, listener = await start(topic, wait=False)
        await asyncio.sleep(0.5)
        assert not relay.up
        assert not relay.caught_up
    finally:
        kafka_broker.start()
    await until(lambda: relay.up and relay.caught_up)
    await relay.append(record(0))
    await until(lambda: listener.records == [record(0)])


async def test_without_the_topic_for_signals_all_else_works(
    start: Start, kafka_admin: KafkaAdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    make_topic(kafka_admin, "no-signals")
    relay, listener = await start("no-signals")
    relay.signal(b"is anybody here?")
    await relay.append(record(0))
    await until(lambda: listener.records == [record(0)])
    await asyncio.sleep(2 * WATCH_SECONDS)
    (line,) = [line for line in caplog.messages if signals_of("no-signals") in line]
    assert "create it" in line
    # The topic may be created and deleted at any time.
    make_topic(kafka_admin, signals_of("no-signals"))

    def heard() -> bool:
        relay.signal(b"now")
        return b"now" in listener.signals

    await until(heard)
    kafka_admin.delete_topics([signals_of("no-signals")])
    await until(lambda: relay._watcher.signals is None)
    relay.signal(b"is anybody here?")
    await relay.append(record(1))
    await until(lambda: listener.records == [record(0), record(1)])
    assert len(listener.epochs) == 1
