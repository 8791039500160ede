"""Rolling restarts and upgrades: row 14."""

from itertools import pairwise
from typing import Any

import pytest
from hosts import group
from kafka_clients import BROKERS, controller_last, zookeeper_mode
from matrix import Fault
from releases import OLD
from units import handed_over, property_of, started

from playbooks import Run, run

MEMBERS = group("zookeeper")


def assert_one_after_another(unit: str, names: list[str], last: str) -> None:
    """Each unit was stopped only after the previous one had started. `last` was the last."""
    order = sorted(names, key=lambda name: started(name, unit))
    assert order[-1] == last
    for first, second in pairwise(order):
        assert started(first, unit) < int(property_of(second, unit, "ActiveExitTimestampMonotonic"))


def assert_rolls(fault: Fault, playbook: str, variables: dict[str, Any] | None = None) -> Run:
    """The playbook restarts all services one at a time, ZooKeeper first, and no send fails.

    On a busy machine, gaps are as long as in a failover. So this counts controlled shutdowns.
    """
    before = {name: handed_over(name) for name in BROKERS}
    leader = next(name for name in MEMBERS if zookeeper_mode(name) == "leader")
    *_, last = controller_last()
    with fault.traffic() as traffic:
        done = run(playbook, variables)
        assert done.succeeded, done.said
        fault.recovers()
    assert traffic.failed == []
    assert all(handed_over(name) == count + 1 for name, count in before.items())
    assert_one_after_another("zookeeper", MEMBERS, last=leader)
    assert_one_after_another("kafka", BROKERS, last=last)
    ensemble = [started(name, "zookeeper") for name in MEMBERS]
    assert max(ensemble) < min(started(name, "kafka") for name in BROKERS)
    return done


# Not in every run: 14b restarts in the same way, and scenario `operations` uses this playbook.
@pytest.mark.fault("14a", "restart all, one at a time", gap=5, back=60)
@pytest.mark.timeout(1200)
def test_no_send_fails_in_a_rolling_restart(fault: Fault) -> None:
    assert_rolls(fault, "playbooks/restart.yml")


# Scenario `operations` tests the upgrade, with changed settings.
@pytest.mark.fault("14b", f"back to {OLD}", gap=5, back=60, every_run=True)
@pytest.mark.timeout(1200)
def test_no_send_fails_while_kafka_is_rolled_back_to_the_previous_release(fault: Fault) -> None:
    done = assert_rolls(fault, "playbooks/upgrade.yml", {"kafka_distribution_version": OLD})
    assert f"All brokers run {OLD}" in done.said
