"""Partitions are spread over all brokers, and no broker is taken away that replicas need."""

import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hosts import connect
from kafka import KafkaAdminClient
from kafka_clients import BROKERS, bootstrap, consume, new_topic, produce
from traffic import Traffic

from playbooks import inventory, run

VALUES = [f"message {number}".encode() for number in range(100)]
# The host of this scenario that is no broker.
FOURTH = "host4"


def held(admin: KafkaAdminClient) -> Counter[int]:
    """How many replicas each broker holds."""
    return Counter(
        broker
        for topic in admin.describe_topics()
        for partition in topic["partitions"]
        for broker in partition["replica_nodes"]
    )


def test_a_broker_that_holds_less_gets_its_share() -> None:
    topic = f"test-{uuid.uuid4()}"
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap())) as admin:
        admin.create_topics({topic: {"assignments": {number: [1, 2] for number in range(6)}}})
        admin.wait_for_topics([topic])
        produce(topic, via=BROKERS[0], values=VALUES)
        before = held(admin)
        assert before[3] < before[1]
        spread = run("playbooks/scale.yml")
        assert spread.succeeded, spread.said
        after = held(admin)
        assert max(after.values()) - min(after.values()) <= 1
        assert sum(after.values()) == sum(before.values())
        assert consume(topic, via=BROKERS[2], count=100) == VALUES
        admin.delete_topics([topic])


def test_a_broker_that_replicas_need_is_not_retired() -> None:
    refused = run("playbooks/scale.yml", {"kafka_retire": BROKERS[2]})
    assert not refused.succeeded
    assert "Nothing was moved: topic 'chat' is to have 3 replicas, and there are 2" in refused.said


@pytest.mark.timeout(900)
def test_a_broker_is_added_and_retired_while_clients_write(tmp_path: Path) -> None:
    fourth = {FOURTH: {"kafka_broker_id": 4, "kafka_rack": "a"}}
    with_fourth = inventory(tmp_path, {"kafka": fourth})
    slowly = {"kafka_move_rate": 1_000_000, "kafka_distribution_version": "3.9.1"}
    with (
        closing(KafkaAdminClient(bootstrap_servers=bootstrap())) as admin,
        new_topic(partitions=6) as topic,
        Traffic(bootstrap(), topic) as traffic,
    ):
        before = held(admin)
        added = run("playbooks/kafka.yml", slowly, with_fourth)
        assert added.succeeded, added.said
        spread = run("playbooks/scale.yml", slowly, with_fourth)
        assert spread.succeeded, spread.said
        after = held(admin)
        # One replica in each rack: what was broker 1's, the two of its rack share.
        assert abs(after[4] - after[1]) <= 1
        assert after[1] + after[4] == before[1]
        assert sum(after.values()) == sum(before.values())

        retired = run("playbooks/scale.yml", slowly | {"kafka_retire": FOURTH}, with_fourth)
        assert f"{FOURTH} holds nothing and is stopped" in retired.said, retired.said
        assert held(admin).keys() == {1, 2, 3}
    assert not traffic.failed
    service = connect(FOURTH).service("kafka")
    assert not service.is_running
    assert not service.is_enabled
