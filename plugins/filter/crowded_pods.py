"""Filter crowded_pods: the pods to delete so that the others of a Deployment are spread evenly.

Kubernetes places a pod once. After a host was down, its pods stay where they went, until somebody
deletes them and their successors are placed anew.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]


def takes_pods(node: Object) -> bool:
    """Whether new pods are placed on the node: it has no taint that keeps them away."""
    taints = node.get("spec", {}).get("taints") or []
    return not any(taint["effect"] in ("NoSchedule", "NoExecute") for taint in taints)


def crowded_pods(pods: Sequence[Object], nodes: Sequence[Object]) -> list[str]:
    """Return the names of the pods that a node has more than its share.

    Both are objects of the API. A node's share is the number of pods by the number of nodes that
    take pods, and one more on as many nodes as that leaves over.
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
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"crowded_pods": crowded_pods}
