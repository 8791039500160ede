"""Three hosts of a separate sandbox: one with MicroK8s, one bare, one for tests that need three.

Each test names the source of the behaviour that it checks in the stand-in: a file of
canonical/microk8s (mk), microk8s-core-addons (ad), microk8s-cluster-agent (ag), or snapd.
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
        assert made.returncode == 0, "sandbox/hosts/create failed; its output is above"
        yield Sandbox(made.stdout.decode().strip())
    finally:
        subprocess.run(destroy, check=True)


@pytest.fixture
def bare(sandbox: Sandbox) -> Iterator[Host]:
    """A host without MicroK8s. Snaps that a test installs there are removed at the end."""
    host = sandbox.host("host2")
    yield host
    host.check_output("snap remove microk8s")


@pytest.fixture(scope="session")
def node(sandbox: Sandbox) -> Host:
    """A cluster with one node, installed with a launch configuration and a side-loaded image."""
    host = sandbox.host("host1")
    configure(
        host, CONFIGURATION | {"persistentClusterToken": TOKEN, "extraSANs": ["node.example"]}
    )
    host.check_output(f"mkdir -p {COMMON}/sideload")
    upload(host, image("localhost/sideloaded:1"), f"{COMMON}/sideload/sideloaded.tar")
    install(host)
    host.check_output("/snap/bin/microk8s status --wait-ready --timeout 60")
    # The launch configuration is applied after that, and restarts services. An add-on is listed as
    # enabled when its objects exist, and complete when its lock is free.
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
            # Without Kubernetes' informational messages.
            noise = " I[0-9]{4} |level=info|Flag --|Skipping API"
            read = "journalctl --no-pager --lines 500 --unit 'snap.microk8s.*'"
            try:
                journal = host.run(f"{read} | grep -vE '{noise}' | tail -n 40").stdout
            except RuntimeError as unreachable:  # testinfra's, for a host that the test powered off
                journal = str(unreachable)
            report.sections.append((f"journal of {name}, the end", journal))
    return report
