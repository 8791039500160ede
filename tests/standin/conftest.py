"""Three hosts of a sandbox of their own: one with MicroK8s, one bare, one for what takes three.

The stand-in is worth what it shares with the real thing, so each test names what it imitates: a
file of canonical/microk8s (mk), microk8s-core-addons (ad), microk8s-cluster-agent (ag), or snapd.
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Iterator

import pytest
from standin_hosts import (
    COMMON,
    CONFIGURATION,
    ROOT,
    TOKEN,
    Sandbox,
    configure,
    image,
    install,
    microk8s,
    rolled_out,
    until,
    upload,
)
from testinfra.host import Host


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    hosts = ROOT / "sandbox/hosts"
    destroy = [hosts / "destroy", "standin"]
    subprocess.run(destroy, check=True)
    made = subprocess.run([hosts / "create", "--hosts", "3", "standin"], stdout=subprocess.PIPE)
    try:
        assert made.returncode == 0, "sandbox/hosts/create failed; what it says is above"
        yield Sandbox(made.stdout.decode().strip())
    finally:
        subprocess.run(destroy, check=True)


@pytest.fixture
def bare(sandbox: Sandbox) -> Iterator[Host]:
    """A host without MicroK8s. What a test installs there is taken away again."""
    host = sandbox.host("host2")
    yield host
    host.check_output("snap remove microk8s")


@pytest.fixture(scope="session")
def node(sandbox: Sandbox) -> Host:
    """A one-node cluster, installed by a launch configuration, with an image to side-load."""
    host = sandbox.host("host1")
    configure(
        host, CONFIGURATION | {"persistentClusterToken": TOKEN, "extraSANs": ["node.example"]}
    )
    host.check_output(f"mkdir -p {COMMON}/sideload")
    upload(host, image("localhost/sideloaded:1"), f"{COMMON}/sideload/sideloaded.tar")
    install(host)
    host.check_output("/snap/bin/microk8s status --wait-ready --timeout 60")
    # What the launch configuration asks for comes after that, and restarts what it changes: an
    # add-on is listed as soon as its objects are there, and done when its lock is free.
    until(lambda: microk8s(host, "status --addon dns").stdout == "enabled\n", "dns is not enabled")
    host.check_output("flock /var/snap/microk8s/current/var/lock/addons.lock true")
    rolled_out(host, "kube-system", "coredns")
    return host


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of the services' journal on the hosts it used."""
    report = yield
    if report.failed:
        used = getattr(item, "funcargs", {})
        hosts = {name: used[name] for name in ("node", "bare") if name in used}
        hosts |= used.get("hosts") or used.get("three") or {}
        for name, host in hosts.items():
            # Without what Kubernetes says when nothing is wrong.
            noise = " I[0-9]{4} |level=info|Flag --|Skipping API"
            read = "journalctl --no-pager --lines 500 --unit 'snap.microk8s.*'"
            journal = host.run(f"{read} | grep -vE '{noise}' | tail -n 40")
            report.sections.append((f"journal of {name}, the end", journal.stdout))
    return report
