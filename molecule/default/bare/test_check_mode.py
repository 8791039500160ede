"""Bare hosts, before the first run: a dry run with the installed collection."""

from pathlib import Path

import pytest
from collection import install

from playbooks import run


@pytest.mark.timeout(1200)
def test_a_dry_run_of_the_installed_collection_completes(tmp_path: Path) -> None:
    install(tmp_path)
    checked = run(
        "baremetal_chat.platform.site", options=("--check", "--diff"), collections=tmp_path
    )
    assert checked.succeeded, checked.said
