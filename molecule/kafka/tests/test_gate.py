"""restart.yml restarts no broker unless it knows that the cluster can do without it."""

from contextlib import ExitStack
from typing import Any

from kafka_clients import BROKERS, new_topic
from units import firewalled, give_up_restart, property_of

from playbooks import run


def assert_none_restarted(why: str, variables: dict[str, Any]) -> None:
    def processes() -> list[str]:
        return [property_of(name, "kafka", "MainPID") for name in BROKERS]

    before = processes()
    try:
        refused = run("playbooks/restart.yml", variables, tags="kafka")
    finally:
        give_up_restart(BROKERS)
    assert not refused.succeeded
    assert why in refused.said
    assert "Brokers restarted: none." in refused.said
    assert processes() == before


def test_no_broker_is_restarted_that_a_partition_needs() -> None:
    # The health check uses the addresses that brokers advertise now, not those that they will have.
    moved = {"kafka_listeners": {"CLIENT": {"advertised_port": 1}}}
    with new_topic(partitions=3, replicas=1) as topic:
        assert_none_restarted(f"1 partitions would take no message: {topic}-", moved)


def test_no_broker_is_restarted_when_none_responds() -> None:
    with ExitStack() as ways:
        for name in BROKERS:
            ways.enter_context(firewalled(name, "INPUT -p tcp --dport 9092 -j REJECT"))
        assert_none_restarted("No Kafka broker answered", {"kafka_health_timeout": 4})
