"""What cannot work is refused before anything is touched, in words that say what to change."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from playbooks import assert_refused, inventory, run

# The first test has waited for all of them.
pytestmark = pytest.mark.timeout(900)

REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an even ensemble": (
        {"zookeeper_group": "pair"},
        ["'pair' has 2 hosts", "add a host or remove one"],
    ),
    "two members with one id": (
        {"zookeeper_id": 1},
        ["zookeeper_id 1", "as has host2, host3"],
    ),
    "two brokers with one id": (
        {"kafka_broker_id": 7},
        ["kafka_broker_id 7", "as has host2, host3"],
    ),
    "an id out of range": (
        {"zookeeper_id": 256},
        ["zookeeper_id 256", "1 to 255"],
    ),
    "more copies than brokers": (
        {"kafka_topics": [{"name": "lobby", "partitions": 1, "replication_factor": 4}]},
        ["lobby", "4", "3 brokers"],
    ),
    "more copies needed than there are": (
        {"kafka_config": {"min.insync.replicas": 4}},
        ["min.insync.replicas", "4", "3"],
    ),
    "a misspelt variable": (
        {"kafka_heep": "1g"},
        ["kafka_heep (did you mean kafka_heap?)"],
    ),
    "a setting that is another variable's": (
        {"kafka_config": {"advertised.listeners": "PLAINTEXT://192.0.2.1:9092"}},
        ["advertised.listeners", "kafka_listeners instead"],
    ),
    "two listeners on one port": (
        {"kafka_listeners": {"CLIENT": {"port": 9091}}},
        ["kafka_listeners", "a port of its own"],
    ),
    "a port that another program has": (
        {"kafka_listeners": {"CLIENT": {"port": 22}}},
        ["kafka_listeners", "taken: 22 by sshd"],
    ),
    "a name that nobody can resolve": (
        {"kafka_listeners": {"INTERNAL": {"advertised_host": "broker.invalid"}}},
        ["cannot reach broker.invalid:9091", "kafka_listeners"],
    ),
    "a member that cannot be reached": (
        {"zookeeper_address": "member.invalid"},
        ["cannot reach member.invalid:3888", "zookeeper_address"],
    ),
    "a directory of somebody else": (
        {"kafka_data_directory": "/etc/systemd"},
        ["kafka_data_directory is /etc/systemd", "no data of a broker"],
    ),
    "a mount point": (
        {"kafka_data_directory": "/var/lib/containers"},
        ["/var/lib/containers", "mount point"],
    ),
    "a member's data in somebody else's directory": (
        {"zookeeper_config": {"dataLogDir": "/etc/systemd"}},
        ["/etc/systemd", "no member's"],
    ),
    "a host with too little memory": (
        {"kafka_min_memory_mb": 10**9},
        ["kafka_min_memory_mb", "MB of memory"],
    ),
    "a host with too little space": (
        {"kafka_data_directory": "/var/lib/kafka/new", "kafka_min_disk_mb": 10**9},
        ["kafka_min_disk_mb", "free for /var/lib/kafka/new"],
    ),
    "a value of the wrong type": (
        {"kafka_topics": "lobby"},
        ["kafka_topics", "list"],
    ),
    "a heap the host has no memory for": (
        {"kafka_heap": "640g"},
        ["kafka_heap", "640g", "half"],
    ),
    "an archive with another checksum": (
        {"kafka_distribution_sha512": "0" * 128},
        ["kafka_distribution_sha512", "kafka_2.13-3.9.2.tgz"],
    ),
    "another metrics agent than the expected": (
        {"jmx_exporter_sha256": "0" * 64},
        ["jmx_exporter_sha256", "jmx_prometheus_javaagent.jar"],
    ),
    "a system nobody tried": (
        {"kafka_distribution_java_package": ""},
        ["kafka_distribution_java_package", "Java 17"],
    ),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[None]]:
    """All cases at once: each is a run of its own that mostly waits for the hosts."""
    folder = tmp_path_factory.mktemp("refusals")
    with ThreadPoolExecutor(4) as pool:
        return {
            name: pool.submit(assert_refused, "playbooks/kafka.yml", variables, words, folder)
            for name, (variables, words) in REFUSED.items()
        }


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_nothing_changed(case: str, refusals: dict[str, Future[None]]) -> None:
    refusals[case].result()


def test_brokers_are_checked_when_the_first_host_of_all_is_none(tmp_path: Path) -> None:
    members = {
        f"member{number}": {
            "ansible_host": host,
            "zookeeper_id": number,
            "zookeeper_data_directory": "/var/lib/zookeeper/none",
        }
        for number, host in [(4, "host2"), (5, "host3")]
    }
    topics = [{"name": "lobby", "replication_factor": 4}]
    refused = run(
        "playbooks/kafka.yml", {"kafka_topics": topics}, inventory(tmp_path, {"zookeeper": members})
    )
    assert "The topic 'lobby' in kafka_topics has replication_factor 4" in refused.said
    assert set(refused.changed.values()) == {0}
