"""kafka_probe writes a message and reads it back, or says why it cannot."""

import uuid

import pytest


@pytest.fixture
def probe(run_module, kafka_broker):
    def probe(**options):
        return run_module(
            "kafka_probe", bootstrap_servers=[kafka_broker.bootstrap_servers], timeout=10, **options
        )

    return probe


@pytest.fixture
def topic(run_module, kafka_broker):
    name = f"topic-{uuid.uuid4().hex[:8]}"
    run_module("kafka_topic", bootstrap_servers=[kafka_broker.bootstrap_servers], name=name)
    return name


def test_a_written_message_is_read_back_from_its_offset(probe, topic):
    answers = [probe(topic=topic, text=text) for text in ("first", "wörld")]
    assert [(a["text"], a["partition"], a["offset"]) for a in answers] == [
        ("first", 0, 0),
        ("wörld", 0, 1),
    ]
    assert answers[0]["milliseconds"] > 0


def test_a_missing_topic_is_named_and_not_created(probe):
    name = f"topic-{uuid.uuid4().hex[:8]}"
    assert probe(topic=name)["msg"].endswith(f": topic {name} does not exist")
    assert probe(topic=name)["failed"]


def test_without_a_broker_the_message_names_the_bootstrap_servers(run_module):
    answer = run_module("kafka_probe", bootstrap_servers=["127.0.0.1:1"], topic="t", timeout=1)
    assert answer["msg"].startswith("No Kafka broker answered at 127.0.0.1:1 within 1 s")
