"""The tests' strategy compiles a template once, and gives the results that Ansible gives."""

from __future__ import annotations

import gc
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible._internal._templating import _engine
from ansible._internal._templating._engine import TemplateEngine, TemplateOptions, TemplateOverrides
from ansible.template import trust_as_template

STRATEGY = Path(__file__).parents[2] / "molecule" / "strategy" / "quick_linear.py"


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[Any, ...], Any]]:
    """The strategy is loaded. What it compiled since."""
    monkeypatch.setattr(_engine, "AnsibleEnvironment", _engine.AnsibleEnvironment)
    thresholds = gc.get_threshold()
    environment = runpy.run_path(str(STRATEGY))["RememberingEnvironment"]
    assert _engine.AnsibleEnvironment is environment
    yield environment.codes
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_a_template_is_compiled_once_for_all_hosts(codes: dict[tuple[Any, ...], Any]) -> None:
    template = trust_as_template("{{ name | upper }} of {{ groups | length }}")
    condition = trust_as_template("name in groups")
    for host in ("one", "two"):
        engine = TemplateEngine(variables={"name": host, "groups": ["two"]})
        assert engine.template(template) == f"{host.upper()} of 1"
        assert engine.evaluate_conditional(condition) is (host == "two")
    assert len(codes) == 2


@pytest.mark.usefixtures("codes")
def test_a_text_is_compiled_for_each_way_to_read_it() -> None:
    engine = TemplateEngine(variables={"name": "one"})
    braces = trust_as_template("{{ name }} [[ name ]]")
    assert engine.template(braces) == "one [[ name ]]"
    overrides = TemplateOverrides(variable_start_string="[[", variable_end_string="]]")
    assert engine.template(braces, options=TemplateOptions(overrides=overrides)) == "{{ name }} one"
    backslash = trust_as_template(r"{{ '\t' }}")
    assert engine.template(backslash) == r"\t"
    unescaped = TemplateOptions(escape_backslashes=False)
    assert engine.template(backslash, options=unescaped) == "\t"
    # Both a template and an expression.
    assert engine.template(trust_as_template("name")) == "name"
    assert engine.evaluate_expression(trust_as_template("name")) == "one"
    assert engine.template(trust_as_template("{{ name }}")) == "one"


@pytest.mark.usefixtures("codes")
def test_a_mistake_in_a_template_is_reported_each_time() -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="Syntax error"):
            TemplateEngine().template(trust_as_template("{{ name"))
        with pytest.raises(Exception, match="'missing' is undefined"):
            TemplateEngine().template(trust_as_template("{{ missing }}"))
