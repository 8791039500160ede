"""Wrong variables are refused before anything changes, with the remedy: the cases that need
installed hosts. The others are in tests/roles/test_preflight.py.
"""

import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from releases import NEW

from playbooks import inventory, refusals, run

# All cases run before the first test ends.
pytestmark = pytest.mark.timeout(900)

# A URL, so that no local file is needed: the archive is fetched only after all checks.
ELSEWHERE = {
    "kafka_distribution_archive": ["https://archive.invalid/kafka.tgz"],
    "kafka_distribution_sha512": "0" * 128,
}


Refusals = dict[str, tuple[dict[str, Any], list[str]]]

# On one host, these take a third of the time.
REFUSED: Refusals = {
    "an even ensemble": (
        {"zookeeper_group": "pair"},
        ["'pair' has 2 hosts", "add a host or remove one"],
    ),
    "a mount point for a broker's data": (
        {"kafka_data_directories": ["/var/lib/containers"]},
        ["/var/lib/containers in kafka_data_directories is a mount point"],
    ),
    "a mount point for a member's data": (
        {"zookeeper_config": {"dataLogDir": "/var/lib/containers"}},
        ["/var/lib/containers (zookeeper_data_directory, or dataLogDir", "is a mount point"],
    ),
    "heaps that fit into memory only one at a time": (
        {
            f"{role}_heap": "{{ ansible_facts['memtotal_mb'] * 9 // 20 }}m"
            for role in ("kafka", "zookeeper")
        },
        ["but its services need kafka_heap", "zookeeper_heap", "lower these variables"],
    ),
    "a broker id that differs from the one in the data": (
        {"kafka_broker_id": "{{ groups['kafka'].index(inventory_hostname) + 7 }}"},
        ["kafka_broker_id 7", "belongs to broker 1"],
    ),
    "a member id that differs from the one in the data": (
        {"zookeeper_id": "{{ groups['zookeeper'].index(inventory_hostname) + 7 }}"},
        ["zookeeper_id 7", "belongs to member 1"],
    ),
    "metrics on the port of ZooKeeper's metrics": (
        {"kafka_metrics_port": 9405},
        ["kafka_metrics_port 9405, ZooKeeper has 2181, 2888, 3888, 9405", "a port of its own"],
    ),
    "a port that another program uses": (
        {"kafka_listeners": {"CLIENT": {"port": 22}}},
        ["kafka_listeners", "taken: 22 by sshd"],
    ),
    "a new dataLogDir without the existing transaction log": (
        {"zookeeper_config": {"dataLogDir": "/var/lib/zookeeper-log"}},
        [
            "dataLogDir in zookeeper_config is /var/lib/zookeeper-log",
            "Stop zookeeper on all members",
        ],
    ),
    "a data directory that differs from the one with the broker's data": (
        {"kafka_data_directories": ["/var/lib/kafka/new"]},
        [
            "kafka_data_directories is [/var/lib/kafka/new]",
            "data is in /var/lib/kafka/data",
            "move /var/lib/kafka/data to /var/lib/kafka/new",
        ],
    ),
    "a data directory that differs from the one with the member's data": (
        {"zookeeper_data_directory": "/var/lib/zookeeper/new"},
        ["data is in /var/lib/zookeeper", "make that /var/lib/zookeeper/new/version-2", "mv"],
    ),
}

# kafka.yml refuses these; those above it refuses by kafka_preflight.yml, which it imports.
REFUSED_BY_KAFKA: Refusals = {
    "a version without ZooKeeper": (
        ELSEWHERE | {"kafka_distribution_version": "4.1.0"},
        ["kafka_distribution_version is 4.1.0", "The last versions that do are 3.9"],
    ),
    "a version without the protocol of the brokers": (
        ELSEWHERE | {"kafka_distribution_version": "3.8.1"},
        ["3.8.1, which does not support the protocol 3.9 that the brokers already use"],
    ),
    "two minor versions at once": (
        ELSEWHERE | {"kafka_distribution_version": "3.11.0"},
        [f"runs Kafka {NEW}", "is 3.11.0", "one minor version at a time"],
    ),
    "an archive with another checksum": (
        {"kafka_distribution_sha512": "0" * 128},
        ["kafka_distribution_sha512", f"kafka_2.13-{NEW}.tgz"],
    ),
    "a directory in the place of the link to the version in use": (
        {"kafka_distribution_directory": "/var/lib"},
        ["/var/lib/kafka", "is not a link", "kafka_distribution_directory"],
    ),
    "a metrics agent with another checksum": (
        {"jmx_exporter_sha256": "0" * 64},
        ["jmx_exporter_sha256", "jmx_prometheus_javaagent.jar"],
    ),
    "an untested system without a Java package": (
        {"kafka_distribution_java_package": ""},
        ["kafka_distribution_java_package", "Java 17"],
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[None]]:
    outcomes: dict[str, Future[None]] = {}
    for playbook, cases in (("kafka_preflight", REFUSED), ("kafka", REFUSED_BY_KAFKA)):
        runs = {name: (f"playbooks/{playbook}.yml", *case) for name, case in cases.items()}
        folder = tmp_path_factory.mktemp("refusals")
        outcomes |= refusals(runs, folder, "inventory/sandbox-first")
    return outcomes


@pytest.mark.parametrize("case", [*REFUSED, *REFUSED_BY_KAFKA])
def test_it_is_refused_before_anything_changes(case: str, refused: dict[str, Future[None]]) -> None:
    refused[case].result()


def test_brokers_are_checked_if_the_first_host_of_the_play_is_not_a_broker(tmp_path: Path) -> None:
    # The members are on the controller, because the hosts already have members with data.
    members = {
        f"member{number}": {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "zookeeper_id": number,
        }
        for number in (4, 5)
    }
    topics = [{"name": "lobby", "replication_factor": 4}]
    more = inventory(tmp_path, {"zookeeper": members})
    ended = run("playbooks/kafka.yml", {"kafka_topics": topics}, more)
    assert "The topic 'lobby' in kafka_topics has replication_factor 4" in ended.said
    assert set(ended.changed.values()) == {0}
