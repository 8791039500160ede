"""kafka_topic creates declared topics, changes only what differs, and refuses harmful changes."""

import time
import uuid

import pytest
from kafka import KafkaAdminClient
from kafka.errors import UnknownTopicOrPartitionError

NOBODY = "127.0.0.1:1"


@pytest.fixture
def declare(run_module, kafka_broker):
    """Declares a topic on a real broker."""

    def declare(name, **options):
        return run_module(
            "kafka_topic", bootstrap_servers=[kafka_broker.bootstrap_servers], name=name, **options
        )

    return declare


@pytest.fixture
def name():
    return f"topic-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def topics_of(kafka_broker):
    """Returns the names of all topics, from the broker."""

    def topics():
        with KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap_servers) as admin:
            return admin.list_topics()

    return topics


def test_a_new_topic_is_reported_when_brokers_know_it(declare, name, monkeypatch):
    wait, ask = KafkaAdminClient.wait_for_topics, KafkaAdminClient.describe_topics
    unknown = []

    def wait_for_topics(admin, topics, timeout_ms):
        wait(admin, topics, timeout_ms)
        # The next query goes to a broker that does not know the topic yet.
        unknown.append({"error_code": UnknownTopicOrPartitionError.errno})

    def describe_topics(admin, topics=None):
        return [unknown.pop()] if unknown else ask(admin, topics)

    monkeypatch.setattr(KafkaAdminClient, "wait_for_topics", wait_for_topics)
    monkeypatch.setattr(KafkaAdminClient, "describe_topics", describe_topics)
    made = declare(name, partitions=2)
    assert made["changed"]
    assert made["topic"]["partitions"] == 2


def test_a_missing_topic_is_created_as_declared(declare, name, topics_of):
    answer = declare(
        name, partitions=3, replication_factor=1, config={"retention.ms": 1000, "preallocate": True}
    )
    assert answer["changed"], answer
    assert answer["topic"] == {
        "partitions": 3,
        "replication_factor": 1,
        "config": {"preallocate": "true", "retention.ms": "1000"},
    }
    assert name in topics_of()


def test_declaring_it_again_changes_nothing(declare, name):
    options = {
        "partitions": 2,
        "config": {"cleanup.policy": ["compact", "delete"], "preallocate": True},
    }
    declare(name, **options)
    answer = declare(name, **options)
    assert not answer["changed"]
    assert answer["diff"]["before"] == answer["diff"]["after"]


def test_several_topics_are_declared_at_once(run_module, kafka_broker, name, topics_of):
    def declare(*topics, **options):
        servers = [kafka_broker.bootstrap_servers]
        return run_module("kafka_topic", bootstrap_servers=servers, topics=topics, **options)

    first, second = f"{name}-1", f"{name}-2"
    answer = declare({"name": first}, {"name": second, "partitions": 2})
    assert answer["changed"], answer
    assert answer["topics"][second]["partitions"] == 2
    assert {first, second} <= set(topics_of())
    grown = declare({"name": first}, {"name": second, "partitions": 3})
    assert grown["changed"]
    assert grown["diff"]["before"][first] == grown["diff"]["after"][first]
    assert grown["diff"]["after"][second]["partitions"] == 3
    assert not declare({"name": first}, {"name": second, "partitions": 3})["changed"]
    refused = declare({"name": first}, {"name": second, "partitions": 1})
    assert refused["msg"].startswith(f"Topic '{second}' has 3 partitions"), refused["msg"]


def test_partitions_can_be_added(declare, name):
    declare(name, partitions=1)
    answer = declare(name, partitions=4)
    assert answer["changed"]
    assert answer["topic"]["partitions"] == 4


def test_fewer_partitions_are_refused(declare, name):
    declare(name, partitions=4)
    answer = declare(name, partitions=3)
    assert answer["failed"]
    assert answer["msg"] == (
        f"Topic '{name}' has 4 partitions and cannot shrink to 3: declare at least 4, or make"
        " another topic"
    )


def test_only_settings_that_differ_are_changed(declare, name):
    declare(name, config={"retention.ms": 1000, "segment.ms": 2000})
    answer = declare(name, config={"retention.ms": 3000})
    assert answer["changed"]
    assert answer["topic"]["config"] == {"retention.ms": "3000", "segment.ms": "2000"}


def test_a_setting_equal_to_the_default_is_still_set(declare, name):
    """Otherwise the topic would follow the next change of the broker's default."""
    declare(name)
    assert declare(name, config={"cleanup.policy": "delete"})["changed"]


def test_the_diff_shows_before_and_after(declare, name):
    declare(name, config={"retention.ms": 1000})
    diff = declare(name, partitions=2, config={"retention.ms": 3000})["diff"]
    assert diff["before"]["partitions"] == 1
    assert diff["before"]["config"] == {"retention.ms": "1000"}
    assert diff["after"]["partitions"] == 2
    assert diff["after"]["config"] == {"retention.ms": "3000"}


def test_check_mode_reports_a_new_topic_and_creates_none(declare, name, topics_of):
    answer = declare(name, partitions=2, check_mode=True)
    assert answer["changed"]
    assert answer["topic"] == {"partitions": 2, "config": {}}
    assert name not in topics_of()


