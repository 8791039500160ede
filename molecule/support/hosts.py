"""The hosts of the running scenario: connect to them, stop them, and wait for a condition.

Tests connect to the hosts like Ansible, over SSH with the sandbox's key. Promises to clients are
tested from outside, by a Kafka client or a WebSocket.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import testinfra
from kafka.errors import KafkaError
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = os.environ["SANDBOX"]
INVENTORY = os.environ.get("INVENTORY", "inventory/sandbox")
STATE = ROOT / ".cache" / "sandboxes" / SANDBOX
# The certificate of the chat's own authority. Role chat writes it for clients.
CA_FILE = STATE / "chat-ca.crt"


def group(name: str) -> list[str]:
    """The names of an inventory group's hosts, in the inventory's order."""
    return AnsibleRunner.get_runner(str(ROOT / INVENTORY)).get_hosts(name)


def variable(name: str, wanted: str) -> Any:
    """A host's variable in the inventory."""
    return AnsibleRunner.get_runner(str(ROOT / INVENTORY)).get_variables(name)[wanted]


def sandbox_hosts() -> list[str]:
    """The names of all hosts of the scenario, including those that are not in the inventory."""
    configuration = (STATE / "ssh_config").read_text()
    return re.findall(r"^Host (\w+)$", configuration, re.MULTILINE)


def connect(name: str) -> Host:
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(STATE / "ssh_config"), sudo=True)


def address(name: str) -> str:
    """A host's IP address."""
    shown = subprocess.run(
        ["ssh", "-G", "-F", STATE / "ssh_config", name], check=True, capture_output=True, text=True
    ).stdout
    return next(line.split()[1] for line in shown.splitlines() if line.startswith("hostname "))


def gateway() -> str:
    """The address of this machine on the hosts' network."""
    return str(ip_network(f"{address(sandbox_hosts()[0])}/24", strict=False)[1])


def virtual_ip() -> str:
    """The virtual IP of the cluster hosts."""
    return (STATE / "free_address").read_text().strip()


def restart_host(name: str) -> None:
    """Power-cycle a host: all its services stop, and start again only by themselves."""
    podman("restart", name)


def podman(command: str, name: str, *arguments: str) -> None:
    """Run a podman command on a host's container."""
    subprocess.run(
        ["podman", command, f"{SANDBOX}-{name}", *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, "CONTAINERS_CONF": str(ROOT / "sandbox" / "hosts" / "containers.conf")},
    )


@contextmanager
def powered_off(name: str) -> Iterator[None]:
    """Cut a host's power, and start it again at the end."""
    # Without network, the kernel cannot close the connections of killed processes.
    podman("exec", name, "ip", "link", "set", "eth0", "down")
    podman("kill", name)
    try:
        yield
    finally:
        podman("start", name)


@contextmanager
def frozen(name: str) -> Iterator[None]:
    """Make a host hang: it accepts connections, but does not respond."""
    try:
        podman("pause", name)
        yield
    finally:
        podman("unpause", name)


def eventually(check: Callable[[], T], within: float, what: str) -> T:
    """Repeat `check` until its result is truthy; return it, and print the time taken.

    Raises AssertionError after `within` seconds. Errors of hosts and brokers that are down count as
    "not yet"; the last one is in the message.
    """
    began = time.monotonic()
    last: object = None
    while time.monotonic() - began < within:
        try:
            result = check()
        except (AssertionError, OSError, RuntimeError, KafkaError) as problem:
            last = problem
        else:
            if result:
                print(f"{what}: after {time.monotonic() - began:.1f} s")
                return result
            last = result
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {within} s; last seen: {last!r}")
