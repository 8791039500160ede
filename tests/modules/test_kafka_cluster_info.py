"""kafka_cluster_info tells who is there, and whether anything is in danger."""

import uuid

import pytest
from kafka.admin import KafkaAdminClient
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
    assert answer["brokers"] == [{"id": 0, "host": host, "port": int(port), "rack": None}]
    assert answer["controller"] == 0
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
