"""Strategy quick_linear: Ansible's `linear` on mitogen, with one Python on each host for all tasks.

It gives the same results as `linear`, for less than half of the processor time. Scenario `default`
installs without it, as sites do.
"""

import copy
import gc
from collections.abc import Callable
from types import CodeType
from typing import Any, ClassVar

import ansible_mitogen.affinity
from ansible._internal._task import TaskContext
from ansible._internal._templating import _engine
from ansible._internal._templating._jinja_bits import (
    _TEMPLATE_OVERRIDE_FIELD_NAMES,
    AnsibleEnvironment,
    _TemplateCompileContext,
)
from ansible.executor.task_executor import TaskExecutor
from ansible.executor.task_result import _RawTaskResult
from ansible.plugins import loader
from ansible.plugins.strategy.linear import StrategyModule as Linear
from ansible_mitogen.strategy import StrategyMixin
from jinja2 import nodes
from jinja2.environment import TemplateExpression

# Mitogen pins processes to cores. With two cores, all tasks would share one.
ansible_mitogen.affinity.policy = ansible_mitogen.affinity.Policy()

# Each task of each host runs in a fork of this process, so plugins loaded here are loaded once.
for plugins in (loader.filter_loader, loader.test_loader):
    list(plugins.all())

# Looking for garbage writes to all objects, and each fork then copies their pages.
gc.freeze()
gc.set_threshold(50_000, 20, 100)


class RememberingEnvironment(AnsibleEnvironment):
    """Compiles a template once, and not again for each host and task that uses it.

    Each task of each host has an environment of its own. All have the same filters and tests, so
    the code of a template depends only on its text, its delimiters and how backslashes are read.
    """

    codes: ClassVar[dict[tuple[Any, ...], CodeType]] = {}

    def compile(self, source: str | nodes.Template, *arguments: Any, **named: Any) -> Any:
        if isinstance(source, str):
            make = super().compile
            key = ("template", str(source), *arguments, *named.items())
            return self.remembered(key, lambda: make(source, *arguments, **named))
        # What `compile_expression` parsed.
        self.code = super().compile(source, *arguments, **named)
        return self.code

    def compile_expression(self, source: str, undefined_to_none: bool = True) -> TemplateExpression:
        make = super().compile_expression

        def code() -> CodeType:
            make(source)
            return self.code

        remembered = self.remembered(("expression", str(source)), code)
        template = self.template_class.from_code(self, remembered, self.make_globals(None))
        return TemplateExpression(template, undefined_to_none)

    def remembered(self, key: tuple[Any, ...], make: Callable[[], CodeType]) -> CodeType:
        reading = _TemplateCompileContext.current(optional=True)
        settings = (getattr(self, name) for name in _TEMPLATE_OVERRIDE_FIELD_NAMES)
        key = (*key, reading is not None and reading.escape_backslashes, *settings)
        if key not in self.codes:
            self.codes[key] = make()
        return self.codes[key]


_engine.AnsibleEnvironment = RememberingEnvironment

# Actions that run in this process: nearly all only compute, for less time than a fork takes. They
# are half of all tasks.
COMPUTING = {
    "ansible.builtin.assert",
    "ansible.builtin.debug",
    "ansible.builtin.include_role",
    "ansible.builtin.include_tasks",
    "ansible.builtin.set_fact",
    "ansible.builtin.validate_argument_spec",
    "baremetal_chat.platform.controller_host",
    "baremetal_chat.platform.preconditions",
    "baremetal_chat.platform.role_variables",
}


class StrategyModule(StrategyMixin, Linear):
    """See the top of this file."""

    def _queue_task(
        self, host: Any, task: Any, task_vars: dict[str, Any], play_context: Any
    ) -> None:
        if task.action not in COMPUTING:
            super()._queue_task(host, task, task_vars, play_context)
            return
        self._queued_task_cache[host.name, task._uuid] = {
            "host": host,
            "task": task,
            "task_vars": task_vars,
            "play_context": play_context,
        }
        self._tqm.send_callback("v2_runner_on_start", host, task)
        # Copy the task, because TaskExecutor changes it. A fork would change only its own copy.
        own = task.copy(exclude_parent=True, exclude_tasks=True)
        own._parent = task._parent
        named = copy.copy(host)
        named.vars, named.groups = {}, []
        with TaskContext(own):
            result = TaskExecutor(
                host,
                own,
                dict(task_vars),
                play_context.copy(),
                self._loader,
                loader.get_plugin_loader_namespace(),
                self._final_q,
                self._variable_manager,
            ).run()
            self._final_q.send_task_result(
                _RawTaskResult(
                    host=named, task=own, return_data=result, task_fields=own.dump_attrs()
                )
            )
        self._pending_results += 1
