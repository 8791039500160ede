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


def answer(expression: promql_parser.Expr, series: dict[str, int]) -> float | None:
    """What Prometheus says, of the little that rules about absence are made of; None is silence.

    `series` says how many there are of each selector.
    """
    match expression:
        case promql_parser.ParenExpr():
            return answer(expression.expr, series)
        case promql_parser.NumberLiteral():
            return expression.val
        case promql_parser.Call() if expression.func.name == "vector":
            return answer(expression.args[0], series)
        case promql_parser.AggregateExpr() if str(expression.op) == "count":
            return series[str(expression.expr)] or None
        case promql_parser.BinaryExpr():
            left, right = answer(expression.lhs, series), answer(expression.rhs, series)
            match str(expression.op):
                case "or":
                    return right if left is None else left
                case "*":
                    return None if None in (left, right) else left * right
                case "<=":
                    return None if None in (left, right) or left > right else left
    raise NotImplementedError(str(expression))


@pytest.mark.parametrize(
    ("members", "serving", "alarming"),
    [
        (1, 0, True),
        (1, 1, False),
        (3, 0, True),
        (3, 1, True),
        (3, 2, False),
        (5, 2, True),
        (5, 3, False),
    ],
)
def test_a_quorum_is_missed_also_when_no_member_answers(
    members: int, serving: int, alarming: bool
) -> None:
    rule = promql_parser.parse(RULES["ZooKeeperWithoutQuorum"]["expr"])
    # `up` is Prometheus' own: 0 for a target that does not answer, but there.
    series = {'up{job="zookeeper"}': members, "zookeeper_outstandingrequests{}": serving}
    assert (answer(rule, series) is not None) == alarming


def test_there_are_alerts() -> None:
    assert len(RULES) > 10
