"""Action role_variables: refuse variables of a role that have the wrong type or do not exist.

Ansible silently ignores a variable with a misspelt name, and uses the default instead. So every
variable that starts with the role's name must be in the role's argument specs. The role is the one
that contains this task. Facts that the role itself sets for others are listed in `facts`.

Ansible's own check works on a converted copy: it accepts "02" as a number and "a,b" as a list, but
templates use the original text. So both are refused here.

It also shows values that it cannot convert. Of options that hold passwords, no value is shown here.

    - name: Refuse unknown variables and wrong types
      baremetal_chat.platform.role_variables:
        facts: [kafka_endpoints]
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action.validate_argument_spec import ActionModule as ValidateArgumentSpec


def unknown(role: Path, names: set[str], options: set[str]) -> list[str]:
    """Names that start with the role's name and do not exist, each with the one that was probably
    meant.

    If another role's name starts with this one's, its variables are skipped.
    """
    others = tuple(
        f"{other.name}_"
        for other in role.parent.iterdir()
        if other.name.startswith(f"{role.name}_")
    )
    found = []
    for name in sorted(names - options):
        if name.startswith(f"{role.name}_") and not name.startswith(others):
            close = difflib.get_close_matches(name, options, n=1, cutoff=0.75)
            found.append(f"{name} (did you mean {close[0]}?)" if close else name)
    return found


def misshapen(values: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """Lists with passwords in them that Ansible's check would show, because an element is no
    mapping; each with the remedy and without the value."""
    found = []
    for name, value in sorted(values.items()):
        keys = options[name].get("options", {})
        if not any(key.get("no_log") for key in keys.values()):
            continue
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            wanted = ", ".join(key for key in keys if keys[key].get("required"))
            found.append(f"{name} is no list of mappings. Write one, each with {wanted}")
    return found


def not_as_written(values: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """Values that Ansible's check would convert but templates use unconverted, with the remedy."""
    found = []
    for name, value in sorted(values.items()):
        kind = options[name].get("type")
        if kind == "int" and str(value) != str(int(value)):
            found.append(f"{name} is '{value}': write {int(value)}")
        if kind == "list" and isinstance(value, str):
            elements = ", ".join(element.strip() for element in value.split(","))
            found.append(f"{name} is the text '{value}': write a list, [{elements}]")
    return found


class ActionModule(ValidateArgumentSpec):
    """See the top of this file."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        task_vars = task_vars or {}
        role = Path(self._task._role._role_path)
        specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
        options = specs["argument_specs"]["main"]["options"]
        facts = set(self._task.args.get("facts", []))
        values = self.get_args_from_task_vars(options, task_vars)
        if hidden := misshapen(values, options):
            why = f"{task_vars['inventory_hostname']}: {'; '.join(hidden)}"
            return {"failed": True, "msg": f"{why}. A password may be in it, so it is not shown."}
        self._task.args = {"argument_spec": options}
        result: dict[str, Any] = super().run(tmp, task_vars)
        if not result.get("failed") and (unconverted := not_as_written(values, options)):
            result["failed"] = True
            result["msg"] = f"{task_vars['inventory_hostname']}: {'; '.join(unconverted)}."
        strangers = unknown(role, set(task_vars) - facts, set(options))
        if strangers and not result.get("failed"):
            result["failed"] = True
            result["msg"] = (
                f"{task_vars['inventory_hostname']}: no variable of the role {role.name} is called"
                f" {', '.join(strangers)}. Correct the spelling or remove it;"
                f" roles/{role.name}/README.md lists all of them."
            )
        return result
