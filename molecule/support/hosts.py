"""The hosts of the scenario that runs, and how to wait for what they are to do.

The hosts are reached as Ansible reaches them, over SSH with the sandbox's key; tests then look from
outside (a Kafka client, a WebSocket) wherever the promise is one to the outside.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
# Of the chat's own authority, as its role writes it for clients.
CA_FILE = STATE / "chat-ca.crt"


def group(name: str) -> list[str]:
    """The names of an inventory group's hosts, in the inventory's order."""
    return AnsibleRunner.get_runner(str(ROOT / INVENTORY)).get_hosts(name)


def variable(name: str, wanted: str) -> Any:
    """What the inventory says for a host."""
    return AnsibleRunner.get_runner(str(ROOT / INVENTORY)).get_variables(name)[wanted]


def sandbox_hosts() -> list[str]:
    """The names of all hosts that the scenario has, be they in the inventory or not."""
    configuration = (STATE / "ssh_config").read_text()
    return re.findall(r"^Host (\w+)$", configuration, re.MULTILINE)


def connect(name: str) -> Host:
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(STATE / "ssh_config"), sudo=True)


def address(name: str) -> str:
    """The IP address under which a host is reached."""
    shown = subprocess.run(
        ["ssh", "-G", "-F", STATE / "ssh_config", name], check=True, capture_output=True, text=True
    ).stdout
    return next(line.split()[1] for line in shown.splitlines() if line.startswith("hostname "))


def way_in() -> str:
    """The address that the cluster hosts share."""
    return (STATE / "free_address").read_text().strip()


def restart_host(name: str) -> None:
    """Power-cycle a host: its services stop, and nobody is there to start them again."""
    podman("restart", name)


def podman(command: str, name: str, *arguments: str) -> None:
    """What podman does to a host's container."""
    subprocess.run(
        ["podman", command, f"{SANDBOX}-{name}", *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, "CONTAINERS_CONF": str(ROOT / "sandbox" / "hosts" / "containers.conf")},
    )


@contextmanager
def powered_off(name: str) -> Iterator[None]:
    """Take a host away without a word to anybody, and start it again."""
    # Otherwise the kernel closes the connections of killed processes.
    podman("exec", name, "ip", "link", "set", "eth0", "down")
    podman("kill", name)
    try:
        yield
    finally:
        podman("start", name)


@contextmanager
def frozen(name: str) -> Iterator[None]:
    """Have a host take connections and answer nothing, as one that hangs."""
    try:
        podman("pause", name)
        yield
    finally:
        podman("unpause", name)


def eventually(check: Callable[[], T], within: float, what: str) -> T:
    """Return the first truthy result of `check`, asked for `within` seconds; print the time taken.

    What a host or a broker that is away raises counts as "not yet", and as the reason in the end.
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
