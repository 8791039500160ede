"""A replica that cannot do its work says so, and one that has lost a part of itself ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
from chat_client import ChatClient
from conftest import ROOT, joined, until
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from kafka_broker import KafkaBroker

from chat import acks
from chat.relay.base import partition_of
from chat.relay.kafka import batches, reader, watcher
from chat.server import Server

Replica = Callable[..., Awaitable[Server]]


def set_topic(admin: KafkaAdminClient, topic: str, **settings: str) -> None:
    settings = {name.replace("_", "."): value for name, value in settings.items()}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)])


@pytest.mark.parametrize("codec", ["zstd", "lz4", "snappy", "gzip"])
async def test_a_topic_may_have_any_codec(
    replica: Replica, kafka: dict[str, str], kafka_admin: KafkaAdminClient, codec: str
) -> None:
    for topic in (kafka["KAFKA_TOPIC"], kafka["KAFKA_SIGNAL_TOPIC"]):
        set_topic(kafka_admin, topic, compression_type=codec)
    one, other = await replica(kafka), await replica(kafka)
    async with ChatClient(one.port) as ada, ChatClient(other.port, user="bob") as bob:
        await joined(ada)
        await joined(bob)
        for number in range(3):
            await ada.send("lobby", f"{codec} {number} " + "x" * 1000, f"{codec} {number}")
            assert (await bob.hear("message"))["text"].startswith(f"{codec} {number}")
        while (await ada.hear("presence"))["count"] != 2:
            pass


async def test_a_topic_that_forgets_messages_is_named(
    replica: Replica,
    kafka: dict[str, str],
    kafka_admin: KafkaAdminClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watcher, "SETTINGS_SECONDS", 0.0)
    server = await replica(kafka)
    assert server.look_ready() == ""
    set_topic(kafka_admin, kafka["KAFKA_TOPIC"], cleanup_policy="compact")
    await until(lambda: "cleanup.policy=compact: set it to delete" in server.look_ready())
    set_topic(kafka_admin, kafka["KAFKA_TOPIC"], cleanup_policy="delete")
    await until(lambda: server.look_ready() == "")
    caplog.clear()


async def test_a_topic_whose_producers_set_the_time_is_named(
    replica: Replica,
    kafka: dict[str, str],
    kafka_admin: KafkaAdminClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watcher, "SETTINGS_SECONDS", 0.0)
    caplog.set_level("INFO", "chat.kafka")
    server = await replica(kafka)
    set_topic(kafka_admin, kafka["KAFKA_TOPIC"], message_timestamp_type="CreateTime")
    await until(lambda: "message.timestamp.type=CreateTime: set it to LogApp" in caplog.text)
    # It works all the same.
    assert server.look_ready() == ""
    set_topic(kafka_admin, kafka["KAFKA_TOPIC"], message_timestamp_type="LogAppendTime")
    await until(lambda: "message.timestamp.type=LogAppendTime" in caplog.text)
    assert caplog.text.count("CreateTime") == 1


async def test_a_reader_that_does_not_get_on_makes_the_replica_unready(
    replica: Replica,
    kafka: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await replica(kafka)
    async with ChatClient(server.port) as ada:
        await joined(ada)
        await ada.send("lobby", "before")
        monkeypatch.setattr(reader, "STALLED_SECONDS", 1.0)
        monkeypatch.setattr(acks, "BACK_SECONDS", 0.5)

        def broken(*_: object) -> None:
            raise reader.KafkaError

        monkeypatch.setattr(reader, "entries", broken)
        refused = await ada.refused(type="send", room="lobby", text="lost?", cid="1")
        assert (refused["code"], refused["cid"]) == ("unavailable", "1")
        assert "does not give the message back" in refused["message"]
        await until(lambda: "1 records that cannot be read" in server.look_ready())
        assert "(Kafka)" in server.look_ready()
        monkeypatch.undo()
        await until(lambda: server.look_ready() == "")
        await ada.send("lobby", "lost?", cid="1")


BREAKS = """
import sys
import chat.__main__ as service
import {module}
def broken(*_, **__): raise ZeroDivisionError("broken by the test")
{module}.{name} = broken
sys.exit(service.main())
"""


@pytest.mark.parametrize(
    ("module", "name", "part"),
    [
        ("chat.relay.kafka.reader", "entries", "thread kafka-reader"),
        ("chat.relay.kafka.watcher", "Watcher._look", "thread kafka-watcher"),
        ("chat.window", "Window.take", "thread kafka-reader"),
        ("chat.presence", "Presence.outgoing", "a task"),
    ],
)
async def test_a_part_that_ends_takes_the_process_with_it(
    kafka: dict[str, str], kafka_broker: KafkaBroker, module: str, name: str, part: str
) -> None:
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers)
    ) as producer:
        value = b'{"v":1,"room":"lobby","user":"ada","text":"hi","cid":"1"}'
        place = partition_of("lobby", 3)
        producer.send(kafka["KAFKA_TOPIC"], value=value, partition=place).get(10)
    environment = {
        "CHAT_PORT": "0",
        "CHAT_INTERNAL_PORT": "0",
        "CHAT_ADDRESS": "127.0.0.1",
        "CHAT_DRAIN_SECONDS": "0.5",
    }
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", BREAKS.format(module=module, name=name)],
        cwd=ROOT,
        env=kafka | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    assert f"{part} has ended" in ended.stderr
    assert "ZeroDivisionError: broken by the test" in ended.stderr


async def test_a_damaged_batch_is_named_and_nothing_around_it_is_lost(
    replica: Replica,
    kafka: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await replica(kafka)
    async with ChatClient(server.port) as ada:
        await joined(ada)
        await ada.send("lobby", "before")
        monkeypatch.setattr(reader, "STALLED_SECONDS", 1.0)
        monkeypatch.setattr(batches, "_is_intact", lambda raw: b"damaged" not in bytes(raw))
        for number, text in enumerate(("damaged", "after")):
            await ada.say(type="send", room="lobby", text=text, cid=str(number))
        await until(lambda: "the checksum of the batch is wrong" in server.look_ready())
        place = rf"topic {kafka['KAFKA_TOPIC']}, partition [0-9], offset 1: "
        assert re.search(place, server.look_ready())
        monkeypatch.undo()
        await until(lambda: server.look_ready() == "")
        said = [(await ada.hear("message"))["text"] for _ in range(3)]
        assert said == ["before", "damaged", "after"]
