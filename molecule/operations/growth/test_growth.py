"""A cluster grows from one host to three while clients write. It keeps its data."""

from collections import Counter

import pytest
from hosts import variable
from kafka import KafkaAdminClient, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka_clients import BROKERS, bootstrap, new_topic, settings_of, zookeeper_mode
from releases import OLD
from traffic import Traffic

from playbooks import assert_refused, run

FIRST = BROKERS[0]
BEFORE = {"kafka_distribution_version": OLD}
# Kafka creates this topic with the first consumer group.
OFFSETS = {"name": "__consumer_offsets", "partitions": 50}
LAYER = "playbooks/kafka.yml"


def consumer_in_group(topic: str) -> KafkaConsumer:
    return KafkaConsumer(
        bootstrap_servers=bootstrap(FIRST), group_id=topic, auto_offset_reset="earliest"
    )


@pytest.mark.timeout(1200)
def test_growing_from_one_host_to_three_fails_no_send_and_loses_nothing() -> None:
    with new_topic(partitions=3) as topic, Traffic(bootstrap(FIRST), topic) as traffic:
        place = TopicPartition(topic, 0)
        with consumer_in_group(topic) as consumer:
            consumer.assign([place])
            consumer.commit({place: OffsetAndMetadata(1, "", -1)})

        # Refused in one step: two replicas in sync would be required, and topics have one.
        assert_refused(
            LAYER, BEFORE, ["is 1 and would be 2", topic, OFFSETS["name"], "kafka_topics"]
        )
        topics = [*variable(FIRST, "kafka_topics"), {"name": topic, "partitions": 3}, OFFSETS]
        copied = {
            "kafka_config": {"min.insync.replicas": 1},
            "kafka_topics": [each | {"replication_factor": 3} for each in topics],
        }
        for playbook, variables in ((LAYER, copied), (LAYER, {}), ("playbooks/scale.yml", {})):
            done = run(playbook, BEFORE | variables)
            assert done.succeeded, done.said
        with consumer_in_group(topic) as consumer:
            assert consumer.committed(place) == 1
        assert sorted(map(zookeeper_mode, BROKERS)) == ["follower", "follower", "leader"]
        assert {settings_of(name)["min.insync.replicas"] for name in BROKERS} == {"2"}
        with KafkaAdminClient(bootstrap_servers=bootstrap()) as admin:
            partitions = [each for made in admin.describe_topics() for each in made["partitions"]]
        assert {len(each["isr_nodes"]) for each in partitions} == {3}
        led = Counter(each["leader_id"] for each in partitions)
        assert max(led.values()) - min(led.values()) <= 1, led
    assert not traffic.failed
    print(f"longest gap between acknowledgements: {traffic.longest_gap:.1f} s")
