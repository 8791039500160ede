"""Runs playbooks against the scenario's hosts, like an operator."""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collection import elsewhere
from hosts import INVENTORY, ROOT

# Characters of a playbook's output that a failed test shows.
SHOWN = 2_000


@dataclass(frozen=True)
class Run:
    """The result of a playbook: its output on one line, and the changes by host."""

    succeeded: bool
    said: str
    changed: dict[str, int]


def run(
    playbook: str,
    variables: dict[str, Any] | None = None,
    *inventories: str,
    tags: str = "all",
    site: str = INVENTORY,
    options: Sequence[str] = (),
    facts: Path | None = None,
    collections: Path | None = None,
) -> Run:
    """Run a playbook with extra variables and further inventories, whose hosts come first.

    With `facts`, facts are cached in that folder. With `collections`, the playbook is one of the
    collection installed below that folder, and runs there.
    """
    cache = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(facts)}
    environment = elsewhere(collections) if collections else dict(os.environ)
    # The tests' clients trust the chat's authority, but an operator's machine may not.
    environment.pop("SSL_CERT_FILE", None)
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            _command(playbook, variables, (*inventories, site), f"--tags={tags}", *options),
            cwd=collections or ROOT,
            env={**environment, "ANSIBLE_FORCE_COLOR": "false", **(cache if facts else {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            process.wait()
        except BaseException:
            # On a timeout of the test, show what the playbook waits for.
            subprocess.run(["ps", "-e", "--forest", "-o", "pid,etimes,stat,wchan:20,args"])
            process.kill()
            raise
        finally:
            output.seek(0)
            said = output.read()
            print(said[-SHOWN:])
    recap = re.findall(r"^(\S+) +: .* changed=(\d+)", said, re.MULTILINE)
    return Run(
        succeeded=process.returncode == 0,
        said=" ".join(said.split()),
        changed={name: int(count) for name, count in recap},
    )


def _command(
    playbook: str, variables: dict[str, Any] | None, inventories: Sequence[str], *options: str
) -> list[str]:
    sources = [f"--inventory={ROOT / source}" for source in inventories]
    extra = f"--extra-vars={json.dumps(variables or {})}"
    return ["ansible-playbook", *sources, *options, extra, playbook]


def killed(playbook: str, variables: dict[str, Any], moment: str) -> re.Match[str]:
    """Run a playbook, and kill it with all its processes when its output matches `moment`."""
    with (
        tempfile.NamedTemporaryFile("w+") as output,
        subprocess.Popen(
            _command(playbook, variables, [INVENTORY]),
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "false"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            while True:
                ended = process.poll() is not None
                said = Path(output.name).read_text()
                if found := re.search(moment, said, re.DOTALL):
                    return found
                assert not ended, said[-SHOWN:]
                time.sleep(0.1)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def inventory(folder: Path, groups: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Write an inventory for `run`: groups of hosts with their variables. Returns its path."""
    # By default, inventory_dir is that of the first inventory with the host. Variables of the
    # sandbox are relative to it.
    known = {"inventory_dir": str(ROOT / INVENTORY)}
    path = folder / "hosts.yml"
    path.write_text(
        json.dumps(
            {
                group: {"hosts": {host: known | variables for host, variables in hosts.items()}}
                for group, hosts in groups.items()
            }
        )
    )
    return str(path)


def assert_refused(
    playbook: str,
    variables: dict[str, Any],
    words: list[str],
    *inventories: str,
    site: str = INVENTORY,
    facts: Path | None = None,
) -> None:
    """The playbook fails with these words in its output, and changes nothing."""
    refused = run(playbook, variables, *inventories, site=site, facts=facts)
    assert not refused.succeeded
    for word in words:
        assert word in refused.said, refused.said
    assert set(refused.changed.values()) == {0}


def assert_changes_nothing(playbook: str, variables: dict[str, Any] | None = None) -> None:
    """The playbook succeeds, and changes nothing."""
    again = run(playbook, variables)
    assert again.succeeded, again.said
    assert set(again.changed.values()) == {0}, again.said


def refusals(
    cases: Mapping[str, tuple[str, dict[str, Any], list[str]]], folder: Path, site: str = INVENTORY
) -> dict[str, Future[None]]:
    """Run `assert_refused` for each case, four at a time; return when all have run.

    Facts are gathered once, because no case changes the hosts. The group `pair` has two hosts.
    """
    pair = inventory(folder, {"pair": {"host1": {}, "host2": {}}})
    with ThreadPoolExecutor(4) as pool:
        return {
            name: pool.submit(assert_refused, *case, pair, site=site, facts=folder / "facts")
            for name, case in cases.items()
        }
