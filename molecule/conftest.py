"""What the tests of all scenarios share: the hosts, how to wait, and what to show on a failure.

The hosts are reached as Ansible reaches them, over SSH with the sandbox's key; tests then look from
outside (a Kafka client, a WebSocket) wherever the promise is one to the outside.
"""

import os
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import pytest
import testinfra
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
SANDBOX = os.environ["SANDBOX"]
STATE = ROOT / ".cache" / "sandboxes" / SANDBOX

EVIDENCE = r"""
systemctl --no-pager --failed
journalctl --no-pager --lines 60 --unit zookeeper --unit kafka --unit 'snap.microk8s.*'
if [ -x /snap/bin/microk8s ]; then
  /snap/bin/microk8s kubectl get pods --all-namespaces --output wide
  /snap/bin/microk8s kubectl get events --all-namespaces --sort-by .lastTimestamp | tail -n 30
  /snap/bin/microk8s kubectl logs --namespace chat \
    --selector app.kubernetes.io/name=chat --tail 40 --prefix
fi
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the hosts' journals under a failure: nobody can look at them afterwards."""
    report = yield
    if report.failed:
        for name in group("all"):
            seen = connect(name).run(EVIDENCE)
            report.sections.append((f"journal of {name}", seen.stdout + seen.stderr))
    return report


def group(name: str) -> list[str]:
    """The names of an inventory group's hosts, in the inventory's order."""
    return AnsibleRunner(str(ROOT / "inventory" / "sandbox")).get_hosts(name)


def connect(name: str) -> Host:
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(STATE / "ssh_config"), sudo=True)


def address(name: str) -> str:
    """The IP address under which a host is reached."""
    shown = subprocess.run(
        ["ssh", "-G", "-F", STATE / "ssh_config", name], check=True, capture_output=True, text=True
    ).stdout
    return next(line.split()[1] for line in shown.splitlines() if line.startswith("hostname "))


def restart_host(name: str) -> None:
    """Power-cycle a host: its services stop, and nobody is there to start them again."""
    subprocess.run(
        ["podman", "restart", f"{SANDBOX}-{name}"],
        check=True,
        capture_output=True,
        env={**os.environ, "CONTAINERS_CONF": str(ROOT / "sandbox" / "hosts" / "containers.conf")},
    )


def eventually(check: Callable[[], T], within: float, what: str) -> T:
    """Return the first truthy result of `check`, asked for `within` seconds; print the time taken.

    A refused connection or a failed assertion counts as "not yet", and as the reason in the end.
    """
    began = time.monotonic()
    last: object = None
    while time.monotonic() - began < within:
        try:
            result = check()
        except (AssertionError, OSError) as problem:
            last = problem
        else:
            if result:
                print(f"{what}: after {time.monotonic() - began:.1f} s")
                return result
            last = result
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {within} s; last seen: {last!r}")
