"""Units of a host, stopped, killed and asked."""

from collections.abc import Iterator
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


def kill(name: str, unit: str) -> None:
    connect(name).check_output("systemctl kill --signal KILL %s", unit)


def property_of(name: str, unit: str, wanted: str) -> str:
    value: str = connect(name).service(unit).systemd_properties[wanted]
    return value


def restarts(name: str) -> int:
    """How often systemd has started Kafka again by itself."""
    return int(property_of(name, "kafka", "NRestarts"))
