"""Runs ansible-playbook in the checkout, like an operator."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
# One Python process for all tasks, as in the scenarios: half of the processor time.
QUICK = {
    "ANSIBLE_STRATEGY": "quick_linear",
    "ANSIBLE_STRATEGY_PLUGINS": str(ROOT / "molecule" / "strategy"),
    "ANSIBLE_TIMEOUT": "60",
}
# For what depends on how Ansible itself connects and starts modules: what it says of a host that
# does not respond, and what it shows with -vvv.
LINEAR = {"ANSIBLE_STRATEGY": "linear"}

# A `sed` for the hosts of a test: files below /etc are read below $FOLDER.
SED = """#!/bin/sh
for each; do
  shift
  case $each in /etc/*) each=$FOLDER$each ;; esac
  set -- "$@" "$each"
done
/usr/bin/sed "$@" 2> /dev/null | /usr/bin/sed "s|^$FOLDER||"
"""


def ansible_playbook(
    *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Return exit code and output."""
    return subprocess.run(
        ["ansible-playbook", *arguments],
        cwd=ROOT,
        env={**os.environ, **QUICK, **environment},
        capture_output=True,
        text=True,
    )
