"""What cannot work is refused before anything is touched, in words that say what to change."""

import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from releases import NEW

from playbooks import inventory, refusals, run

# The first test has waited for all of them.
pytestmark = pytest.mark.timeout(900)

# What names no file of this machine: the archive is not looked for before the rest is right.
ELSEWHERE = {
    "kafka_distribution_archive": ["https://archive.invalid/kafka.tgz"],
    "kafka_distribution_sha512": "0" * 128,
}


def each(*values: Any) -> str:
    """A variable that has one of the values on each host: what one task refuses shares a run."""
    return f"{{{{ {list(values)}[groups['kafka'].index(inventory_hostname)] }}}}"


Refusals = dict[str, tuple[dict[str, Any], list[str]]]

REFUSED: Refusals = {
    "an even ensemble": (
        {"zookeeper_group": "pair"},
        ["'pair' has 2 hosts", "add a host or remove one"],
    ),
    "a member's id out of range, or another's": (
        {"zookeeper_id": each(256, 1, "1")},
        ["zookeeper_id 256", "1 to 255", "zookeeper_id 1, as has host2", "as has host3"],
    ),
    "a broker's id out of range, or another's": (
        {"kafka_broker_id": each(1001, 7, "7")},
        ["kafka_broker_id 1001", "0 to 1000", "kafka_broker_id 7, as has host2", "as has host3"],
    ),
    "more copies than brokers": (
        {"kafka_topics": [{"name": "lobby", "partitions": 1, "replication_factor": 4}]},
        ["lobby", "4", "3 brokers"],
    ),
    "listeners on a port that another one, the metrics or ZooKeeper has": (
        {"kafka_listeners": each(*({"CLIENT": {"port": port}} for port in (9091, 9404, 2888)))},
        [
            "host1: kafka_listeners makes",
            "host2: kafka_listeners makes",
            "host3: kafka_listeners makes",
            "the metrics have kafka_metrics_port 9404, ZooKeeper has 2181, 2888, 3888, 9405",
            "a port of its own",
        ],
    ),
    "a port of ZooKeeper that another one of its own has, or that is none": (
        {"zookeeper_peer_port": each(3888, 9405, 70000)},
        [
            "host1: zookeeper_client_port is 2181, zookeeper_peer_port 3888",
            "zookeeper_peer_port 9405, zookeeper_election_port 3888",
            "and zookeeper_metrics_port 9405. Give each",
            "zookeeper_peer_port 70000",
            "a port of its own, 1 to 65535",
        ],
    ),
    "a directory of somebody else, or a mount point": (
        {"kafka_data_directories": each(["/etc/systemd"], *[["/var/lib/containers"]] * 2)},
        [
            "/etc/systemd in kafka_data_directories holds",
            "no data of a broker",
            "/var/lib/containers in kafka_data_directories is a mount point",
        ],
    ),
    "a member's data in somebody else's directory, or at a mount point": (
        {"zookeeper_config": {"dataLogDir": each("/etc/systemd", *["/var/lib/containers"] * 2)}},
        [
            "/etc/systemd (zookeeper_data_directory, or dataLogDir in zookeeper_config) holds",
            "no data of a member",
            "dataLogDir in zookeeper_config) is a mount point",
        ],
    ),
    "a member's directory that the unit does not see": (
        {"zookeeper_log_directory": each("/home/zookeeper", "/tmp/zookeeper", "/var/tmp/z")},
        ["'/home/zookeeper'", "'/tmp/zookeeper'", "'/var/tmp/z'", "outside of /home"],
    ),
    "a host with too little memory, for one service or for both": (
        {
            "kafka_min_memory_mb": (
                "{{ ansible_facts['memtotal_mb']"
                " + (10**9 if inventory_hostname == 'host1' else -600) }}"
            ),
            "zookeeper_min_memory_mb": 700,
        },
        [
            "host1 has",
            "host2 has",
            "zookeeper_min_memory_mb 700",
            "run fewer services on this one",
        ],
    ),
    "heaps that a host has memory for alone, and not together": (
        {
            f"{role}_heap": "{{ ansible_facts['memtotal_mb'] * 9 // 20 }}m"
            for role in ("kafka", "zookeeper")
        },
        [
            "host1 has",
            "but its services need kafka_heap",
            "zookeeper_heap",
            "lower these variables",
        ],
    ),
}

# What one host shows is tried on the first alone, in a third of the time.
REFUSED_ON_ONE: Refusals = {
    "another id than the one the data belongs to": (
        {"kafka_broker_id": "{{ groups['kafka'].index(inventory_hostname) + 7 }}"},
        ["kafka_broker_id 7", "belongs to broker 1"],
    ),
    "another member than the one the data belongs to": (
        {"zookeeper_id": "{{ groups['zookeeper'].index(inventory_hostname) + 7 }}"},
        ["zookeeper_id 7", "belongs to member 1"],
    ),
    "metrics on the port that ZooKeeper has for its own": (
        {"kafka_metrics_port": 9405},
        ["kafka_metrics_port 9405, ZooKeeper has 2181, 2888, 3888, 9405", "a port of its own"],
    ),
    "a port that another program has": (
        {"kafka_listeners": {"CLIENT": {"port": 22}}},
        ["kafka_listeners", "taken: 22 by sshd"],
    ),
    "a log of transactions that would be left behind": (
        {"zookeeper_config": {"dataLogDir": "/var/lib/zookeeper-log"}},
        [
            "dataLogDir in zookeeper_config is /var/lib/zookeeper-log",
            "Stop zookeeper on all members",
        ],
    ),
    "another data directory than the one with the broker's data": (
        {"kafka_data_directories": ["/var/lib/kafka/new"]},
        [
            "kafka_data_directories is [/var/lib/kafka/new]",
            "data is in /var/lib/kafka/data",
            "move /var/lib/kafka/data to /var/lib/kafka/new",
        ],
    ),
    "another data directory than the one with the member's data": (
        {"zookeeper_data_directory": "/var/lib/zookeeper/new"},
        ["data is in /var/lib/zookeeper", "make that /var/lib/zookeeper/new/version-2", "mv"],
    ),
}

# What kafka.yml refuses besides kafka_preflight.yml, which it imports as other playbooks do.
REFUSED_BY_KAFKA: Refusals = {
    "a version without ZooKeeper": (
        ELSEWHERE | {"kafka_distribution_version": "4.1.0"},
        ["kafka_distribution_version is 4.1.0", "The last versions that do are 3.9"],
    ),
    "a version that does not speak what the brokers speak": (
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
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[None]]:
    outcomes: dict[str, Future[None]] = {}
    for site, playbook, cases in (
        ("inventory/sandbox", "kafka_preflight", REFUSED),
        ("inventory/sandbox-first", "kafka_preflight", REFUSED_ON_ONE),
        ("inventory/sandbox-first", "kafka", REFUSED_BY_KAFKA),
    ):
        runs = {name: (f"playbooks/{playbook}.yml", *case) for name, case in cases.items()}
        outcomes |= refusals(runs, tmp_path_factory.mktemp("refusals"), site)
    return outcomes


@pytest.mark.parametrize("case", [*REFUSED, *REFUSED_ON_ONE, *REFUSED_BY_KAFKA])
def test_refused_with_nothing_changed(case: str, refused: dict[str, Future[None]]) -> None:
    refused[case].result()


def test_brokers_are_checked_when_the_first_host_of_all_is_none(tmp_path: Path) -> None:
    # On the controller, for hosts have members with data already.
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
