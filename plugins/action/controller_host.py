"""Action controller_host: add the controller as a host, and refuse a strategy that does not wait.

Every role that delegates to the controller begins with it, so it is one task and not two. A host of
its own has variables that win over those of the inventory's group `all`, like ansible_become: true.

Rolling restarts and health checks need all hosts at the same task. Plays could pin `linear`, but
that would also exclude faster strategies that are linear.

    - name: Add the controller as a separate host
      baremetal_chat.platform.controller_host:
        name: baremetal_chat_controller
      run_once: true
      changed_when: false
"""

from __future__ import annotations

import sys
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """See the top of this file."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"name"})

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        strategy = constants.DEFAULT_STRATEGY
        if strategy in ("free", "host_pinned"):
            raise AnsibleActionFail(
                f"Ansible's strategy is '{strategy}': hosts would be restarted without waiting for"
                " each other. Set ANSIBLE_STRATEGY=linear, or `strategy = linear` in ansible.cfg."
            )
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_become": False,
        }
        added = {"host_name": self._task.args["name"], "groups": [], "host_vars": variables}
        return result | {"changed": False, "add_host": added}
