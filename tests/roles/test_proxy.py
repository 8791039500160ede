"""A proxy in the environment is used only for downloads, not for the site's own hosts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from ansible_runs import LINEAR, ROOT, ansible_playbook
from kubernetes_api import KubernetesApi

# Nothing listens there.
PROXY = "http://127.0.0.1:9"
COLLECTION = "baremetal_chat.platform"


def test_the_clusters_api_is_reached_directly(tmp_path: Path) -> None:
    """With the kubeconfig from role microk8s."""
    with KubernetesApi(tmp_path) as api:
        microk8s = tmp_path / "microk8s"
        microk8s.write_text(f"#!/bin/sh\necho {shlex.quote(yaml.safe_dump(api.kubeconfig))}\n")
        microk8s.chmod(0o755)
        hand_on = {
            "ansible.builtin.include_role": {
                "name": f"{COLLECTION}.microk8s",
                "tasks_from": "kubeconfig.yml",
            }
        }
        ask = {
            "kubernetes.core.k8s_info": {"kubeconfig": "{{ microk8s_kubeconfig }}", "kind": "Node"},
            "delegate_to": "baremetal_chat_controller",
        }
        play = {"hosts": "all", "gather_facts": False, "roles": [f"{COLLECTION}.controller"]}
        playbook = tmp_path / "play.json"
        playbook.write_text(json.dumps([play | {"tasks": [hand_on, ask]}]))
        inventory = tmp_path / "hosts.json"
        node = {"ansible_connection": "local", "microk8s_api_host": "127.0.0.1"}
        inventory.write_text(json.dumps({"microk8s": {"hosts": {"node": node}}}))
        known = {"__microk8s_command": str(microk8s), "__microk8s_api_port": api.port}
        done = ansible_playbook(
            f"--inventory={inventory}",
            f"--extra-vars={json.dumps(known)}",
            playbook,
            http_proxy=PROXY,
            https_proxy=PROXY,
            **LINEAR,
        )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["roles", "playbooks"])
def test_http_to_own_hosts_is_direct(folder: str) -> None:
    """Roles use module `uri` only for the site's own hosts, and `get_url` for downloads."""
    for path in (ROOT / folder).rglob("*.yml"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.strip() == "ansible.builtin.uri:":
                assert "use_proxy: false" in lines[number + 2], f"{path}:{number + 1}"
