"""kafka_rebalance moves partitions off a broker and onto it, on three real brokers."""

import uuid

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

# Bytes in the topic that is moved, and a pace that takes a while for a third of them.
SIZE, SLOW = 6_000_000, 1_000_000


@pytest.fixture
def rebalance(run_module, three_brokers):
    def rebalance(**options):
        servers = three_brokers.bootstrap_servers.split(",")
        return run_module("kafka_rebalance", bootstrap_servers=servers, **options)

    return rebalance


@pytest.fixture
def admin(three_brokers):
    with KafkaAdminClient(bootstrap_servers=three_brokers.bootstrap_servers) as admin:
        yield admin


@pytest.fixture
def topic(run_module, three_brokers):
    """Six partitions with two replicas each, and something in them."""
    name = f"topic-{uuid.uuid4().hex[:8]}"
    servers = three_brokers.bootstrap_servers.split(",")
    run_module(
        "kafka_topic", bootstrap_servers=servers, name=name, partitions=6, replication_factor=2
    )
    producer = KafkaProducer(bootstrap_servers=servers, acks="all")
    for number in range(SIZE // 10_000):
        producer.send(name, partition=number % 6, value=number.to_bytes(10_000, "big"))
    producer.flush()
    producer.close()
    return name


@pytest.fixture(autouse=True)
def only_our_topics(admin):
    """Others have topics that three brokers must hold, or that one must."""
    if topics := admin.list_topics():
        admin.delete_topics(topics)


def throttles(admin, topic):
    brokers = [ConfigResource(ConfigResourceType.BROKER, str(id_)) for id_ in range(3)]
    topics = [ConfigResource(ConfigResourceType.TOPIC, topic)]
    found = admin.describe_configs(brokers + topics)
    return [
        key
        for settings in (*found["broker"].values(), *found["topic"].values())
        for key in settings
        if "throttled" in key
    ]


def test_a_broker_is_retired_and_taken_back(rebalance, admin, topic, three_brokers):
    planned = rebalance(retire=[2], check_mode=True)
    assert planned["changed"]
    assert planned["replicas"]["2"] > 0

    begun = rebalance(retire=[2], throttle=SLOW, wait=0)
    assert begun["remaining"] > 0
    assert throttles(admin, topic)
    # Who comes later, even with nothing to add, carries it to its end and clears up.
    done = rebalance(retire=[2], wait=60)
    assert not done["changed"]
    assert done["remaining"] == 0
    assert done["replicas"] == {"0": 6, "1": 6, "2": 0}
    assert not throttles(admin, topic)

    back = rebalance(wait=60)
    assert back["remaining"] == 0
    assert back["replicas"] == {"0": 4, "1": 4, "2": 4}
    assert not throttles(admin, topic)
    assert not rebalance(wait=60)["changed"]

    consumer = KafkaConsumer(bootstrap_servers=three_brokers.bootstrap_servers.split(","))
    places = [TopicPartition(topic, number) for number in range(6)]
    assert sum(consumer.end_offsets(places).values()) == SIZE // 10_000
    consumer.close()


def test_a_broker_that_replicas_need_is_not_retired(rebalance, topic):
    refused = rebalance(retire=[1, 2])
    assert refused["failed"]
    assert refused["msg"] == (
        f"Nothing was moved: topic '{topic}' is to have 2 replicas, and there are 1 brokers for"
        " them: 0"
    )
