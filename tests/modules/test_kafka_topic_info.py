"""kafka_topic_info returns what is needed to create each topic again."""

import uuid


def test_a_topics_settings_and_replicas_are_returned(run_module, kafka_broker):
    servers, name = [kafka_broker.bootstrap_servers], f"topic-{uuid.uuid4().hex[:8]}"
    run_module(
        "kafka_topic",
        bootstrap_servers=servers,
        name=name,
        partitions=2,
        config={"retention.ms": 1000},
    )
    topics = run_module("kafka_topic_info", bootstrap_servers=servers)["topics"]
    assert topics[name] == {
        "config": {"retention.ms": "1000"},
        "replicas": {"0": [0], "1": [0]},
    }
