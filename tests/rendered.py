"""What roles would apply to a cluster, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.roles.ansible_runs import ansible_playbook

_RENDER = Path(__file__).parent / "manifests/render.yml"


class Objects:
    """The rendered objects of one role."""

    def __init__(self, text: str) -> None:
        self.all: list[dict[str, Any]] = list(yaml.safe_load_all(text))

    def __getitem__(self, kind: str) -> dict[str, Any]:
        (found,) = self.named(kind)
        return found

    def named(self, kind: str) -> list[dict[str, Any]]:
        return [item for item in self.all if item["kind"] == kind]

    @property
    def pod(self) -> dict[str, Any]:
        (workload,) = [*self.named("Deployment"), *self.named("DaemonSet")]
        spec: dict[str, Any] = workload["spec"]["template"]["spec"]
        return spec


def render(folder: Path, sites: dict[str, dict[str, Any]]) -> dict[str, Objects]:
    """The objects of each site, all in one run: its variables by a name, whose first word is the
    role's.
    """
    hosts = {}
    for number, (name, variables) in enumerate(sites.items()):
        site = folder / f"{number}.json"
        site.write_text(json.dumps(variables))
        hosts[f"site{number}"] = {
            "role": name.split()[0],
            "site": str(site),
            "destination": str(folder / f"{number}.yml"),
        }
    inventory = folder / "inventory.json"
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    done = ansible_playbook("-i", inventory, _RENDER)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    return {
        name: Objects((folder / f"{number}.yml").read_text()) for number, name in enumerate(sites)
    }
