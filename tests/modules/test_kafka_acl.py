"""kafka_acl grants the declared operations, removes others, and leaves other ACLs alone."""

from __future__ import annotations

import uuid

import pytest

CHAT = ["READ", "WRITE", "DESCRIBE_CONFIGS"]


@pytest.fixture
def name():
    return f"name-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def declare(run_module, secured_broker, name):
    """Declare what a user may do on a topic of the same name."""

    def declare(*operations, **options):
        given = {"principal": f"User:{name}", "resource_name": name} | options
        return run_module(
            "kafka_acl",
            bootstrap_servers=[secured_broker.servers["PLAINTEXT"]],
            operations=list(operations),
            **given,
        )

    return declare


@pytest.fixture
def allowed(secured_broker, name):
    """The operations that the broker allows the user on a topic."""
    secured_broker.make_user(name)
    with secured_broker.admin() as admin:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
        admin.wait_for_topics([name])

    def allowed():
        with secured_broker.client(name) as client:
            (topic,) = client.describe_topics([name])
        return set(topic["authorized_operations"] or []) if not topic["error_code"] else set()

    return allowed


def test_a_user_may_do_only_what_is_declared(declare, allowed):
    assert allowed() == set()
    answer = declare(*CHAT)
    assert answer["changed"], answer
    assert answer["operations"] == sorted(CHAT)
    # READ and WRITE imply DESCRIBE.
    assert allowed() == {*CHAT, "DESCRIBE"}


def test_declaring_it_again_changes_nothing(declare):
    declare(*CHAT)
    assert not declare(*reversed(CHAT))["changed"]


def test_operations_that_are_not_declared_are_removed(declare, allowed):
    declare(*CHAT)
    answer = declare("READ")
    assert answer["changed"]
    assert answer["diff"] == {
        "before": {"operations": sorted(CHAT)},
        "after": {"operations": ["READ"]},
    }
    assert allowed() == {"READ", "DESCRIBE"}
    assert declare()["changed"]
    assert allowed() == set()
    assert not declare()["changed"]


def test_a_denial_wins(declare, allowed):
    declare("READ", "WRITE")
    assert declare("WRITE", permission="DENY")["changed"]
    assert allowed() == {"READ", "DESCRIBE"}


@pytest.mark.parametrize(
    "other",
    [
        {"principal": "User:somebody-else"},
        {"resource_name": "another-topic"},
        {"resource_type": "GROUP"},
        {"pattern_type": "PREFIXED"},
        {"host": "127.0.0.9"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_acls_are_left_alone(declare, other):
    declare("READ", **other)
    declare("READ")
    declare()
    assert not declare("READ", **other)["changed"]
    declare(**other)


def test_several_acls_are_set_at_once(run_module, secured_broker, name, allowed):
    def declare(*operations):
        own = {"principal": f"User:{name}", "resource_name": name, "operations": operations}
        other = {"principal": f"User:{name}", "resource_name": f"{name}-2", "operations": ["READ"]}
        servers = [secured_broker.servers["PLAINTEXT"]]
        return run_module("kafka_acl", bootstrap_servers=servers, acls=[own, other])

    assert declare(*CHAT)["changed"]
    assert allowed() == {*CHAT, "DESCRIBE"}
    assert not declare(*CHAT)["changed"]
    answer = declare("READ")
    assert answer["changed"]
    assert [acl["operations"] for acl in answer["diff"]["before"]["acls"]] == [
        sorted(CHAT),
        ["READ"],
    ]
    assert [acl["operations"] for acl in answer["diff"]["after"]["acls"]] == [["READ"], ["READ"]]
    assert allowed() == {"READ", "DESCRIBE"}


def test_check_mode_changes_nothing(declare, allowed):
    assert declare("READ", check_mode=True)["changed"]
    assert allowed() == set()


def test_acls_that_kafka_does_not_accept_are_refused_with_the_reason(declare, name):
    answer = declare("READ", resource_type="CLUSTER", resource_name="my-cluster")
    assert answer["failed"]
    whose = f"ACLs of User:{name} on CLUSTER my-cluster"
    assert f"{whose} cannot be made" in answer["msg"], answer["msg"]
    answer = declare("READ", principal="chat")
    assert answer["msg"] == "principal='chat': say User:NAME"


def test_options_of_one_acl_are_refused_beside_several(run_module, secured_broker, name):
    acl = {"principal": f"User:{name}", "resource_name": name, "operations": ["READ"]}
    servers = [secured_broker.servers["PLAINTEXT"]]
    answer = run_module("kafka_acl", bootstrap_servers=servers, acls=[acl], permission="DENY")
    assert answer["failed"]
    assert "mutually exclusive: acls|permission" in answer["msg"]


def test_a_cluster_without_an_authorizer_is_refused(run_module, kafka_broker, name):
    answer = run_module(
        "kafka_acl",
        bootstrap_servers=[kafka_broker.bootstrap_servers],
        principal=f"User:{name}",
        resource_name=name,
        operations=CHAT,
    )
    assert answer["failed"]
    assert "has no authorizer, and allows everything to everybody" in answer["msg"]
