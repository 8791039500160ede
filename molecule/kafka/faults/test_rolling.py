"""What operators do to a running cluster: row 14."""

import pytest
from kafka_clients import BROKERS
from matrix import Fault
from nodes import property_of

from playbooks import run


@pytest.mark.fault("14a", "restart all, one at a time", gap=5, back=60, every_run=True)
@pytest.mark.timeout(600)
def test_no_send_fails_while_everything_is_restarted(fault: Fault) -> None:
    before = {name: property_of(name, "kafka", "MainPID") for name in BROKERS}
    with fault.traffic() as traffic:
        done = run("playbooks/restart.yml")
        assert done.succeeded, done.said
        fault.recovers()
    assert traffic.failed == []
    assert all(property_of(name, "kafka", "MainPID") != before[name] for name in BROKERS)


@pytest.mark.fault("14b", "back to 3.9.1, upgrade to 3.9.2", gap=5, back=60, every_run=True)
@pytest.mark.timeout(900)
def test_no_send_fails_while_kafka_is_upgraded(fault: Fault) -> None:
    with fault.traffic() as traffic:
        for version in ("3.9.1", "3.9.2"):
            done = run("playbooks/upgrade.yml", {"kafka_distribution_version": version})
            assert done.succeeded, done.said
            assert f"All brokers run {version}" in done.said
        fault.recovers()
    assert traffic.failed == []
