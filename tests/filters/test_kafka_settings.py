"""Settings with which Kafka would not start are found with Kafka's own list of settings."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LIST = ROOT / "roles/kafka/files/settings.json"
KNOWN: dict[str, dict[str, str]] = json.loads(LIST.read_text())

Load = Callable[..., Callable[..., list[str]]]


def test_the_list_matches_the_archives_documentation(kafka_home: Path) -> None:
    program = f"import kafka_settings; print(kafka_settings.settings({str(kafka_home)!r}))"
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "script", capture_output=True, text=True
    )
    assert printed.returncode == 0, printed.stderr
    again = f"script/kafka_settings.py {kafka_home} writes it"
    assert LIST.read_text() == printed.stdout[:-1], again


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("log.retention.hours", [1, 2], "Kafka takes one int, not a list"),
        ("log.retention.hours", "soon", "write a whole number, at most 2147483647"),
        ("log.retention.hours", 1.5, "write a whole number, at most 2147483647"),
        ("log.retention.hours", True, "write a whole number, at most 2147483647"),
        ("log.retention.hours", None, "write a whole number, at most 2147483647"),
        ("log.segment.bytes", 3 * 2**30, "write a whole number, at most 2147483647"),
        ("offsets.commit.required.acks", 40000, "write a whole number, at most 32767"),
        ("auto.create.topics.enable", "no", "write true or false"),
        ("log.cleaner.min.cleanable.ratio", "half", "write a number"),
        ("principal.builder.class", ["A", "B"], "Kafka takes one class, not a list"),
        ("log.cleanup.policy", {"compact": True}, "write its keys out, as Kafka names them"),
        ("a.plugins", {"own": 1}, "write its keys out, as Kafka names them"),
    ],
)
def test_a_wrong_value_is_refused_with_the_remedy(
    name: str, value: Any, why: str, load_filter: Load
) -> None:
    refused = load_filter("kafka_settings", "kafka_settings_refused")
    assert refused({name: value}, KNOWN["broker"]) == [
        f"{name} is {'a mapping' if isinstance(value, dict) else repr(value)}: {why}"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log.retention.hours", 168),
        ("log.retention.hours", " -1 "),
        ("log.retention.ms", 3 * 2**30),
        ("auto.create.topics.enable", "TRUE"),
        ("auto.create.topics.enable", False),
        ("log.cleaner.min.cleanable.ratio", "5e-1"),
        ("log.cleaner.min.cleanable.ratio", 0.5),
        ("log.cleanup.policy", ["compact", "delete"]),
        ("max.connections.per.ip.overrides", ["host1:10", "host2:20"]),
        ("a.plugins.own", [1, 2]),
    ],
)
def test_values_that_kafka_accepts_are_accepted(name: str, value: Any, load_filter: Load) -> None:
    refused = load_filter("kafka_settings", "kafka_settings_refused")
    assert refused({name: value}, KNOWN["broker"]) == []


def test_an_unknown_setting_is_named_with_a_suggestion(
    load_filter: Load,
) -> None:
    unknown = load_filter("kafka_settings", "kafka_settings_unknown")
    settings = {
        "log.retention.hour": 1,
        "log.retention.hours": 1,
        "com.example.plugin": 1,
        "super.users": "User:admin",
        "listener.name.client.ssl.keystore.location": "/etc/kafka/keys",
    }
    assert unknown(settings, KNOWN["broker"]) == [
        "com.example.plugin",
        "log.retention.hour (did you mean log.retention.hours?)",
    ]
