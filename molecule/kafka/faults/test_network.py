"""The network is cut or slow: rows 7 and 12."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import address, connect, eventually
from kafka_clients import BROKERS, leader
from matrix import Fault
from units import firewalled, stopped

SLOW_LINK = Path(__file__).with_name("slow_link.py").read_text()


@pytest.mark.fault("7a", "cut the leader's host off", gap=60, back=120)
def test_an_unreachable_leader_is_replaced(fault: Fault) -> None:
    with fault.traffic() as traffic:
        victim = leader(fault.topic)
        # Everything except SSH, which the test needs to remove the rules.
        with firewalled(
            victim,
            "INPUT ! -i lo -p tcp ! --dport 22 -j DROP",
            "OUTPUT ! -o lo -p tcp ! --sport 22 -j DROP",
        ):
            traffic.goes_on(within=120)
        fault.recovers()


@pytest.mark.fault("7b", "cut the leader off from ZooKeeper", gap=60, back=120)
def test_no_record_is_lost_when_a_leader_that_clients_reach_loses_zookeeper(fault: Fault) -> None:
    with fault.traffic() as traffic:
        victim = leader(fault.topic)
        # Clients still reach it, and it still believes that it leads.
        with firewalled(victim, "OUTPUT -p tcp --dport 2181 -j REJECT --reject-with tcp-reset"):
            eventually(
                lambda: leader_among_others(fault.topic, victim),
                within=60,
                what="another broker leads",
            )
            traffic.goes_on(within=120)
        fault.recovers()


def leader_among_others(topic: str, victim: str) -> bool:
    others = [name for name in BROKERS if name != victim]
    return leader(topic, *others) in others


@pytest.mark.fault(12, "100 ms and 3 Mbit/s between two brokers", gap=5, back=120)
def test_a_slow_link_slows_writers_down_and_loses_nothing(fault: Fault) -> None:
    with fault.traffic() as traffic:
        slow = leader(fault.topic)
        follower = next(name for name in BROKERS if name != slow)
        with slow_link(slow, follower):
            fault.recovers()
            seconds = [traffic.goes_on(within=60) for _ in range(5)]
            # A round trip takes 0.2 s, or the follower would have left the in-sync set.
            assert min(seconds) >= 0.2, seconds
        fault.recovers()


@contextmanager
def slow_link(name: str, client: str) -> Iterator[None]:
    """Slow down what broker `client` fetches from broker `name`."""
    host = connect(name)
    host.check_output(
        "systemd-run --collect --unit slow-link python3 -c %s 19091 %s:9091 0.1 375000",
        SLOW_LINK,
        address(name),
    )
    rule = f"PREROUTING -t nat -p tcp -s {address(client)} --dport 9091 -j REDIRECT --to 19091"
    try:
        # The rule does not affect existing connections, so the client restarts.
        with stopped(client, "kafka"):
            host.check_output(f"iptables -I {rule}")
        yield
    finally:
        with stopped(client, "kafka"):
            host.check_output(f"iptables -D {rule}")
        host.check_output("systemctl stop slow-link")
