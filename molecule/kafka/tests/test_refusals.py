"""What cannot work is refused before anything is touched, in words that say what to change."""

from pathlib import Path
from typing import Any

import pytest

from playbooks import assert_refused

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
        ["kafka_heep", "spelling"],
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
    "a system nobody tried": (
        {"kafka_distribution_java_package": ""},
        ["kafka_distribution_java_package", "Java 17"],
    ),
}


@pytest.mark.parametrize(("variables", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_nothing_changed(
    variables: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    assert_refused("playbooks/kafka.yml", variables, words, tmp_path)
