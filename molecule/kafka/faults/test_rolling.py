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
