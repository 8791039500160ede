"""What the ensemble knew is written down, and given back to an empty one, messages in place."""

from pathlib import Path

import pytest
from hosts import connect
from kafka_clients import BROKERS, consume, produce

from playbooks import run

VALUES = [f"message {number}".encode() for number in range(100)]
DATA = "/var/lib/zookeeper/version-2"


def everywhere(command: str) -> None:
    for name in BROKERS:
        connect(name).check_output(command)


@pytest.mark.timeout(600)
def test_an_ensemble_that_lost_everything_is_restored(topic: str, tmp_path: Path) -> None:
    produce(topic, via=BROKERS[0], values=VALUES)
    where = {"zookeeper_backup_directory": str(tmp_path)}
    saved = run("playbooks/backup.yml", where)
    assert saved.succeeded, saved.said

    # Neither brokers that run nor data that is there may be overwritten.
    refused = run("playbooks/restore.yml", where)
    assert "The broker on" in refused.said
    # Brokers first: without an ensemble they ask for minutes where to hand their partitions.
    everywhere("systemctl stop kafka")
    everywhere("systemctl stop zookeeper")
    refused = run("playbooks/restore.yml", where)
    assert f"has data in {DATA}: nothing was restored" in refused.said

    everywhere(f"rm -r {DATA}")
    restored = run("playbooks/restore.yml", where)
    assert restored.succeeded, restored.said
    assert "topics are as they were backed up" in restored.said
    assert consume(topic, via=BROKERS[1], count=100) == VALUES
