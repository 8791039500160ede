"""kafka_user creates users who can log in, changes only what differs, and shows no secret."""

from __future__ import annotations

import json
import time
import uuid

import pytest
from kafka import KafkaAdminClient
from secured_broker import PASSWORD

from chat.relay.refusal import explain
from chat.relay.security import Security

FIRST, SECOND = "battery-staple", "tape-measure"


@pytest.fixture
def name():
    return f"user-{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=["SASL_SSL", "PLAINTEXT", "SSL"])
def declare(request, run_module, secured_broker):
    """Declares a user, over listeners where passwords can be tried and over one where not."""
    secured_broker.make_user("admin")
    connect = {
        "bootstrap_servers": [secured_broker.servers[request.param]],
        "security_protocol": request.param,
    }
    if request.param != "PLAINTEXT":
        connect["ca_file"] = str(secured_broker.authority.file)
    if request.param == "SSL":
        # The first server does not respond, like one in an unreachable network.
        connect["login_servers"] = ["127.0.0.1:1", secured_broker.servers["SASL_SSL"]]
    if request.param == "SASL_SSL":
        connect |= {"sasl_username": "admin", "sasl_password": PASSWORD}

    def declare(name, **options):
        answer = run_module("kafka_user", **connect, name=name, timeout=10, **options)
        told = json.dumps({key: answer[key] for key in answer if key != "invocation"})
        assert not any(secret in told for secret in (FIRST, SECOND, PASSWORD))
        return answer

    declare.tries_passwords = request.param != "PLAINTEXT"
    return declare


@pytest.fixture
def logs_in(secured_broker):
    """Returns whether a user can log in with a password, whatever rights they have.

    The broker learns of a new password a moment after it is written, so a refusal of the `new` one
    counts only if it lasts.
    """

    def logs_in(name, password, new=False):
        deadline = time.monotonic() + 20
        while not (known := tries(name, password)) and new and time.monotonic() < deadline:
            time.sleep(0.1)
        return known

    def tries(name, password):
        told = explain(
            [secured_broker.servers["SASL_SSL"]],
            Security(
                security_protocol="SASL_SSL",
                ca_file=str(secured_broker.authority.file),
                sasl_username=name,
                sasl_password=password,
            ),
            seconds=20,
        )
        assert not told or "refuses sasl_username" in told
        return not told

    return logs_in


def test_a_new_user_can_log_in(declare, name, logs_in):
    answer = declare(name, password=FIRST)
    assert answer["changed"], answer
    assert answer["user"] == {"iterations": 8192}
    assert answer["diff"] == {
        "before": {},
        "after": {"iterations": 8192, "password": "as declared"},
    }
    assert logs_in(name, FIRST, new=True)
    assert not logs_in(name, SECOND)


def test_a_password_is_changed_only_if_it_differs_or_cannot_be_tried(declare, name, logs_in):
    declare(name, password=FIRST)
    again = declare(name, password=FIRST)
    assert again["changed"] == (not declare.tries_passwords)
    other = declare(name, password=SECOND)
    assert other["changed"]
    assert other["diff"]["before"]["password"] == (
        "another one" if declare.tries_passwords else "not known"
    )
    assert logs_in(name, SECOND, new=True)
    assert not logs_in(name, FIRST)


def test_update_password_on_create_keeps_existing_passwords(declare, name, logs_in):
    only = {"update_password": "on_create"}
    assert declare(name, password=FIRST, **only)["changed"]
    assert not declare(name, password=SECOND, **only)["changed"]
    assert logs_in(name, FIRST, new=True)


def test_other_iterations_are_a_change(declare, name):
    declare(name, password=FIRST)
    answer = declare(name, password=FIRST, iterations=4096)
    assert answer["changed"]
    assert answer["user"] == {"iterations": 4096}


def test_check_mode_changes_nothing(declare, name, logs_in):
    assert declare(name, password=FIRST, check_mode=True)["changed"]
    assert not logs_in(name, FIRST)
    declare(name, password=FIRST)
    assert declare(name, password=SECOND, check_mode=True)["changed"]
    assert declare(name, state="absent", check_mode=True)["changed"]
    assert logs_in(name, FIRST, new=True)


def test_a_removed_user_cannot_log_in(declare, name, logs_in):
    declare(name, password=FIRST)
    answer = declare(name, state="absent")
    assert answer["changed"]
    assert answer["diff"] == {"before": {"mechanisms": ["SCRAM-SHA-512"]}, "after": {}}
    # The broker accepts the user until it has heard of the removal from ZooKeeper.
    deadline = time.monotonic() + 30
    while logs_in(name, FIRST):
        assert time.monotonic() < deadline, "the user can still log in"
    assert not declare(name, state="absent")["changed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a=b", "password": FIRST}, "name='a=b': give a name without ',' and '='"),
        ({"name": "ada", "password": ""}, "password of user 'ada' is empty: give one"),
        ({"name": "ada"}, "state is present but all of the following are missing: password"),
        (
            {"name": "ada", "password": FIRST, "iterations": 100},
            "iterations=100: give 4096 to 16384",
        ),
    ],
)
def test_wrong_options_are_refused_before_connecting(run_module, options, words):
    answer = run_module("kafka_user", bootstrap_servers=["127.0.0.1:1"], **options)
    assert answer["failed"]
    assert answer["msg"] == words


def test_changes_go_to_the_controller_whichever_broker_is_the_bootstrap_server(
    run_module, three_brokers, name
):
    """With ZooKeeper, other brokers refuse them, and kafka-python reports success."""
    for number, broker in enumerate(three_brokers.brokers * 2):
        answer = run_module(
            "kafka_user",
            bootstrap_servers=[broker.bootstrap_servers],
            name=f"{name}-{number}",
            password=FIRST,
        )
        assert answer["changed"], answer
    with KafkaAdminClient(bootstrap_servers=three_brokers.bootstrap_servers) as admin:
        users = admin.describe_user_scram_credentials()
    assert {f"{name}-{number}" for number in range(6)} <= users.keys()
