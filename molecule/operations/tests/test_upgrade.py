"""An upgrade is taken back as easily as it is made, until it is made final; nobody notices any."""

import time
from typing import Any

import pytest
from hosts import connect
from kafka_clients import BROKERS, bootstrap
from traffic import Traffic

from playbooks import run

OLD, NEW = "3.9.1", "3.9.2"
# Seconds without an acknowledgement that a rolling change may cost a careful client.
LONGEST_GAP = 5.0


def running(name: str) -> str:
    """The version of Kafka whose directory the broker's process was started from."""
    command = connect(name).check_output("pgrep --full --list-full 'kafka.Kafka '")
    return next(version for version in (OLD, NEW) if f"-{version}" in command)


def go_to(version: str, **variables: Any) -> str:
    began = time.monotonic()
    done = run("playbooks/upgrade.yml", {"kafka_distribution_version": version, **variables})
    assert done.succeeded, done.said
    print(f"to {version} {variables}: {time.monotonic() - began:.0f} s")
    assert {running(name) for name in BROKERS} == {version}
    return done.said


def assert_unnoticed(traffic: Traffic) -> None:
    print(f"longest gap {traffic.longest_gap:.1f} s, {traffic.acknowledged} acknowledged")
    assert not traffic.failed
    assert traffic.longest_gap <= LONGEST_GAP


@pytest.mark.timeout(900)
def test_an_upgrade_goes_unnoticed_and_can_be_taken_back(topic: str) -> None:
    assert {running(name) for name in BROKERS} == {OLD}
    with Traffic(bootstrap(), topic) as traffic:
        assert "speak 3.8 among themselves. Back:" in go_to(NEW)
        go_to(OLD)
    assert_unnoticed(traffic)


@pytest.mark.timeout(900)
def test_an_upgrade_is_made_final(topic: str) -> None:
    early = run("playbooks/upgrade.yml", {"kafka_protocol_version": "3.9"})
    assert f"runs Kafka {OLD} still. Upgrade to {NEW} without kafka_protocol_version" in early.said
    with Traffic(bootstrap(), topic) as traffic:
        go_to(NEW)
        final = go_to(NEW, kafka_protocol_version="3.9")
    assert "speak 3.9 among themselves. Nothing is left to do" in final
    assert_unnoticed(traffic)
    lower = run("playbooks/upgrade.yml", {"kafka_protocol_version": "3.8"})
    assert "It cannot be lowered" in lower.said
