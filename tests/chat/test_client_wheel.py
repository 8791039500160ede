"""The client library is a wheel that works without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Process


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which pip installed the wheel. Its dependencies are already installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # Build from a copy, because a build leaves files in the source directory.
    shutil.copytree(ROOT / "chat", source / "chat", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "pyproject.toml", "docs/bots.md"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    python("build", "--no-isolation", f"--outdir={folder}", str(source))
    (wheel,) = folder.glob("*.whl")
    python("pip", "install", "--quiet", "--no-index", "--dry-run", str(wheel))
    target = folder / "installed"
    python("pip", "install", "--quiet", "--no-index", "--no-deps", f"--target={target}", str(wheel))
    return target


def python(module: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_installed_client_talks_to_a_chat(
    installed: Path, process: Callable[..., Process], tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{process().port}/"
    done = subprocess.run(
        [sys.executable, "-m", "chat.client", url, "--user", "ada"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        input="Hello from a wheel\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\t")[1:] == ["lobby", "ada", "Hello from a wheel\n"]


def test_the_wheel_has_the_client_and_nothing_of_the_service(installed: Path) -> None:
    modules = {str(path.relative_to(installed)) for path in installed.rglob("*.py")}
    client = {f"chat/client/{path.name}" for path in (ROOT / "chat" / "client").glob("*.py")}
    assert modules == {"chat/__init__.py", "chat/bounds.py", "chat/protocol.py"} | client
