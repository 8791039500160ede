"""Loads filters like Ansible."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins" / "filter"


@pytest.fixture(scope="session")
def load_filter() -> Callable[..., Callable[..., Any]]:
    """Returns a filter by name. The second argument is its file, if that has another name."""

    def load(name: str, filter_name: str | None = None) -> Callable[..., Any]:
        specification = importlib.util.spec_from_file_location(name, PLUGINS / f"{name}.py")
        plugin = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(plugin)
        return plugin.FilterModule().filters()[filter_name or name]

    return load
