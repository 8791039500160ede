"""A listener's name always has the same protocol. After a move, each has its declared port."""

from collections.abc import Callable
from typing import Any

import pytest

DECLARED: dict[str, dict[str, Any]] = {
    "INTERNAL": {"port": 9091, "bind_address": "192.0.2.11"},
    "CLIENT": {"port": "9092", "advertised_host": "broker.example.org", "advertised_port": 19092},
    "CLUSTER": {"port": 9093},
    "PARTNERS": {"port": 9099, "protocol": "SSL"},
}
STAGES = ["plaintext", "prepared", "moved", "tls"]
Listeners = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def kafka_listeners(load_filter: Callable[..., Listeners]) -> Listeners:
    return load_filter("kafka_listeners")


def at(
    kafka_listeners: Listeners, stage: str, security: str = "tls", newer: str = "tls"
) -> dict[str, dict[str, Any]]:
    return kafka_listeners(DECLARED, security, stage, "192.0.2.11", 100, newer)


def test_a_listener_name_has_the_same_protocol_at_all_stages(kafka_listeners: Listeners) -> None:
    spoken: dict[str, set[str]] = {}
    for security in ("plaintext", "tls"):
        for stage in set(STAGES) - ({"plaintext"} if security == "plaintext" else set()):
            for name, listener in at(kafka_listeners, stage, security).items():
                spoken.setdefault(name, set()).add(listener["protocol"])
        assert {len(protocols) for protocols in spoken.values()} == {1}
        assert spoken["INTERNAL"] == {"PLAINTEXT"}
        assert spoken["INTERNAL_TLS"] == spoken["CLIENT_TLS"] == {"SSL"}
        assert spoken["CLUSTER_TLS"] == {"SASL_SSL"}


def test_no_two_listeners_share_a_port(kafka_listeners: Listeners) -> None:
    for stage in STAGES:
        for newer in ("plaintext", "tls"):
            listeners = at(kafka_listeners, stage, newer=newer).values()
            ports = [listener["port"] for listener in listeners]
            assert len(set(ports)) == len(ports)


def test_each_stage_has_the_listeners_that_adjacent_stages_use(
    kafka_listeners: Listeners,
) -> None:
    names = {stage: set(at(kafka_listeners, stage)) for stage in STAGES}
    assert names["plaintext"] == set(DECLARED)
    assert names["prepared"] == names["moved"] == names["plaintext"] | names["tls"]
    assert names["tls"] == {f"{name}_TLS" for name in DECLARED}


def test_interim_ports_are_advertised_as_well(kafka_listeners: Listeners) -> None:
    advertised = {
        stage: at(kafka_listeners, stage)["CLIENT_TLS"]["advertised"] for stage in ("moved", "tls")
    }
    assert advertised == {"moved": "broker.example.org:19192", "tls": "broker.example.org:19092"}
    assert at(kafka_listeners, "prepared")["INTERNAL"] == {
        "protocol": "PLAINTEXT",
        "bind_address": "192.0.2.11",
        "port": 9091,
        "advertised": "192.0.2.11:9091",
    }


@pytest.mark.parametrize(
    ("newer", "before", "suffix"), [("tls", "plaintext", ""), ("plaintext", "tls", "_TLS")]
)
def test_new_listeners_do_not_take_ports_of_existing_ones(
    kafka_listeners: Listeners, newer: str, before: str, suffix: str
) -> None:
    """In both directions. So clients of the existing listeners need no new settings."""
    own = at(kafka_listeners, before)
    for stage in ("prepared", "moved"):
        both = at(kafka_listeners, stage, newer=newer)
        assert {name: both[name]["port"] for name in own} == {
            name: listener["port"] for name, listener in own.items()
        }
        came = {name for name in both if name.endswith("_TLS") != (suffix == "_TLS")}
        assert {both[name]["port"] for name in came} == {9191, 9192, 9193, 9199}


def test_protocols_that_a_site_sets_itself_are_kept(kafka_listeners: Listeners) -> None:
    assert at(kafka_listeners, "plaintext", "plaintext")["PARTNERS"]["protocol"] == "SSL"


@pytest.mark.parametrize("port", [None, "", "http", -1, 1.5])
def test_an_invalid_port_becomes_0_which_the_role_refuses(
    kafka_listeners: Listeners, port: object
) -> None:
    (listener,) = kafka_listeners({"CLUSTER": {"port": port}}, "tls", "tls", "a").values()
    assert listener["port"] == 0
