"""What operators do to a running cluster: row 14."""

from itertools import pairwise

import pytest
from hosts import group
from kafka_clients import BROKERS, controller_last, zookeeper_mode
from matrix import Fault
from nodes import handed_over, property_of, started
from releases import OLD

from playbooks import run

MEMBERS = group("zookeeper")
# Counted, for seconds would not tell a failover from a hand-over on a busy machine.
ONCE_EACH = dict.fromkeys(BROKERS, 1)


def assert_one_after_another(unit: str, names: list[str], last: str) -> None:
    """Each was stopped only after the one before had been started, and `last` was the last."""
    order = sorted(names, key=lambda name: started(name, unit))
    assert order[-1] == last
    for first, second in pairwise(order):
        assert started(first, unit) < int(property_of(second, unit, "ActiveExitTimestampMonotonic"))


@pytest.mark.fault("14a", "restart all, one at a time", gap=5, back=60, every_run=True)
@pytest.mark.timeout(600)
def test_no_send_fails_while_everything_is_restarted(fault: Fault) -> None:
    before = {name: handed_over(name) for name in BROKERS}
    leader = next(name for name in MEMBERS if zookeeper_mode(name) == "leader")
    *_, last = controller_last()
    with fault.traffic() as traffic:
        done = run("playbooks/restart.yml")
        assert done.succeeded, done.said
        fault.recovers()
    assert traffic.failed == []
    assert {name: handed_over(name) - count for name, count in before.items()} == ONCE_EACH
    assert_one_after_another("zookeeper", MEMBERS, last=leader)
    assert_one_after_another("kafka", BROKERS, last=last)
    assert started(leader, "zookeeper") < min(started(name, "kafka") for name in BROKERS)


# The way to the newer release, with settings that change, is the scenario `operations`'s.
@pytest.mark.fault("14b", f"back to {OLD}", gap=5, back=60, every_run=True)
@pytest.mark.timeout(600)
def test_no_send_fails_while_kafka_goes_back_a_release(fault: Fault) -> None:
    before = {name: handed_over(name) for name in BROKERS}
    leader = next(name for name in MEMBERS if zookeeper_mode(name) == "leader")
    *_, last = controller_last()
    with fault.traffic() as traffic:
        done = run("playbooks/upgrade.yml", {"kafka_distribution_version": OLD})
        assert done.succeeded, done.said
        fault.recovers()
    assert f"All brokers run {OLD}" in done.said
    assert traffic.failed == []
    assert {name: handed_over(name) - count for name, count in before.items()} == ONCE_EACH
    assert_one_after_another("zookeeper", MEMBERS, last=leader)
    assert_one_after_another("kafka", BROKERS, last=last)
