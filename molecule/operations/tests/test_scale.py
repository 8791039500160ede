"""scale.yml spreads partitions over all brokers, and moves them off a retired or lost one."""

from collections import Counter
from pathlib import Path

import pytest
from hosts import connect, eventually
from kafka import KafkaAdminClient
from kafka_clients import bootstrap, new_topic, whole
from traffic import Traffic
from units import kill

from playbooks import Run, inventory, run

# The host of this scenario that is not a broker.
FOURTH = "host4"
# Bytes per second: slow enough for clients not to notice.
RATE = {"kafka_move_rate": 1_000_000}
RETIRE = RATE | {"kafka_retire": FOURTH}


def held() -> Counter[int]:
    """How many replicas each broker holds."""
    with KafkaAdminClient(bootstrap_servers=bootstrap()) as admin:
        return Counter(
            broker
            for topic in admin.describe_topics()
            for partition in topic["partitions"]
            for broker in partition["replica_nodes"]
        )


def done(run: Run) -> str:
    assert run.succeeded, run.said
    return run.said


@pytest.mark.timeout(1800)
def test_a_broker_is_added_retired_and_lost_while_clients_write(tmp_path: Path) -> None:
    fourth = {FOURTH: {"kafka_broker_id": 4, "kafka_rack": "a"}}
    with_fourth = inventory(tmp_path, {"kafka": fourth})
    with new_topic(partitions=6) as topic, Traffic(bootstrap(), topic) as traffic:
        before = held()
        done(run("playbooks/kafka.yml", None, with_fourth))
        done(run("playbooks/scale.yml", RATE, with_fourth))
        after = held()
        # Each rack has one replica, so the new broker shares those of broker 1, in the same rack.
        assert abs(after[4] - after[1]) <= 1
        assert after[1] + after[4] == before[1]
        assert sum(after.values()) == sum(before.values())

        plan = run("playbooks/scale.yml", RETIRE, with_fourth, options=["--check", "--diff"])
        assert f'"{topic}-' in done(plan)
        assert held() == after

        retired = f"{FOURTH} is empty and stopped"
        assert retired in done(run("playbooks/scale.yml", RETIRE, with_fourth))
        assert held() == before
        service = connect(FOURTH).service("kafka")
        assert not service.is_running
        assert not service.is_enabled
        assert retired in done(run("playbooks/scale.yml", RETIRE, with_fourth))

        connect(FOURTH).check_output("systemctl start kafka")
        done(run("playbooks/scale.yml", RATE, with_fourth))
        assert held()[4] == after[4]
        kill(FOURTH, "kafka")
        connect(FOURTH).check_output("systemctl stop kafka")
        done(run("playbooks/scale.yml", RATE))
        assert held() == before
        eventually(whole, within=60, what="every replica is in sync")
    assert not traffic.failed
