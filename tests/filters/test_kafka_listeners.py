"""No listener changes its protocol under its name, and the one with TLS ends on the port it is
declared with."""

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


def test_a_name_keeps_its_protocol_through_all_stages(kafka_listeners: Listeners) -> None:
    spoken: dict[str, set[str]] = {}
    for security in ("plaintext", "tls"):
        for stage in set(STAGES) - ({"plaintext"} if security == "plaintext" else set()):
            for name, listener in at(kafka_listeners, stage, security).items():
                spoken.setdefault(name, set()).add(listener["protocol"])
        assert {len(protocols) for protocols in spoken.values()} == {1}
        assert spoken["INTERNAL"] == {"PLAINTEXT"}
        assert spoken["INTERNAL_TLS"] == spoken["CLIENT_TLS"] == {"SSL"}
        assert spoken["CLUSTER_TLS"] == {"SASL_SSL"}


def test_no_port_has_two_listeners(kafka_listeners: Listeners) -> None:
    for stage in STAGES:
        for newer in ("plaintext", "tls"):
            listeners = at(kafka_listeners, stage, newer=newer).values()
            ports = [listener["port"] for listener in listeners]
            assert len(set(ports)) == len(ports)


def test_each_stage_has_the_names_that_its_neighbours_use(kafka_listeners: Listeners) -> None:
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
def test_listeners_that_come_later_take_no_port_of_those_before(
    kafka_listeners: Listeners, newer: str, before: str, suffix: str
) -> None:
    """In either direction: clients of those before need not be told anything."""
    own = at(kafka_listeners, before)
    for stage in ("prepared", "moved"):
        both = at(kafka_listeners, stage, newer=newer)
        assert {name: both[name]["port"] for name in own} == {
            name: listener["port"] for name, listener in own.items()
        }
        came = {name for name in both if name.endswith("_TLS") != (suffix == "_TLS")}
        assert {both[name]["port"] for name in came} == {9191, 9192, 9193, 9199}


def test_a_site_keeps_the_protocols_that_it_has_by_settings(kafka_listeners: Listeners) -> None:
    assert at(kafka_listeners, "plaintext", "plaintext")["PARTNERS"]["protocol"] == "SSL"


@pytest.mark.parametrize("port", [None, "", "http", -1, 1.5])
def test_what_is_no_port_is_0_which_the_role_refuses(
    kafka_listeners: Listeners, port: object
) -> None:
    (listener,) = kafka_listeners({"CLUSTER": {"port": port}}, "tls", "tls", "a").values()
    assert listener["port"] == 0
