"""The hosts on which the stand-in is tested, and helpers for them."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import testinfra
import yaml
from testinfra.backend.base import CommandResult
from testinfra.host import Host

ROOT = Path(__file__).parent.parent.parent
COMMON = "/var/snap/microk8s/common"
TOKEN = "0123456789abcdef0123456789abcdef"
# The machine determines the version of cgroups. The tests also run with version 1.
CONFIGURATION = {
    "version": "0.1.0",
    "extraKubeletArgs": {"--fail-cgroupv1": "false"},
    "addons": [{"name": "dns"}],
}


class Sandbox:
    """The hosts: connect, restart, power off and on."""

    def __init__(self, ssh_config: str) -> None:
        self.ssh_config = ssh_config

    def host(self, name: str) -> Host:
        return testinfra.get_host(f"ssh://{name}", ssh_config=self.ssh_config, sudo=True)

    def restart(self, name: str) -> None:
        """Restart a host and wait until it responds again."""
        self.podman("restart", name)
        self.wait(name)

    def power_off(self, name: str) -> None:
        self.podman("kill", name)

    def power_on(self, name: str) -> None:
        """Start a host and wait until it responds again."""
        self.podman("start", name)
        self.wait(name)

    def podman(self, action: str, name: str) -> None:
        subprocess.run(["podman", action, f"standin-{name}"], check=True, capture_output=True)

    def wait(self, name: str) -> None:
        ssh = ["ssh", "-F", self.ssh_config, "-o", "ConnectTimeout=2", name, "true"]
        until(lambda: subprocess.run(ssh, capture_output=True).returncode == 0, "no SSH")


def configure(host: Host, configuration: object) -> None:
    text = configuration if isinstance(configuration, str) else yaml.safe_dump(configuration)
    host.check_output(f"mkdir -p {COMMON}")
    upload(host, text.encode(), f"{COMMON}/.microk8s.yaml")


def install(host: Host) -> CommandResult:
    return host.run("snap install microk8s --classic --channel=1.36/stable")


def microk8s(host: Host, command: str) -> CommandResult:
    return host.run(f"/snap/bin/microk8s {command}")


def kubectl(host: Host, command: str) -> str:
    return host.check_output(f"/snap/bin/microk8s kubectl {command}").strip()


def rolled_out(host: Host, namespace: str, deployment: str) -> None:
    kubectl(host, f"rollout status deployment/{deployment} -n {namespace} --timeout 60s")


def until(condition: Callable[[], object], otherwise: str, seconds: float = 60) -> float:
    """Wait for the condition; return the time this took, in seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            pytest.fail(f"after {seconds} s {otherwise}")
        time.sleep(0.3)
    return time.monotonic() - began


def upload(host: Host, content: bytes, path: str) -> None:
    """Write a file as root. (testinfra's own way has a limit of 100 kB, the command line's.)"""
    ssh = ["ssh", "-F", host.backend.ssh_config, host.backend.hostname]
    subprocess.run([*ssh, f"sudo tee {path} > /dev/null"], input=content, check=True)


def image(name: str) -> bytes:
    """The archive of the pause image under another name."""
    packed = io.BytesIO()
    with (
        tarfile.open(ROOT / ".artifacts/pause/pause.tar") as source,
        tarfile.open(fileobj=packed, mode="w") as target,
    ):
        for member in source:
            content = source.extractfile(member)
            data = content.read() if content else b""
            if member.name == "manifest.json":
                manifest = json.loads(data)
                manifest[0]["RepoTags"] = [name]
                data = json.dumps(manifest).encode()
                member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return packed.getvalue()
