"""Stops, kills, cuts off and inspects units on hosts."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hosts import connect


@contextmanager
def stopped(name: str, unit: str) -> Iterator[None]:
    """Stop a unit, and start it again at the end."""
    host = connect(name)
    host.check_output("systemctl stop %s", unit)
    try:
        yield
    finally:
        host.check_output("systemctl start %s", unit)


@contextmanager
def firewalled(name: str, *rules: str) -> Iterator[None]:
    """Insert these iptables rules (CHAIN and match) on a host; delete them at the end."""
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
    """Cancel the restarts that a refused run of restart.yml leaves for the next run."""
    for name in names:
        connect(name).check_output("rm --force /etc/kafka/restart-requested")


def property_of(name: str, unit: str, wanted: str) -> str:
    value: str = connect(name).service(unit).systemd_properties[wanted]
    return value


def started(name: str, unit: str) -> int:
    """The start of a unit's process, in microseconds of the monotonic clock, which hosts share."""
    return int(property_of(name, unit, "ExecMainStartTimestampMonotonic"))


def exposure(name: str, unit: str) -> float:
    """A unit's exposure level in `systemd-analyze security`: 0 is fully confined, 10 unconfined."""
    told = connect(name).check_output("systemd-analyze security --no-pager %s | tail -n 1", unit)
    level = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert level, told
    return float(level[1])


def handed_over(name: str) -> int:
    """The number of controlled shutdowns of the host's broker: others took over its partitions."""
    line = "Controlled shutdown request returned successfully"
    lines: str = connect(name).check_output("journalctl --unit kafka --output cat --quiet")
    return lines.count(line)


def restarts(name: str) -> int:
    """The number of automatic restarts of Kafka by systemd."""
    return int(property_of(name, "kafka", "NRestarts"))
