"""Filter crowded_pods: the pods to delete so that a Deployment is spread evenly.

Kubernetes schedules a pod once. After a host was down, its pods stay where they were rescheduled,
until somebody deletes them and Kubernetes schedules new ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]


def takes_pods(node: Object) -> bool:
    """Whether the scheduler can place new pods on the node: it has no taint that prevents this."""
    taints = node.get("spec", {}).get("taints") or []
    return not any(taint["effect"] in ("NoSchedule", "NoExecute") for taint in taints)


def crowded_pods(pods: Sequence[Object], nodes: Sequence[Object]) -> list[str]:
    """Return the names of the pods that exceed a node's share.

    Both arguments are lists of API objects. A node's share is the number of pods divided by the
    number of nodes that accept pods. If there is a remainder, that many nodes may have one more.
    """
    on_node: dict[str, list[str]] = {
        node["metadata"]["name"]: [] for node in nodes if takes_pods(node)
    }
    for pod in pods:
        name = pod.get("spec", {}).get("nodeName")
        if name in on_node and "deletionTimestamp" not in pod["metadata"]:
            on_node[name].append(pod["metadata"]["name"])
    if not on_node:
        return []
    share, left_over = divmod(sum(map(len, on_node.values())), len(on_node))
    crowded = []
    for rank, names in enumerate(sorted(on_node.values(), key=len, reverse=True)):
        crowded += sorted(names)[share + (rank < left_over) :]
    return crowded


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"crowded_pods": crowded_pods}
