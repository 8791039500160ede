"""Hosts' units, stopped, killed and asked, and the ways to them."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hosts import connect


@contextmanager
def stopped(name: str, unit: str) -> Iterator[None]:
    """Stop a unit as an operator does, and start it again in the end."""
    host = connect(name)
    host.check_output("systemctl stop %s", unit)
    try:
        yield
    finally:
        host.check_output("systemctl start %s", unit)


@contextmanager
def firewalled(name: str, *rules: str) -> Iterator[None]:
    """Have iptables hold these rules (CHAIN and match) first on a host."""
    host = connect(name)
    try:
        for rule in rules:
            host.check_output(f"iptables -I {rule}")
        yield
    finally:
        for rule in rules:
            host.check_output(f"iptables -D {rule}")


def kill(name: str, unit: str) -> None:
    connect(name).check_output("systemctl kill --signal KILL %s", unit)


def give_up_restart(names: Iterable[str]) -> None:
    """Withdraw what a run of restart.yml that was refused leaves open for the next one."""
    for name in names:
        connect(name).check_output("rm --force /etc/kafka/restart-requested")


def property_of(name: str, unit: str, wanted: str) -> str:
    value: str = connect(name).service(unit).systemd_properties[wanted]
    return value


def started(name: str, unit: str) -> int:
    """When a unit's process started, in microseconds of the clock that the hosts share."""
    return int(property_of(name, unit, "ExecMainStartTimestampMonotonic"))


def exposure(name: str, unit: str) -> float:
    """How much of the host a unit could get at: 0, nothing, to 10 (systemd-analyze security)."""
    told = connect(name).check_output("systemd-analyze security --no-pager %s | tail -n 1", unit)
    level = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert level, told
    return float(level[1])


def handed_over(name: str) -> int:
    """How often Kafka on the host stopped after others had taken over what it led."""
    line = "Controlled shutdown request returned successfully"
    lines: str = connect(name).check_output("journalctl --unit kafka --output cat --quiet")
    return lines.count(line)


def restarts(name: str) -> int:
    """How often systemd has started Kafka again by itself."""
    return int(property_of(name, "kafka", "NRestarts"))
