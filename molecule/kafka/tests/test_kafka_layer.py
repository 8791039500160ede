"""The Kafka layer as its users see it: a quorum, three copies of everything, units that behave."""

import re

import pytest
from hosts import connect, group
from kafka_clients import BROKERS, bootstrap, consume, copies_in_sync, produce, zookeeper_mode


def test_zookeeper_has_one_leader_and_everyone_else_follows() -> None:
    modes = sorted(zookeeper_mode(name) for name in group("zookeeper"))
    assert modes == ["follower", "follower", "leader"]


@pytest.mark.parametrize(("first", "other"), zip(BROKERS, BROKERS[1:] + BROKERS[:1], strict=True))
def test_what_one_broker_takes_another_serves(topic: str, first: str, other: str) -> None:
    values = [f"{first} {number}".encode() for number in range(100)]
    produce(topic, via=first, values=values)
    assert consume(topic, via=other, count=100) == values


def test_a_topic_has_three_copies_and_needs_two(topic: str) -> None:
    assert copies_in_sync(topic) == [3]
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
