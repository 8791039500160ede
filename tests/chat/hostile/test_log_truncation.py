"""A log that lost its end and grew again: nobody is told that all is there, and no id is used
twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from chat_client import ChatClient, Frame
from conftest import joined, make_topic, signals_of, until
from kafka import KafkaAdminClient
from kafka_broker import KafkaBroker
from power_cut import cut_tail
from test_relay import Recorder, record

from chat.relay.base import partition_of
from chat.relay.kafka import KafkaRelay
from chat.relay.memory import MemoryLog, MemoryRelay
from chat.server import Server
from chat.times import Times

Replica = Callable[..., Awaitable[Server]]

TOPIC = "chat"


def made_log(broker: KafkaBroker) -> dict[str, str]:
    """Make the topics of a log, and return the settings of its replicas."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)) as admin:
        make_topic(admin, TOPIC, signals_of(TOPIC))
    return {
        "KAFKA_ENABLED": "true",
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "KAFKA_TOPIC": TOPIC,
        "KAFKA_SIGNAL_TOPIC": signals_of(TOPIC),
    }


def id_of(frame: Frame) -> str:
    return str(frame["id"])


def offset_of(position: str) -> int:
    return int(position.split(":")[2])


async def test_a_broker_that_lost_its_end_is_not_taken_for_the_same_log(
    lone_broker: KafkaBroker, replica: Replica
) -> None:
    kafka = made_log(lone_broker)
    runs_on = await replica(kafka)
    async with ChatClient(runs_on.port) as ada:
        await joined(ada)
        before = [id_of(await ada.send("lobby", f"before {n}")) for n in range(20)]
        assert offset_of(before[-1]) == 19
        lone_broker.kill()
        cut_tail(lone_broker.segments(TOPIC, partition_of("lobby", 3))[-1], batches=5)
        await asyncio.to_thread(lone_broker.start)
        writes = await replica(kafka)
        async with ChatClient(writes.port, user="bob") as bob:
            await joined(bob)
            after = [id_of(await bob.send("lobby", f"after {n}")) for n in range(8)]
        assert offset_of(after[-1]) == 22
        assert not set(before) & set(after)
        # The one that read what was lost has its clients come again.
        await until(lambda: ada.ws.close_code == 1012)
    for server in (runs_on, writes):
        await until(lambda server=server: server.relay.caught_up and server.relay.up)
        async with ChatClient(server.port) as ada:
            # This waits until the replica has read all of it.
            assert (await joined(ada, since=after[-1]))["recovered"]
            # The last one that is kept is the fifteenth; of what follows, the log has nothing.
            kept = await joined(ada, since=before[14])
            assert kept["recovered"]
            assert [message["text"] for message in kept["messages"]] == [
                f"after {n}" for n in range(8)
            ]
            for lost in before[15:]:
                assert not (await joined(ada, since=lost))["recovered"]


async def test_a_broker_that_lost_nothing_is_the_same_log(
    lone_broker: KafkaBroker, replica: Replica
) -> None:
    kafka = made_log(lone_broker)
    server = await replica(kafka)
    async with ChatClient(server.port) as ada:
        await joined(ada)
        sent = [id_of(await ada.send("lobby", f"before {n}")) for n in range(3)]
        lone_broker.kill()
        await asyncio.to_thread(lone_broker.start)
        await until(lambda: server.relay.up)
        ack = await ada.send("lobby", "after")
        # Nobody was sent away, and everything came once.
        ids = [id_of(frame) for frame in ada.inbox if frame["type"] == "message"]
        assert ids == [*sent, id_of(ack)]
        assert (await joined(ada, since=sent[0]))["recovered"]


async def test_positions_of_the_release_before_are_recovered(replica: Replica) -> None:
    server = await replica()
    async with ChatClient(server.port) as ada:
        await joined(ada)
        ids = [id_of(await ada.send("lobby", f"text {n}")) for n in range(3)]
        without_time = [":".join(one.split(":")[:3]) for one in ids]
        answer = await joined(ada, since=without_time[0])
        assert answer["recovered"]
        assert [id_of(message) for message in answer["messages"]] == ids[1:]
        assert (await ada.join("lobby", since=f"{without_time[0]}:1"))["recovered"] is False


async def test_relays_in_memory_say_that_the_log_lost_its_end() -> None:
    log = MemoryLog(1)
    relay, listener = MemoryRelay(log), Recorder()
    await relay.start(listener)
    for number in range(5):
        relay.append(record(number))
    await until(lambda: len(listener.heard) == 5)
    lost = await relay.time_at(0, 4)
    log.cut(0, 3)
    relay.append(record(5))
    relay.append(record(6))
    await until(lambda: len(listener.epochs) == 2)
    await until(lambda: listener.records[5:] == [record(n) for n in (0, 1, 2, 5, 6)])
    assert listener.epochs[0] == listener.epochs[1]
    assert (await relay.time_at(0, 4)) not in (lost, None)
    await relay.stop(0)


def test_times_are_known_from_where_they_begin_until_they_are_forgotten() -> None:
    times = Times(9)
    assert times.at(10) == 0
    times.add([(10, 100), (14, 140), (15, 150)])
    assert [times.at(offset) for offset in (9, 10, 11, 14, 15, 16)] == [0, 100, 140, 140, 150, 0]
    times.add([(offset, 10 * offset) for offset in range(16, 3000)])
    times.forget(2500)
    assert [times.at(offset) for offset in (14, 2499, 2500, 2999)] == [0, 0, 25000, 29990]


async def test_a_reader_compares_the_last_record_it_read_after_an_interruption(
    kafka_broker: KafkaBroker, topic: str
) -> None:
    relay, listener = (
        KafkaRelay(
            [kafka_broker.bootstrap_servers],
            topic,
            signals_of(topic),
            client_id="test",
            rewind=1000,
            in_flight=1000,
            in_flight_bytes=1_000_000,
            delivery_seconds=2,
        ),
        Recorder(),
    )
    await relay.start(listener)
    await until(lambda: relay.caught_up and relay.up)
    await relay.append(record(0))
    await until(lambda: listener.records == [record(0)])
    # As if another record had been there: the log grew again before the reader was back.
    relay._reader._times[partition_of("lobby", 3)] -= 1
    kafka_broker.stop()
    kafka_broker.start()
    await until(lambda: listener.records == [record(0), record(0)])
    assert listener.epochs[0] == listener.epochs[1]
    await relay.stop(1)