def test_check_mode_reports_a_change_and_makes_none(declare, name):
    declare(name)
    predicted = declare(name, partitions=2, config={"retention.ms": 1000}, check_mode=True)
    made = declare(name, partitions=2, config={"retention.ms": 1000})
    assert made["changed"]
    assert predicted["diff"] == made["diff"]


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"replication_factor": 3}, "replication factor: 3 larger than available brokers: 1"),
        ({"config": {"retention.msec": 1}}, "Unknown topic config name: retention.msec"),
        ({"config": {"retention.ms": "soon"}}, "Invalid value soon for configuration retention.ms"),
        ({"partitions": 0}, "partitions"),
    ],
)
def test_refusals_of_brokers_are_quoted(declare, name, options, reason, check_mode):
    answer = declare(name, check_mode=check_mode, **options)
    assert answer["failed"]
    assert name in answer["msg"]
    assert reason.lower() in answer["msg"].lower()


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    ("setting", "value"), [("retention.msec", 1), ("min.insync.replicas", "two")]
)
def test_a_wrong_setting_of_an_existing_topic_is_refused(declare, name, setting, value, check_mode):
    declare(name)
    answer = declare(name, config={setting: value}, check_mode=check_mode)
    assert answer["failed"]
    assert setting in answer["msg"]


def test_more_replicas_than_brokers_are_refused(declare, name):
    declare(name)
    answer = declare(name, replication_factor=2)
    assert answer["failed"]
    assert "is to have 2 replicas, and there are 1 brokers" in answer["msg"]


@pytest.fixture
def declare_to_three(run_module, three_brokers):
    servers = three_brokers.bootstrap_servers.split(",")

    def declare(name, **options):
        return run_module("kafka_topic", bootstrap_servers=servers, name=name, **options)

    return declare


def test_replicas_are_added_and_removed(declare_to_three, name, three_brokers):
    declare_to_three(name, partitions=3, replication_factor=1)
    predicted = declare_to_three(name, partitions=3, replication_factor=3, check_mode=True)
    made = declare_to_three(name, partitions=3, replication_factor=3)
    assert made["changed"], made
    assert predicted["diff"] == made["diff"]
    with KafkaAdminClient(bootstrap_servers=three_brokers.bootstrap_servers) as admin:
        [topic] = admin.describe_topics([name])
        assert [sorted(p["isr_nodes"]) for p in topic["partitions"]] == [[0, 1, 2]] * 3
    assert not declare_to_three(name, partitions=3, replication_factor=3)["changed"]
    assert declare_to_three(name, partitions=3, replication_factor=2)["changed"]


def test_new_partitions_get_as_many_replicas_as_the_old(declare_to_three, name, three_brokers):
    # Brokers learn of new partitions at different times, so one topic would prove little.
    names = [f"{name}-{number}" for number in range(8)]
    for topic in names:
        declare_to_three(topic, partitions=1, replication_factor=1)
    held = {}
    deadline = time.monotonic() + 60
    for topic in names:
        # If the queried broker does not know the topic yet, the module fails to create it.
        while declare_to_three(topic, partitions=12, replication_factor=3)["failed"]:
            assert time.monotonic() < deadline
    with KafkaAdminClient(bootstrap_servers=three_brokers.bootstrap_servers) as admin:
        while held != dict.fromkeys(names, [3] * 12):
            assert time.monotonic() < deadline, held
            held = {
                topic["name"]: [
                    len(partition["replica_nodes"]) for partition in topic["partitions"]
                ]
                for topic in admin.describe_topics(names)
            }


# With the cluster's min.insync.replicas, and with the topic's own.
@pytest.mark.parametrize("config", [{}, {"min.insync.replicas": 2}])
def test_fewer_replicas_than_must_be_in_sync_are_refused(declare_to_three, name, config):
    declare_to_three(name, replication_factor=2, config=config)
    answer = declare_to_three(name, replication_factor=1)
    assert "has min.insync.replicas 2 and cannot do with 1 replicas" in answer["msg"]
    lowered = {"min.insync.replicas": 1}
    assert declare_to_three(name, replication_factor=1, config=lowered)["changed"]


def test_an_existing_topic_is_not_created_again_if_a_broker_does_not_know_it(
    declare, name, monkeypatch
):
    declare(name, partitions=2)
    answers = [[{"name": name, "error_code": UnknownTopicOrPartitionError.errno}]]
    asked = KafkaAdminClient.describe_topics

    def as_told(self, topics=None):
        return answers.pop() if answers else asked(self, topics)

    monkeypatch.setattr(KafkaAdminClient, "describe_topics", as_told)
    answer = declare(name, partitions=2, config={"retention.ms": 1000})
    assert not answers
    assert answer["changed"], answer
    assert answer["topic"]["config"] == {"retention.ms": "1000"}


def test_without_a_broker_the_message_names_the_bootstrap_servers(run_module, name):
    answer = run_module("kafka_topic", bootstrap_servers=[NOBODY], name=name, timeout=1)
    assert answer["failed"]
    assert answer["msg"].startswith(f"No Kafka broker answered at {NOBODY} within 1 s")
