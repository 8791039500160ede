"""kafka_cluster_info reports brokers, the controller, and partitions in danger."""

import time
import uuid

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaConnectionError


@pytest.fixture
def cluster(run_module, kafka_broker):
    def cluster():
        return run_module(
            "kafka_cluster_info", bootstrap_servers=[kafka_broker.bootstrap_servers], timeout=10
        )

    return cluster


def test_brokers_and_the_controller_are_reported(cluster, kafka_broker):
    answer = cluster()
    host, port = kafka_broker.bootstrap_servers.split(":")
    [broker] = answer["brokers"]
    assert broker["id"] == answer["controller"] == 0
    assert (broker["host"], broker["port"], broker["rack"]) == (host, int(port), None)
    assert not answer["changed"]


@pytest.fixture
def topic(run_module, kafka_broker):
    """Creates a topic with two partitions; returns the partitions' names."""

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


def test_a_partition_below_min_insync_replicas_is_reported(cluster, topic):
    assert topic(**{"min.insync.replicas": 2}) <= set(cluster()["under_min_isr"])


def test_a_partition_with_no_spare_replica_needs_its_broker(cluster, topic):
    partitions = topic()
    [broker] = cluster()["brokers"]
    assert partitions <= set(broker["needed_by"])


def test_the_protocol_version_of_each_broker_is_reported(cluster):
    answer = cluster()
    assert [broker["protocol_version"] for broker in answer["brokers"]] == ["3.9"]
    assert not answer["silent"]


def test_a_broker_that_hangs_takes_no_longer_than_the_timeout(run_module, three_brokers):
    """At most twice: for a query that happens to go to this broker, and for the query to itself."""
    one, _, hung = three_brokers.brokers
    hung.pause()
    began = time.monotonic()
    try:
        answer = run_module(
            "kafka_cluster_info", bootstrap_servers=[one.bootstrap_servers], timeout=2
        )
        took = time.monotonic() - began
    finally:
        # Kill it: if its session has expired, it would notice only later, in another test.
        hung.kill()
        three_brokers.start()
    assert answer["silent"].keys() == {"2"}
    # The client's own timeout for one connection is longer.
    assert took < 10


def test_a_dead_broker_is_silent_until_its_session_ends_and_then_missing(run_module, three_brokers):
    servers = three_brokers.bootstrap_servers.split(",")
    pair, lonely = (f"topic-{uuid.uuid4().hex[:8]}" for _ in range(2))
    held = {pair: {0: [0, 1], 1: [1, 2]}, lonely: {0: [2]}}
    with KafkaAdminClient(bootstrap_servers=servers) as admin:
        admin.create_topics({name: {"assignments": brokers} for name, brokers in held.items()})
        admin.wait_for_topics([*held])

    def ask():
        return run_module("kafka_cluster_info", bootstrap_servers=servers, timeout=10)

    def ours(partitions):
        return {each for each in partitions if each.startswith((pair, lonely))}

    in_danger = {
        "offline": {f"{lonely}-0"},
        # Not the other partition: the last in-sync replica stays in the set when its broker dies.
        "under_replicated": {f"{pair}-1"},
        "under_min_isr": {f"{pair}-1", f"{lonely}-0"},
    }
    three_brokers.brokers[2].kill()
    try:
        # The metadata has the broker until its session ends.
        answer = ask()
        assert answer["silent"].keys() == {"2"}
        assert answer["brokers"][2]["protocol_version"] is None
        deadline = time.monotonic() + 60
        while answer["silent"] or in_danger != {kind: ours(answer[kind]) for kind in in_danger}:
            assert time.monotonic() < deadline, answer
            answer = ask()
        assert [broker["id"] for broker in answer["brokers"]] == [0, 1]
        assert ours(answer["brokers"][1]["needed_by"]) == {f"{pair}-0", f"{pair}-1"}
    finally:
        three_brokers.start()
        with KafkaAdminClient(bootstrap_servers=servers) as admin:
            admin.delete_topics([*held])


def test_without_a_broker_the_message_names_the_bootstrap_servers(run_module):
    answer = run_module("kafka_cluster_info", bootstrap_servers=["127.0.0.1:1"], timeout=1)
    assert answer["failed"]
    assert answer["msg"].startswith("No Kafka broker answered at 127.0.0.1:1 within 1 s")


def test_a_query_to_a_broker_that_has_just_died_is_repeated_elsewhere(cluster, monkeypatch):
    """The metadata has a dead broker until its session ends, so the client may choose it."""
    describe_cluster = KafkaAdminClient.describe_cluster
    outcomes = iter([KafkaConnectionError("gone"), None])

    def describe(admin):
        if error := next(outcomes):
            raise error
        return describe_cluster(admin)

    monkeypatch.setattr(KafkaAdminClient, "describe_cluster", describe)
    assert cluster()["controller"] == 0
