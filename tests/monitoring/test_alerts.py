"""Alert rules: each can be parsed, and links to its runbook."""

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
def test_an_alerts_expression_is_valid_promql(name: str) -> None:
    assert promql_parser.parse(RULES[name]["expr"])
    assert RULES[name]["labels"]["severity"] in ("warning", "critical")


@pytest.mark.parametrize("name", RULES)
def test_an_alert_has_a_summary_and_a_runbook(name: str) -> None:
    annotations = RULES[name]["annotations"]
    page, _, anchor = annotations["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == name.lower()
    assert name in headings
    assert annotations["summary"].endswith(".")


def answer(expression: promql_parser.Expr, series: dict[str, int]) -> float | None:
    """Evaluate an expression with the few operators that rules about absent series use; None is an
    empty result.

    `series`: the number of series of each selector.
    """
    match expression:
        case promql_parser.ParenExpr():
            return answer(expression.expr, series)
        case promql_parser.NumberLiteral():
            return expression.val
        case promql_parser.Call() if expression.func.name == "vector":
            return answer(expression.args[0], series)
        case promql_parser.Call() if expression.func.name == "absent":
            return None if series[str(expression.args[0])] else 1
        case promql_parser.VectorSelector():
            # Of `up`, whose targets respond.
            return 1 if series[str(expression)] else None
        case promql_parser.AggregateExpr() if str(expression.op) == "count":
            return series[str(expression.expr)] or None
        case promql_parser.BinaryExpr():
            left, right = answer(expression.lhs, series), answer(expression.rhs, series)
            match str(expression.op):
                case "or":
                    return right if left is None else left
                case "*":
                    return None if None in (left, right) else left * right
                case "==":
                    return None if None in (left, right) or left != right else left
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
def test_the_quorum_alert_fires_also_if_no_member_responds(
    members: int, serving: int, alarming: bool
) -> None:
    rule = promql_parser.parse(RULES["ZooKeeperWithoutQuorum"]["expr"])
    # `up` is Prometheus' own metric: for a target that does not respond it is 0, but present.
    series = {'up{job="zookeeper"}': members, "zookeeper_outstandingrequests{}": serving}
    assert (answer(rule, series) is not None) == alarming


@pytest.mark.parametrize(("pods", "alarming"), [(0, True), (1, False)])
def test_the_alert_for_webhooks_fires_also_if_there_is_no_pod(pods: int, alarming: bool) -> None:
    rule = promql_parser.parse(RULES["ChatWebhooksDown"]["expr"])
    # Prometheus finds its targets by their pods, so without a pod there is no `up` either.
    series = {'up{job="chat-webhooks"}': pods}
    assert (answer(rule, series) is not None) == alarming


def test_there_are_alerts() -> None:
    assert len(RULES) > 10
