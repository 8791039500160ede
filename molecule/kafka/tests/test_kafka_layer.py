"""The Kafka layer as its users see it: a quorum, three copies of everything, units that behave."""

import re
import socket
import uuid
from collections.abc import Iterator

import pytest
from conftest import address, connect, group
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

BROKERS = group("kafka")


def bootstrap(*names: str) -> list[str]:
    return [f"{address(name)}:9092" for name in names or BROKERS]


def zookeeper_mode(name: str) -> str:
    """What a ZooKeeper member says it is: `leader`, `follower` or nothing."""
    with socket.create_connection((address(name), 2181), timeout=5) as connection:
        connection.sendall(b"srvr")
        answer = connection.makefile().read()
    mode = re.search(r"^Mode: (\w+)$", answer, re.MULTILINE)
    return mode[1] if mode else ""


def produce(topic: str, via: str, values: list[bytes]) -> None:
    """Send in order; return when all in-sync copies have them."""
    producer = KafkaProducer(bootstrap_servers=bootstrap(via), acks="all")
    try:
        for sent in [producer.send(topic, value=value, partition=0) for value in values]:
            sent.get(timeout=30)
    finally:
        producer.close()


def consume(topic: str, via: str, count: int) -> list[bytes]:
    """The first `count` values, or as many as come within twenty seconds."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap(via), consumer_timeout_ms=20_000)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        return [record.value for _, record in zip(range(count), consumer, strict=False)]
    finally:
        consumer.close()


@pytest.fixture
def topic() -> Iterator[str]:
    """A topic of one partition with the layer's own defaults."""
    name = f"test-{uuid.uuid4()}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap())
    try:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": -1}})
        admin.wait_for_topics([name])
        yield name
        admin.delete_topics([name])
    finally:
        admin.close()


def test_zookeeper_has_one_leader_and_everyone_else_follows() -> None:
    modes = sorted(zookeeper_mode(name) for name in group("zookeeper"))
    assert modes == ["follower", "follower", "leader"]


@pytest.mark.parametrize(("first", "other"), zip(BROKERS, BROKERS[1:] + BROKERS[:1], strict=True))
def test_what_one_broker_takes_another_serves(topic: str, first: str, other: str) -> None:
    values = [f"{first} {number}".encode() for number in range(100)]
    produce(topic, via=first, values=values)
    assert consume(topic, via=other, count=100) == values


def test_a_topic_has_three_copies_and_needs_two(topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap())
    try:
        (described,) = admin.describe_topics([topic])
        (partition,) = described["partitions"]
        assert len(partition["isr_nodes"]) == 3
    finally:
        admin.close()
    settings = connect(BROKERS[0]).check_output(
        "/opt/kafka/bin/kafka-configs.sh --bootstrap-server %s --describe --all "
        "--entity-type topics --entity-name %s",
        bootstrap()[0],
        topic,
    )
    assert re.search(r"min\.insync\.replicas=2 ", settings)


@pytest.mark.parametrize("unit", ["zookeeper", "kafka"])
@pytest.mark.parametrize("name", BROKERS)
def test_units_start_at_boot_run_unprivileged_and_never_had_to_be_restarted(
    name: str, unit: str
) -> None:
    service = connect(name).service(unit)
    assert service.is_enabled
    assert service.is_running
    assert service.is_valid
    properties = service.systemd_properties
    assert properties["User"] == "kafka"
    assert properties["NRestarts"] == "0"
    assert properties["ProtectSystem"] == "strict"
    assert properties["NoNewPrivileges"] == "yes"


@pytest.mark.parametrize("name", BROKERS)
def test_nobody_can_log_in_as_kafka(name: str) -> None:
    user = connect(name).user("kafka")
    assert user.shell.endswith("nologin")
    assert user.groups == ["kafka"]
