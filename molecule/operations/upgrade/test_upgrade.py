"""Upgrade with changed settings, then make it final. Row 14b of the faults rolls back."""

import time
from pathlib import Path
from typing import Any

import pytest
from hosts import connect, group
from kafka_clients import BROKERS, bootstrap, four_letters, settings_of
from releases import NEW, OLD
from traffic import Traffic
from units import property_of

from playbooks import assert_refused, inventory, refusals, run

MEMBERS = group("zookeeper")
PASSWORD = "hunter2"
CHANGED = {
    "kafka_config": {"num.io.threads": 9, "ssl.key.password": PASSWORD},
    "zookeeper_config": {
        "4lw.commands.whitelist": "srvr,ruok,mntr,isro",
        "ssl.keyStore.password": PASSWORD,
    },
}
# Longest time without an acknowledgement in a rolling restart, in seconds.
LONGEST_GAP = 5


def running(name: str) -> str:
    """The version of Kafka whose directory the broker's process was started from."""
    command = connect(name).check_output("pgrep --full --list-full 'kafka.Kafka '")
    return next(version for version in (OLD, NEW) if f"-{version}" in command)


def processes() -> list[str]:
    return [
        property_of(name, unit, "MainPID") for name in BROKERS for unit in ("zookeeper", "kafka")
    ]


def upgrade(variables: dict[str, Any], threads: int) -> str:
    """Upgrade with these variables; return the output. Brokers then have `threads` I/O threads."""
    began = time.monotonic()
    done = run(
        "playbooks/upgrade.yml",
        {"kafka_distribution_version": NEW, **variables},
        options=["--diff"],
    )
    assert done.succeeded, done.said
    print(f"to {NEW}: {time.monotonic() - began:.0f} s")
    assert {running(name) for name in BROKERS} == {NEW}
    # Neither when the setting is added nor when it is removed.
    assert PASSWORD not in done.said
    assert {settings_of(name)["num.io.threads"] for name in BROKERS} == {str(threads)}
    return done.said


def assert_wrong_steps_are_refused(folder: Path) -> None:
    """Run on the old version."""
    refused: dict[str, tuple[str, dict[str, Any], list[str]]] = {
        "the protocol before the version": (
            "playbooks/upgrade.yml",
            {"kafka_protocol_version": "3.9"},
            [f"still runs Kafka {OLD}. First upgrade to {NEW} without kafka_protocol_version"],
        ),
        "fewer brokers, with fewer copies": (
            "playbooks/kafka.yml",
            {"kafka_group": "pair", "kafka_distribution_version": OLD},
            ["min.insync.replicas is 2, and 2 brokers in the group 'pair' would change it to 1"],
        ),
    }
    for case in refusals(refused, folder).values():
        case.result()


def assert_nothing_restarts_before_all_hosts_have_the_archive(folder: Path) -> None:
    before = processes()
    without = {
        "kafka_distribution_archive": [f"http://127.0.0.1:1/kafka_2.13-{NEW}.tgz"],
        "kafka_distribution_sha512": "0" * 128,
    }
    refused = run(
        "playbooks/upgrade.yml",
        {"kafka_distribution_version": NEW},
        inventory(folder, {"kafka": {BROKERS[-1]: without}}),
    )
    assert not refused.succeeded
    assert "kafka_distribution_sha512" in refused.said, refused.said
    assert processes() == before


@pytest.mark.timeout(1800)
def test_clients_do_not_notice_an_upgrade_or_its_final_step(topic: str, tmp_path: Path) -> None:
    with Traffic(bootstrap(), topic) as traffic:
        assert_wrong_steps_are_refused(tmp_path)
        assert_nothing_restarts_before_all_hosts_have_the_archive(tmp_path)
        # The upgrade also changes settings. The final step has the old ones again.
        upgraded = upgrade(CHANGED, threads=9)
        assert "with protocol 3.8. To roll back:" in upgraded
        # Diffs of files without secrets are shown.
        assert "+++ after" in upgraded
        assert {four_letters(name, "isro") for name in MEMBERS} == {"rw"}
        final = upgrade({"kafka_protocol_version": "3.9"}, threads=8)
        assert "rw" not in {four_letters(name, "isro") for name in MEMBERS}
    assert "with protocol 3.9. Nothing is left to do" in final
    assert not traffic.failed
    traffic.assert_gap(LONGEST_GAP)
    assert_refused(
        "playbooks/upgrade.yml", {"kafka_protocol_version": "3.8"}, ["It cannot be lowered"]
    )
