"""kafka_cluster_info tells who is there, and whether anything is in danger."""

import uuid

import pytest
from kafka.admin import ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaConnectionError


@pytest.fixture
def cluster(run_module, kafka_broker):
    def cluster():
        return run_module(
            "kafka_cluster_info", bootstrap_servers=[kafka_broker.bootstrap_servers], timeout=10
        )

    return cluster


def test_brokers_and_the_controller_are_named(cluster, kafka_broker):
    answer = cluster()
    host, port = kafka_broker.bootstrap_servers.split(":")
    [broker] = answer["brokers"]
    assert broker["id"] == answer["controller"] == 0
    assert (broker["host"], broker["port"], broker["rack"]) == (host, int(port), None)
    assert not answer["changed"]


@pytest.fixture
def topic(run_module, kafka_broker):
    """Makes a topic with two partitions and gives their names."""

    def topic(**config):
        name = f"topic-{uuid.uuid4().hex[:8]}"
        run_module(
            "kafka_topic",
            bootstrap_servers=[kafka_broker.bootstrap_servers],
            name=name,
            partitions=2,
            config=config,
        )
        return {f"{name}-0", f"{name}-1"}

    return topic


def test_a_partition_with_all_replicas_in_sync_is_not_in_danger(cluster, topic):
    partitions, answer = topic(), cluster()
    for danger in ("under_replicated", "under_min_isr", "offline"):
        assert not partitions & set(answer[danger])


def test_a_partition_below_its_minimum_is_named(cluster, topic):
    assert topic(**{"min.insync.replicas": 2}) <= set(cluster()["under_min_isr"])


def test_a_partition_without_a_replica_to_spare_needs_its_broker(cluster, topic):
    partitions = topic()
    [broker] = cluster()["brokers"]
    assert partitions <= set(broker["needed_by"])


def test_each_broker_is_asked_itself(cluster, monkeypatch):
    """One that has died stays in the metadata until its session ends."""
    [broker] = cluster()["brokers"]
    assert broker["protocol_version"] == "3.9"
    assert not cluster()["silent"]

    def gone(admin, resources, **options):
        if resources and resources[0].resource_type == ConfigResourceType.BROKER:
            raise KafkaConnectionError("gone")
        return describe_configs(admin, resources, **options)

    describe_configs = KafkaAdminClient.describe_configs
    monkeypatch.setattr(KafkaAdminClient, "describe_configs", gone)
    answer = cluster()
    assert answer["silent"] == {"0": "KafkaConnectionError: gone"}
    assert answer["brokers"][0]["protocol_version"] is None


def test_without_a_broker_it_says_where_it_looked(run_module):
    answer = run_module("kafka_cluster_info", bootstrap_servers=["127.0.0.1:1"], timeout=1)
    assert answer["failed"]
    assert answer["msg"].startswith("No Kafka broker answered at 127.0.0.1:1 within 1 s")


def test_a_broker_that_has_just_gone_is_asked_no_more(cluster, monkeypatch):
    """Metadata names a dead broker until its session ends, and any broker may be asked."""
    describe_cluster = KafkaAdminClient.describe_cluster
    outcomes = iter([KafkaConnectionError("gone"), None])

    def describe(admin):
        if error := next(outcomes):
            raise error
        return describe_cluster(admin)

    monkeypatch.setattr(KafkaAdminClient, "describe_cluster", describe)
    assert cluster()["controller"] == 0
