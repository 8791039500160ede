"""Tasks on the controller run as the user who runs Ansible, whatever a site's inventory says."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from ansible_runs import LINEAR, ROOT, ansible_playbook

ROLE = "baremetal_chat.platform.controller"
CONTROLLER = "baremetal_chat_controller"

# Settings in ordinary inventories. Privilege escalation fails, because no program has this name.
# The user is not root, because Ansible does not escalate from root to root.
SITES = {
    "escalates everywhere": {
        "vars": {
            "ansible_become": True,
            "ansible_become_user": "nobody",
            "ansible_become_exe": "/nonexistent",
        },
    },
    "has a localhost of its own": {
        "hosts": {"localhost": {"ansible_connection": "local"}},
        "vars": {"ansible_python_interpreter": "/usr/bin/python3"},
    },
}


@pytest.mark.parametrize("site", SITES)
def test_tasks_on_the_controller_use_ansibles_python_and_do_not_escalate(
    site: str, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts.json"
    host = {"ansible_connection": "local", "ansible_become": False}
    children = {"some": {"hosts": {"member": host}}}
    inventory.write_text(json.dumps({"all": SITES[site] | {"children": children}}))
    playbook = tmp_path / "play.json"
    delegated = {
        "ansible.builtin.setup": {"gather_subset": ["!all", "python"]},
        "register": "controller",
        "delegate_to": CONTROLLER,
    }
    said = {"ansible.builtin.debug": {"msg": "{{ controller.ansible_facts.ansible_python }}"}}
    play = {"hosts": "member", "become": True, "gather_facts": False, "roles": [ROLE]}
    playbook.write_text(json.dumps([play | {"tasks": [delegated, said]}]))
    done = ansible_playbook(f"--inventory={inventory}", playbook, **LINEAR)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'"executable": "{sys.executable}"' in done.stdout
    # A run that adds it has changed nothing.
    assert "changed=0" in done.stdout


def test_strategy_free_is_refused(tmp_path: Path) -> None:
    playbook = tmp_path / "play.json"
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": [ROLE]}]))
    done = ansible_playbook("--inventory=localhost,", playbook, ANSIBLE_STRATEGY="free")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Ansible's strategy is 'free'" in done.stdout
    assert "ANSIBLE_STRATEGY=linear" in done.stdout


def roles_that_delegate() -> set[str]:
    files = (ROOT / "roles").glob("*/tasks/*.yml")
    return {path.parts[-3] for path in files if f"delegate_to: {CONTROLLER}" in path.read_text()}


def test_every_role_that_delegates_to_the_controller_depends_on_role_controller() -> None:
    assert roles_that_delegate()
    for role in roles_that_delegate():
        meta = yaml.safe_load((ROOT / "roles" / role / "meta/main.yml").read_text())
        assert ROLE in meta["dependencies"], role


@pytest.mark.parametrize("folder", ["roles", "playbooks"])
def test_no_task_or_play_uses_localhost_because_inventories_may_redefine_it(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.yml"):
        written = path.read_text()
        assert "delegate_to: localhost" not in written, path
        assert "hosts: localhost" not in written, path
