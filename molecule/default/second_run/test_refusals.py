"""site.yml refuses wrong variables before it changes any layer.

These tests run once. Those in the folder `tests` run again after the faults.
"""

from concurrent.futures import Future
from typing import Any

import pytest

from playbooks import refusals

REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a malformed channel": ({"microk8s_channel": "1.36"}, ["microk8s_channel", "1.36/stable"]),
    "too little memory": ({"microk8s_min_memory_mb": 10**6}, ["microk8s_min_memory_mb", "1000000"]),
    "a misspelt variable": ({"chat_replica": 3}, ["chat_replica (did you mean chat_replicas?)"]),
    "a value of the wrong type": ({"traefik_resources": "much"}, ["traefik_resources", "dict"]),
    "ports that collide": ({"traefik_websecure_port": 80}, ["traefik_websecure_port=80"]),
    "an even ensemble": ({"zookeeper_group": "pair"}, ["'pair' has 2 hosts"]),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[None]]:
    cases = {name: ("site.yml", *case) for name, case in REFUSED.items()}
    return refusals(cases, tmp_path_factory.mktemp("refusals"))


@pytest.mark.timeout(1200)  # All cases run before the first one ends.
@pytest.mark.parametrize("case", REFUSED)
def test_wrong_variables_are_refused_before_anything_changes(
    case: str, refused: dict[str, Future[None]]
) -> None:
    refused[case].result()
