"""Alert rules: they can be parsed, and each leads to a paragraph that says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for path in sorted((ROOT / "monitoring").glob("*-alerts.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
}


@pytest.mark.parametrize("name", RULES)
def test_an_alert_asks_a_question_that_prometheus_understands(name: str) -> None:
    assert promql_parser.parse(RULES[name]["expr"])
    assert RULES[name]["labels"]["severity"] in ("warning", "critical")


@pytest.mark.parametrize("name", RULES)
def test_an_alert_says_what_happened_and_leads_to_what_to_do(name: str) -> None:
    annotations = RULES[name]["annotations"]
    page, _, anchor = annotations["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == name.lower()
    assert name in headings
    assert annotations["summary"].endswith(".")


def test_there_are_alerts() -> None:
    assert len(RULES) > 10
