"""The example inventory works with all playbooks."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent


PLAYBOOKS = ["site.yml", *(f"playbooks/{path.name}" for path in ROOT.glob("playbooks/*.yml"))]


@pytest.mark.parametrize("playbook", sorted(PLAYBOOKS))
def test_playbooks_accept_the_example_inventory(playbook: str) -> None:
    checked = subprocess.run(
        ["ansible-playbook", "--inventory=inventory/example", "--syntax-check", playbook],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "false"},
        capture_output=True,
        text=True,
    )
    # Hosts and groups that earlier plays add.
    later = "[WARNING]: Could not match supplied host pattern, ignoring: "
    warnings = set(checked.stderr.splitlines())
    added = {
        later + name
        for name in (
            "baremetal_chat_controller",
            "microk8s_entry",
            "microk8s_responding",
            "responding",
        )
    }
    assert (checked.returncode, warnings - added) == (0, set()), checked.stderr


def test_the_example_declares_the_same_topics_as_the_sandbox() -> None:
    def topics(path: str) -> object:
        return yaml.safe_load((ROOT / "inventory" / path).read_text())["kafka_topics"]

    assert topics("example/group_vars/all/main.yml") == topics("sandbox/group_vars/all/kafka.yml")
