"""The Kafka modules on a secured cluster: they connect or say why not, and show no secrets."""

from __future__ import annotations

import json
import uuid

import pytest
from ansible_collections.baremetal_chat.platform.plugins.module_utils import kafka_admin
from secured_broker import PASSWORD

ADMIN = "admin"


@pytest.fixture
def admin(secured_broker):
    """Connection options of a super user."""
    secured_broker.make_user(ADMIN)
    return {
        "bootstrap_servers": [secured_broker.servers["SASL_SSL"]],
        "security_protocol": "SASL_SSL",
        "ca_file": str(secured_broker.authority.file),
        "sasl_username": ADMIN,
        "sasl_password": PASSWORD,
        "timeout": 10,
    }


@pytest.fixture
def name():
    return f"name-{uuid.uuid4().hex[:8]}"


def test_all_modules_work_over_tls_with_a_password(run_module, admin, name):
    assert run_module("kafka_topic", **admin, name=name)["changed"]
    assert run_module("kafka_probe", **admin, topic=name)["text"] == "Hello, World"
    assert name in run_module("kafka_topic_info", **admin)["topics"]
    assert run_module("kafka_cluster_info", **admin)["silent"] == {}
    assert not run_module("kafka_rebalance", **admin)["failed"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sasl_password": "battery staple"}, "refuses sasl_username='admin': the password in"),
        ({"ca_file": None}, "has a certificate of an authority that is not trusted"),
        ({"security_protocol": "PLAINTEXT"}, "speaks TLS, and security_protocol='PLAINTEXT'"),
        ({"security_protocol": "SSL"}, "demands a user and a password (SASL: SCRAM-SHA-512)"),
        ({"sasl_mechanism": "PLAIN"}, "does not take sasl_mechanism='PLAIN'"),
    ],
)
def test_a_refusal_names_address_value_and_remedy(run_module, admin, wrong, words, monkeypatch):
    # Enough time on a busy machine.
    monkeypatch.setattr(kafka_admin, "EXPLAIN_SECONDS", 20)
    answer = run_module("kafka_topic_info", **admin | wrong | {"timeout": 1})
    (server,) = admin["bootstrap_servers"]
    assert answer["failed"]
    assert answer["msg"].startswith(
        f"No Kafka broker answered at {server} within 1 s: {server} {words}"
    )
    assert "staple" not in json.dumps(answer)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ca_file": "/nonexistent"}, "ca_file='/nonexistent': give a file with certificates"),
        ({"ca_file": __file__}, f"ca_file='{__file__}': give a file with certificates in PEM"),
        (
            {"sasl_password": None},
            "sasl_password is empty: security_protocol='SASL_SSL' needs a user and a password",
        ),
        (
            {"key_file": "/nonexistent"},
            "certificate_file='': give a certificate in PEM, and in key_file='/nonexistent' its",
        ),
    ],
)
def test_wrong_options_are_refused_before_connecting(run_module, admin, wrong, words):
    answer = run_module("kafka_topic_info", **admin | wrong)
    assert answer["failed"]
    assert answer["msg"].startswith(words), answer["msg"]


def test_missing_rights_are_named(run_module, admin, secured_broker, name):
    secured_broker.make_user(name)
    answer = run_module("kafka_topic", **admin | {"sasl_username": name}, name=name)
    assert answer["failed"]
    assert f"sasl_username='{name}' lacks a right" in answer["msg"], answer["msg"]
