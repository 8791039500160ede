"""Many checks in one task: the first that fails is named, and nothing is templated too early."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleUndefinedVariable
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.baremetal_chat.platform.plugins.action import preconditions

ROOT = Path(__file__).parents[2]


def run(checks: str, folder: Path, **variables: Any) -> dict[str, Any]:
    """The result of a task with these checks, as a role's file has them."""
    (folder / "checks.yml").write_text(checks)
    loader = DataLoader()
    written = loader.load_from_file(str(folder / "checks.yml"), trusted_as_template=True)
    task = SimpleNamespace(args={"checks": written}, action="preconditions", async_val=0)
    task.check_mode = False
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="none"))
    templar = Templar(loader=loader, variables=variables)
    action = preconditions.ActionModule(task, connection, None, loader, templar)
    result: dict[str, Any] = action.run(task_vars=variables)
    assert templar.available_variables == variables
    return result


def test_all_checks_that_hold_change_nothing(tmp_path: Path) -> None:
    checks = """
    - {name: one condition, that: replicas >= 1, fail_msg: few}
    - {name: several, that: [replicas >= 1, replicas < 3], fail_msg: many}
    """
    assert run(checks, tmp_path, replicas=2) == {"changed": False}


def test_the_first_check_that_fails_is_named_and_later_ones_are_not_made(tmp_path: Path) -> None:
    checks = """
    - {name: Refuse nothing, that: true, fail_msg: not this}
    - {name: Refuse a host without an id, that: id is defined, fail_msg: "{{ host }} has no id."}
    - {name: Refuse an id out of range, that: id < 4, fail_msg: "{{ id }} is too high."}
    """
    failed = {"changed": False, "failed": True}
    named = failed | {"check": "Refuse a host without an id", "msg": "chat1 has no id."}
    assert run(checks, tmp_path, host="chat1") == named
    named = failed | {"check": "Refuse an id out of range", "msg": "5 is too high."}
    assert run(checks, tmp_path, host="chat1", id=5) == named


def test_a_check_fails_if_one_of_its_conditions_does(tmp_path: Path) -> None:
    checks = "- {name: range, that: [port > 0, port < 65536], fail_msg: '{{ port }}'}"
    assert [run(checks, tmp_path, port=port).get("msg") for port in (0, 1, 65536)] == [
        "0",
        None,
        "65536",
    ]


def test_nothing_is_templated_before_it_is_needed(tmp_path: Path) -> None:
    checks = """
    - {name: message, that: true, fail_msg: "{{ unknown }}"}
    - {name: variables, that: true, vars: {made: "{{ unknown }}"}, fail_msg: "{{ made }}"}
    - {name: skipped, when: tls, that: unknown, loop: "{{ unknown }}", fail_msg: "{{ unknown }}"}
    - {name: half skipped, when: [true, tls], that: unknown, fail_msg: "{{ unknown }}"}
    """
    assert run(checks, tmp_path, tls=False) == {"changed": False}


def test_a_condition_that_cannot_be_evaluated_is_an_error(tmp_path: Path) -> None:
    checks = "- {name: unknown, that: unknown > 0, fail_msg: no}"
    with pytest.raises(AnsibleUndefinedVariable, match="'unknown' is undefined"):
        run(checks, tmp_path)


def test_variables_of_a_check_are_its_own(tmp_path: Path) -> None:
    checks = """
    - {name: one, vars: {twice: "{{ 2 * own }}"}, that: twice == 4, fail_msg: "{{ twice }}"}
    - {name: other, that: twice is not defined, fail_msg: "{{ twice }}"}
    """
    assert run(checks, tmp_path, own=2) == {"changed": False}
    assert run(checks, tmp_path, own=3)["msg"] == "6"


def test_a_check_with_a_loop_shows_the_messages_of_all_items_that_fail(tmp_path: Path) -> None:
    checks = """
    - name: Refuse paths with blanks
      loop: "{{ paths }}"
      vars: {blanks: "{{ item | regex_findall(' ') | length }}"}
      that: blanks == 0
      fail_msg: "'{{ item }}' has {{ blanks }}."
    - {name: Refuse the rest, that: item is not defined, fail_msg: "{{ item }}"}
    """
    assert run(checks, tmp_path, paths=["/a", "/b"]) == {"changed": False}
    failed = run(checks, tmp_path, paths=["/a b", "/a", "/a b c"])
    assert failed["msg"] == "'/a b' has 1.\n'/a b c' has 2."


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ("{name: one}", "checks is no list of mappings. Write one, each with name, that and"),
        ("- one", "checks is no list of mappings."),
        ("- {name: few, that: true}", "Check 1, 'few', has no fail_msg: add it."),
        ("- {that: true}", "Check 1, '', has no fail_msg and no name: add it."),
        (
            "- {name: much, that: true, fail_msg: no, wen: tls}",
            "Check 1, 'much', has wen. Give only fail_msg, loop, name, that, vars, when.",
        ),
    ],
)
def test_checks_that_would_not_be_made_are_refused(checks: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=re.escape(words)):
        run(checks, tmp_path)


def test_a_play_fails_with_name_and_message_of_the_check_in_check_mode_too(tmp_path: Path) -> None:
    """Ansible itself gives the action its checks as they are written."""
    checks = [
        {"name": "Refuse nothing", "that": "true", "fail_msg": "{{ unknown }}"},
        {"name": "Refuse any host", "that": "false", "fail_msg": "{{ inventory_hostname }}: no."},
    ]
    tasks = [{"baremetal_chat.platform.preconditions": {"checks": checks}}]
    play = [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]
    (tmp_path / "play.json").write_text(json.dumps(play))
    done = subprocess.run(
        ["ansible-playbook", "--check", tmp_path / "play.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert '"check": "Refuse any host"' in done.stdout, done.stdout + done.stderr
    assert '"msg": "localhost: no."' in done.stdout
