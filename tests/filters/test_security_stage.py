"""The stage of a cluster that moves to TLS or back, and the remaining rolling restarts."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

STAGES = ["plaintext", "prepared", "moved", "tls"]
MAP = "listener.security.protocol.map=INTERNAL"
USED = "inter.broker.listener.name=INTERNAL"
BROKERS = {
    "": [],
    "plaintext": [MAP + ":PLAINTEXT,CLIENT:PLAINTEXT", USED],
    "prepared": [MAP + ":PLAINTEXT,INTERNAL_TLS:SSL", USED],
    "moved": [MAP + ":PLAINTEXT,INTERNAL_TLS:SSL", USED + "_TLS"],
    "tls": [MAP + "_TLS:SSL", USED + "_TLS"],
}
KEYS = "ssl.keyStore.location=/etc/zookeeper/host.pem"
MEMBERS = {
    "": [],
    "plaintext": ["clientPort=2181", "server.1=192.0.2.11:2888:3888"],
    "prepared": ["clientPort=2181", KEYS, "sslQuorum=false"],
    "moved": ["clientPort=2181", KEYS, "sslQuorum=true"],
    "tls": ["secureClientPort=2181", "sslQuorum=true"],
}


@pytest.fixture
def filters(load_filter: Callable[..., Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    names = ("broker_stage", "member_stage", "stage_of_all", "security_path", "newer_listeners")
    return {name: load_filter("security_stage", name) for name in names}


@pytest.mark.parametrize("stage", BROKERS)
def test_the_stage_is_read_from_files(filters: dict[str, Any], stage: str) -> None:
    assert filters["broker_stage"](BROKERS[stage]) == stage
    assert filters["member_stage"](MEMBERS[stage]) == stage


def test_a_member_with_an_additional_tls_port_is_not_considered_moving(
    filters: dict[str, Any],
) -> None:
    """Before zookeeper_security existed, sites could set such a port in zookeeper_config."""
    for own in (
        ["secureClientPort=2281"],
        ["ssl.keyStore.location=/srv/keys.pem", "sslQuorum=true"],
    ):
        assert filters["member_stage"](["clientPort=2181", *own]) == "plaintext"


@pytest.mark.parametrize(("one", "next_one"), list(pairwise(STAGES)))
def test_an_interrupted_step_is_completed_in_either_direction(
    filters: dict[str, Any], one: str, next_one: str
) -> None:
    mixed = [one, next_one, "", one]
    assert filters["stage_of_all"](mixed, "tls") == next_one
    assert filters["stage_of_all"](mixed, "plaintext") == one
    assert filters["stage_of_all"](["", ""], "tls") == ""


@pytest.mark.parametrize("goal", ["plaintext", "tls"])
@pytest.mark.parametrize(("port", "newer"), [(9191, "tls"), (8991, "plaintext")])
def test_the_newer_listeners_stay_the_same_when_the_goal_changes(
    filters: dict[str, Any], goal: str, port: int, newer: str
) -> None:
    both = [f"advertised.listeners=INTERNAL://a:9091,CLIENT://a:9092,INTERNAL_TLS://a:{port}"]
    arrived = ["advertised.listeners=INTERNAL_TLS://a:9091,CLIENT_TLS://a:9092"]
    assert filters["newer_listeners"]([[], arrived, both], goal) == newer
    # While there is only one protocol, the newer listeners are those of the goal.
    assert filters["newer_listeners"]([[], arrived], goal) == goal


def walked(filters: dict[str, Any], security: str, zookeeper: str, kafka: str) -> list[str]:
    steps = filters["security_path"](zookeeper, kafka, security)
    assert [step["number"] for step in steps] == list(range(7 - len(steps), 7))
    return [f"{step['moves']} {step[step['moves']]}" for step in steps]


def test_zookeeper_accepts_tls_before_brokers_use_it_and_plaintext_while_brokers_do(
    filters: dict[str, Any],
) -> None:
    whole = walked(filters, "tls", "plaintext", "plaintext")
    assert whole == [
        "zookeeper prepared",
        "zookeeper moved",
        "kafka prepared",
        "kafka moved",
        "kafka tls",
        "zookeeper tls",
    ]
    # From any stage, the remaining steps are the same. The way back has the same steps, reversed.
    assert walked(filters, "tls", "moved", "prepared") == whole[3:]
    assert walked(filters, "tls", "tls", "tls") == []
    assert walked(filters, "plaintext", "moved", "moved") == [
        "kafka prepared",
        "kafka plaintext",
        "zookeeper prepared",
        "zookeeper plaintext",
    ]


def test_stages_that_cannot_occur_together_are_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match="'plaintext' and the brokers at 'moved'"):
        filters["security_path"]("plaintext", "moved", "tls")
