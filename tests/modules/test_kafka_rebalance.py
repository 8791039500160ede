"""kafka_rebalance moves partitions between three real brokers."""

import contextlib
import uuid

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import UnknownTopicOrPartitionError

# Bytes in the topic that is moved, and a throttle with which the move does not end during a test.
SIZE, SLOW = 6_000_000, 1_000


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
    """A topic with messages in six partitions, with two replicas each."""
    name = f"topic-{uuid.uuid4().hex[:8]}"
    servers = three_brokers.bootstrap_servers.split(",")
    made = run_module(
        "kafka_topic", bootstrap_servers=servers, name=name, partitions=6, replication_factor=2
    )
    assert not made["failed"], made
    assert made["changed"], made
    producer = KafkaProducer(bootstrap_servers=servers, acks="all")
    for number in range(SIZE // 10_000):
        producer.send(name, partition=number % 6, value=number.to_bytes(10_000, "big"))
    producer.flush()
    producer.close()
    return name


@pytest.fixture(autouse=True)
def only_our_topics(admin):
    """Delete topics of other tests, which may need all three brokers or a certain one."""
    if topics := admin.list_topics():
        # A broker that learns of a deletion late still lists the topic.
        with contextlib.suppress(UnknownTopicOrPartitionError):
            admin.delete_topics(topics)


def throttles(admin, topic):
    """All throttling settings of brokers and of the topic."""
    brokers = [
        ConfigResource(ConfigResourceType.BROKER, str(broker["broker_id"]))
        for broker in admin.describe_cluster()["brokers"]
    ]
    topics = [ConfigResource(ConfigResourceType.TOPIC, topic)]
    found = admin.describe_configs(brokers + topics)
    return [
        (key, setting["value"])
        for settings in (*found["broker"].values(), *found["topic"].values())
        for key, setting in settings.items()
        if "throttled" in key
    ]


def rates(admin, topic):
    return {value for key, value in throttles(admin, topic) if key.endswith(".rate")}


def records(three_brokers, topic):
    """The number of records that can be read."""
    consumer = KafkaConsumer(bootstrap_servers=three_brokers.bootstrap_servers.split(","))
    places = [TopicPartition(topic, number) for number in range(6)]
    try:
        return sum(consumer.end_offsets(places).values())
    finally:
        consumer.close()


def test_a_broker_is_retired_and_used_again(rebalance, admin, topic, three_brokers):
    planned = rebalance(retire=[2], check_mode=True)
    assert planned["changed"]
    assert planned["replicas"]["2"] > 0

    begun = rebalance(retire=[2], throttle=SLOW, wait=0)
    assert begun["remaining"] > 0
    assert throttles(admin, topic)
    # A later run without changes waits for the end of the move and removes the throttles.
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
    assert records(three_brokers, topic) == SIZE // 10_000


def test_the_throttle_can_be_changed_during_a_move(rebalance, admin, topic):
    assert rebalance(retire=[2], throttle=SLOW, wait=0)["remaining"] > 0
    assert rates(admin, topic) == {str(SLOW)}
    assert rebalance(retire=[2], throttle=2 * SLOW, wait=0)["remaining"] > 0
    assert rates(admin, topic) == {str(2 * SLOW)}
    # No limit at all.
    assert rebalance(retire=[2], throttle=0, wait=60)["remaining"] == 0
    assert not throttles(admin, topic)


def test_replicas_of_a_lost_broker_are_created_on_the_others(rebalance, topic, three_brokers):
    three_brokers.lose(2)
    try:
        done = rebalance(wait=60)
        assert done["remaining"] == 0
        assert done["replicas"] == {"0": 6, "1": 6}
        # A new client, whose metadata does not have the lost broker.
        with KafkaAdminClient(bootstrap_servers=three_brokers.bootstrap_servers) as admin:
            assert not throttles(admin, topic)
        assert records(three_brokers, topic) == SIZE // 10_000
    finally:
        three_brokers.start()


def test_brokers_are_not_retired_if_too_few_would_remain(rebalance, topic):
    refused = rebalance(retire=[1, 2])
    assert refused["failed"]
    assert refused["msg"] == (
        f"Nothing was moved: topic '{topic}' is to have 2 replicas, and there are 1 brokers for"
        " them: 0"
    )
