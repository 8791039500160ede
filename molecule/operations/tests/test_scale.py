"""Partitions are spread over all brokers, and no broker is taken away that replicas need."""

import uuid
from collections import Counter
from contextlib import closing

from kafka import KafkaAdminClient
from kafka_clients import BROKERS, bootstrap, consume, produce

from playbooks import run

VALUES = [f"message {number}".encode() for number in range(100)]


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
