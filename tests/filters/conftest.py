"""Gives each test a filter as Ansible finds it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins" / "filter"


@pytest.fixture(scope="session")
def load_filter() -> Callable[[str], Callable[..., str]]:
    def load(name: str) -> Callable[..., str]:
        specification = importlib.util.spec_from_file_location(name, PLUGINS / f"{name}.py")
        plugin = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(plugin)
        return plugin.FilterModule().filters()[name]

    return load
