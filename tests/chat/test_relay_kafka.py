"""What is Kafka's alone: being away, coming back, being another, holding what others wrote."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from conftest import make_topic, signals_of, until
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import TopicAlreadyExistsError
from kafka_broker import KafkaBroker
from test_relay import Recorder, record

from chat.relay.base import UnavailableError, partition_of
from chat.relay.kafka import WATCH_SECONDS, KafkaRelay

Start = Callable[..., Awaitable[tuple[KafkaRelay, Recorder]]]


@pytest.fixture
async def start(kafka_broker: KafkaBroker, request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    started: list[KafkaRelay] = []

    async def start(
        topic: str = "", *, rewind: int = 1000, in_flight: int = 1000, wait: bool = True
    ) -> tuple[KafkaRelay, Recorder]:
        topic = topic or request.getfixturevalue("topic")
        relay = KafkaRelay(
            [kafka_broker.bootstrap_servers],
            topic,
            signals_of(topic),
            client_id="test",
            rewind=rewind,
            in_flight=in_flight,
            delivery_seconds=2,
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
    # The position is past them: who resumes there misses nothing.
    assert listener.positions[right] == len(foreign) - 1


async def test_what_comes_while_fetching_is_prepared_does_not_hold_up_what_follows(
    start: Start, topic: str, producer: KafkaProducer
) -> None:
    relay, _ = await start()
    tp = TopicPartition(topic, 0)

    def say(text: bytes) -> None:
        producer.send(topic, value=text, partition=0).get(10)

    def hear() -> Sequence[bytes]:
        # A fetch that leaves the partition out would last for twenty seconds.
        with contextlib.closing(relay._consumer(fetch_max_wait_ms=20_000)) as consumer:
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

            # The first answer names every partition, the next one those with news.
            say(b"before")
            heard = consumer.poll(timeout_ms=5000)[tp]
            while not fetcher.in_flight_fetches():
                assert consumer.poll(timeout_ms=100) == {}
            fetcher.fetched_records = drain_too_early
            heard += consumer.poll(timeout_ms=5000)[tp]
            consumer.poll(timeout_ms=100)
            say(b"afterwards")
            heard += consumer.poll(timeout_ms=5000)[tp]
            return [record.value for record in heard]

    assert await asyncio.to_thread(hear) == [b"before", b"in between", b"afterwards"]


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
    # Kafka deletes in its own time, and refuses the name until then.
    await until(lambda: made_again(kafka_admin, topic))
    await until(lambda: len(listener.epochs) == 2 and relay.up and relay.caught_up)
    assert listener.epochs[0] != listener.epochs[1]
    await relay.append(record(1))
    await until(lambda: listener.records == [record(0), record(1)])


async def test_when_too_much_is_in_flight_more_is_refused_at_once(
    start: Start, kafka_broker: KafkaBroker
) -> None:
    relay, _ = await start(in_flight=3)
    kafka_broker.pause()
    try:
        held = [relay.append(record(n)) for n in range(3)]
        with pytest.raises(UnavailableError, match="too many"):
            relay.append(record(3))
    finally:
        kafka_broker.resume()
    await asyncio.gather(*held)


async def test_a_frozen_broker_is_told_to_the_sender_in_time_and_is_survived(
    start: Start, kafka_broker: KafkaBroker
) -> None:
    relay, listener = await start()
    producer = relay._producer
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
        assert loop.time() - began < 0.1
    finally:
        kafka_broker.resume()
    await until(lambda: relay.up)
    # A producer that let a record expire may never send again.
    assert relay._producer is not producer
    await relay.append(record(2))
    await until(lambda: record(2) in listener.records)
    assert len(listener.epochs) == 1


async def test_a_broker_that_stops_and_starts_is_survived(
    start: Start, kafka_broker: KafkaBroker
) -> None:
    relay, listener = await start()
    await relay.append(record(0))
    kafka_broker.stop()
    try:
        await until(lambda: not relay.up)
        assert relay.caught_up
    finally:
        kafka_broker.start()
    await until(lambda: relay.up)
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
    # It may be made at any time, and deleted.
    make_topic(kafka_admin, signals_of("no-signals"))

    def heard() -> bool:
        relay.signal(b"now")
        return b"now" in listener.signals

    await until(heard)
    kafka_admin.delete_topics([signals_of("no-signals")])
    await until(lambda: relay._signals is None)
    relay.signal(b"is anybody here?")
    await relay.append(record(1))
    await until(lambda: listener.records == [record(0), record(1)])
    assert len(listener.epochs) == 1
