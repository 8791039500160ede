"""Action preconditions: check many conditions in one task, and fail with the first that is not met.

Each check is what a task with `ansible.builtin.assert` would be, in the same words. A task costs a
copy of all variables, a fork and a result for every host, which is more than most conditions cost.

The first check that fails ends the task. A later one may need what an earlier one ensures, or fail
from the same mistake and give another remedy. A check with a `loop` is made for all its items, and
all their messages are shown.

Nothing is templated before it is needed: `fail_msg` when its check fails, all else when `when`
holds.

    - name: Refuse inputs that cannot work
      baremetal_chat.platform.preconditions:
        checks:
          - name: Refuse less than one replica
            that: chat_replicas | int >= 1
            fail_msg: "chat_replicas={{ chat_replicas }}: give at least 1."
          - name: Refuse an authority without HTTPS
            when: chat_acme | bool
            that: chat_acme_directory is match('https://[^/]')
            fail_msg: "chat_acme_directory='{{ chat_acme_directory }}': give a URL with https://."
"""

from __future__ import annotations

from collections import ChainMap
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

REQUIRED = {"name", "that", "fail_msg"}
OPTIONAL = {"when", "vars", "loop"}


def malformed(checks: Any) -> str:
    """What is wrong with the checks; empty if nothing is. A misspelt `when` would be ignored."""
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        return "checks is no list of mappings. Write one, each with name, that and fail_msg."
    for number, check in enumerate(checks, 1):
        who = f"Check {number}, '{check.get('name', '')}',"
        if missing := REQUIRED - check.keys():
            return f"{who} has no {' and no '.join(sorted(missing))}: add it."
        if unknown := check.keys() - REQUIRED - OPTIONAL:
            known = ", ".join(sorted(REQUIRED | OPTIONAL))
            return f"{who} has {', '.join(sorted(unknown))}. Give only {known}."
    return ""


class ActionModule(ActionBase):
    """See the top of this file."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"checks"})

    @classmethod
    def finalize_task_arg(cls, _name: str, value: Any, _templar: Any, _context: Any) -> Any:
        """Leave the argument as it is written: `run` templates what it needs."""
        return value

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        checks = self._task.args.get("checks")
        if wrong := malformed(checks):
            raise AnsibleActionFail(wrong, obj=self._task.args)
        result["changed"] = False
        variables = self._templar.available_variables
        try:
            for check in checks:
                self._templar.available_variables = ChainMap(check.get("vars", {}), variables)
                if unmet := self._unmet(check):
                    result |= {
                        "failed": True,
                        "check": check["name"],
                        "msg": "\n".join(map(str, unmet)),
                    }
                    break
        finally:
            self._templar.available_variables = variables
        return result

    def _unmet(self, check: dict[str, Any]) -> list[Any]:
        """The message of the check if it fails, or those of all items for which it does."""
        if not self._hold(check.get("when", True)):
            return []
        if "loop" not in check:
            return [] if self._hold(check["that"]) else [self._templar.template(check["fail_msg"])]
        variables = self._templar.available_variables
        messages = []
        for item in self._templar.template(check["loop"]):
            self._templar.available_variables = ChainMap({"item": item}, variables)
            if not self._hold(check["that"]):
                messages.append(self._templar.template(check["fail_msg"]))
        return messages

    def _hold(self, conditions: Any) -> bool:
        """Whether the condition holds, or all of the list."""
        listed = conditions if isinstance(conditions, list) else [conditions]
        return all(self._templar.evaluate_conditional(each) for each in listed)
