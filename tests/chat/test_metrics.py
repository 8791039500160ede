"""Alerts and the dashboard use only metrics that /metrics has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from conftest import ROOT, Replica, until
from prometheus_client.parser import text_string_to_metric_families

from chat.client import connect

MONITORING = ROOT / "monitoring"
DASHBOARD = json.loads((MONITORING / "chat-dashboard.json").read_text())
PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in DASHBOARD["panels"]}


def questions() -> Iterator[str]:
    for group in yaml.safe_load((MONITORING / "chat-alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in PANELS.values():
        yield from (one["expr"].replace("$__rate_interval", "5m") for one in panel["targets"])


@pytest.fixture
async def exposed(replica: Replica, kafka: dict[str, str]) -> dict[str, str]:
    """The metrics of a replica that has been used, by name, with their kinds."""
    server = await replica(kafka)
    async with connect(f"http://127.0.0.1:{server.port}/", "ada") as ada:
        await ada.send("lobby", "hello")
    families = text_string_to_metric_families(server.metrics_text().decode())
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        family.name + suffix: family.type
        for family in families
        for suffix in suffixes.get(family.type, ("",))
    }


async def test_whatever_is_asked_for_is_measured(exposed: dict[str, str]) -> None:
    asked = set(re.findall(r"\b(?:chat|process)_\w+", " ".join(questions())))
    assert len(asked) > 15
    assert asked <= exposed.keys()


async def test_counters_are_asked_for_their_rate_and_nothing_else_is(
    exposed: dict[str, str],
) -> None:
    for question in questions():
        rated = set(re.findall(r"(?:rate|increase)\((\w+)", question))
        counted = {
            name
            for name in re.findall(r"\b(?:chat|process)_\w+", question)
            if exposed[name] in ("counter", "histogram")
        }
        assert rated == counted, question


async def test_every_metric_is_in_the_document(exposed: dict[str, str]) -> None:
    document = (ROOT / "docs" / "operations" / "watching-the-chat.md").read_text()
    table = document.split("## Metrics")[1].split("\n## ")[0]
    documented = set(re.findall(r"`(chat_\w+)", table))
    ours = {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed if name.startswith("chat_")
    }
    assert documented == ours


async def test_lag_is_told_of_every_partition(replica: Replica, kafka: dict[str, str]) -> None:
    server = await replica(kafka)
    for partition in range(3):
        line = f'chat_relay_lag_records{{partition="{partition}"}} 0.0\n'
        await until(lambda line=line: line in server.metrics_text().decode())


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_asks_what_prometheus_understands_and_covers_no_other(title: str) -> None:
    panel = PANELS[title]
    for target in panel["targets"]:
        assert promql_parser.parse(target["expr"].replace("$__rate_interval", "5m"))
    place = panel["gridPos"]
    cells = {
        (x, y)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }
    for other in PANELS.values():
        at = other["gridPos"]
        if other is not panel:
            assert (at["x"], at["y"]) not in cells
    assert place["x"] + place["w"] <= 24
