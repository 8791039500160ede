"""The filter names the replicas to move after a host's failure left too many on another host."""

from collections.abc import Callable
from typing import Any

import pytest

DRAINED = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
LOST = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
SLOW = {"key": "example.org/slow", "effect": "PreferNoSchedule"}


def node(name: str, *taints: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"taints": list(taints)} if taints else {}}


def pods(*nodes: str | None) -> list[dict[str, Any]]:
    """Pods p0, p1 and so on, each on its node; None: not placed yet."""
    return [
        {"metadata": {"name": f"p{number}"}, "spec": {"nodeName": name} if name else {}}
        for number, name in enumerate(nodes)
    ]


@pytest.mark.parametrize(
    ("placed", "nodes", "crowded"),
    [
        (["a", "b"], ["a", "b", "c"], []),
        (["a", "a"], ["a", "b", "c"], ["p1"]),
        (["a", "a", "b", "b"], ["a", "b", "c"], ["p3"]),
        (["a", "a", "a", "a"], ["a", "b", "c"], ["p2", "p3"]),
        (["a", "a", "b", None], ["a", "b"], []),
        (["a", "a"], ["a"], []),
        (["a", "a"], [], []),
    ],
)
def test_only_surplus_replicas_of_a_host_are_named(
    placed: list[str | None],
    nodes: list[str],
    crowded: list[str],
    load_filter: Callable[[str], Callable[..., list[str]]],
) -> None:
    assert load_filter("crowded_pods")(pods(*placed), list(map(node, nodes))) == crowded


@pytest.mark.parametrize(("taint", "crowded"), [(DRAINED, []), (LOST, []), (SLOW, ["p1"])])
def test_a_node_that_accepts_no_pods_is_ignored(
    taint: dict[str, str],
    crowded: list[str],
    load_filter: Callable[[str], Callable[..., list[str]]],
) -> None:
    nodes = [node("a"), node("b", taint)]
    assert load_filter("crowded_pods")(pods("a", "a"), nodes) == crowded


def test_a_pod_that_is_being_deleted_is_ignored(
    load_filter: Callable[[str], Callable[..., list[str]]],
) -> None:
    leaving, staying = pods("a", "a")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert load_filter("crowded_pods")([leaving, staying], [node("a"), node("b")]) == []
