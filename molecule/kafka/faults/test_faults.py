"""The Kafka layer through the loss of a part: what was acknowledged stays, what died comes back."""

from collections.abc import Iterator
from contextlib import contextmanager

from hosts import connect, eventually, group, restart_host
from kafka_clients import BROKERS, consume, copies_in_sync, produce, zookeeper_mode

VALUES = [f"message {number}".encode() for number in range(100)]


@contextmanager
def stopped(name: str, unit: str) -> Iterator[None]:
    host = connect(name)
    host.check_output("systemctl stop %s", unit)
    try:
        # A clean stop is a success, not a failure that somebody has to look at.
        assert host.service(unit).systemd_properties["Result"] == "success"
        yield
    finally:
        host.check_output("systemctl start %s", unit)


def whole_again(topic: str) -> bool:
    """Whether all brokers hold all of the topic."""
    return set(copies_in_sync(topic)) == {3}


def test_a_message_survives_the_broker_it_was_produced_on(topic: str) -> None:
    first, second, third = BROKERS
    produce(topic, via=first, values=VALUES)
    with stopped(first, "kafka"):
        assert consume(topic, via=third, count=100) == VALUES
        produce(topic, via=second, values=VALUES)
    eventually(lambda: whole_again(topic), within=120, what="the stopped broker has caught up")
    assert consume(topic, via=first, count=200) == VALUES * 2


def test_a_killed_broker_comes_back_by_itself(topic: str) -> None:
    victim = BROKERS[1]
    produce(topic, via=victim, values=VALUES)
    connect(victim).check_output("systemctl kill --signal=KILL --kill-whom=main kafka")
    produce(topic, via=BROKERS[0], values=VALUES)
    eventually(
        lambda: int(connect(victim).service("kafka").systemd_properties["NRestarts"]) > 0,
        within=60,
        what="systemd started the killed broker again",
    )
    eventually(lambda: whole_again(topic), within=120, what="the killed broker has caught up")
    assert consume(topic, via=victim, count=200) == VALUES * 2


def test_the_ensemble_elects_another_leader(topic: str) -> None:
    members = group("zookeeper")
    leader = next(name for name in members if zookeeper_mode(name) == "leader")
    others = [name for name in members if name != leader]
    with stopped(leader, "zookeeper"):
        eventually(
            lambda: sorted(map(zookeeper_mode, others)) == ["follower", "leader"],
            within=60,
            what="the other two elected a leader",
        )
        produce(topic, via=BROKERS[0], values=VALUES)
    eventually(
        lambda: zookeeper_mode(leader) == "follower", within=60, what="the old leader follows"
    )
    assert consume(topic, via=BROKERS[1], count=100) == VALUES


def test_a_restarted_host_takes_its_place_by_itself(topic: str) -> None:
    produce(topic, via=BROKERS[0], values=VALUES)
    restart_host(BROKERS[2])
    eventually(
        lambda: zookeeper_mode(BROKERS[2]) in ("leader", "follower"),
        within=60,
        what="ZooKeeper on the restarted host serves",
    )
    eventually(lambda: whole_again(topic), within=120, what="the restarted host has caught up")
    assert consume(topic, via=BROKERS[2], count=100) == VALUES
