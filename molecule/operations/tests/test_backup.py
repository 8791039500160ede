"""ZooKeeper's data is backed up, and restored into an empty ensemble. Brokers keep messages."""

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import pytest
from hosts import connect
from kafka_clients import BROKERS, consume, new_topic, produce, zookeeper_mode

from playbooks import inventory, run

VALUES = [f"message {number}".encode() for number in range(100)]
DATA = "/var/lib/zookeeper/version-2"


def everywhere(command: str) -> None:
    for name in BROKERS:
        connect(name).check_output(command)


@pytest.mark.timeout(1200)
def test_an_ensemble_that_lost_its_data_is_restored(topic: str, tmp_path: Path) -> None:
    produce(topic, via=BROKERS[0], values=VALUES)
    where = {"zookeeper_backup_directory": str(tmp_path / "backup")}
    # The backup must work while a host and a member are down.
    gone = {"ansible_host": "192.0.2.1", "ansible_ssh_common_args": "-oConnectTimeout=1"}
    ids = {"zookeeper_id": 9, "kafka_broker_id": 9}
    more = inventory(tmp_path, {group: {"gone": gone | ids} for group in ("zookeeper", "kafka")})
    follower = next(name for name in BROKERS if zookeeper_mode(name) == "follower")
    connect(follower).check_output("systemctl stop zookeeper")
    saved = run("playbooks/backup.yml", where, more)
    connect(follower).check_output("systemctl start zookeeper")
    assert saved.succeeded, saved.said
    assert "Not reached: gone." in saved.said

    # Refused: a broker runs; a member has data; the backup is incomplete.
    refused = run("playbooks/restore.yml", where)
    assert "The broker on" in refused.said
    # Stop brokers first: without an ensemble, they try for minutes to hand over their partitions.
    everywhere("systemctl stop kafka")
    everywhere("systemctl stop zookeeper")
    refused = run("playbooks/restore.yml", where)
    assert f"has data in {DATA}: nothing was restored" in refused.said
    mark = tmp_path / "backup" / "topics.json"
    topics = mark.read_text()
    mark.unlink()
    refused = run("playbooks/restore.yml", where)
    assert "where topics.json is missing" in refused.said
    mark.write_text(topics)

    everywhere(f"rm -r {DATA}")
    restored = run("playbooks/restore.yml", where)
    assert restored.succeeded, restored.said
    assert "topics are as they were backed up" in restored.said
    assert consume(topic, via=BROKERS[1], count=100) == VALUES


def test_a_backup_fails_if_znodes_change_during_the_copy(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    with ThreadPoolExecutor() as pool, ExitStack() as topics:
        saving = pool.submit(
            run, "playbooks/backup.yml", {"zookeeper_backup_directory": str(folder)}
        )
        while not wait([saving], timeout=0.5).done:
            topics.enter_context(new_topic())
    saved = saving.result()
    assert not saved.succeeded
    assert "znodes changed during the copy: /kafka/brokers/topics/test-" in saved.said
    assert not list(folder.iterdir())
