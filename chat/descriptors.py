"""Limits of open files and sockets of this process, and how they are shared."""

from __future__ import annotations

import resource
from typing import NamedTuple

# Logs, ports, pipes, connections to brokers, health checks and scrapes of metrics.
OTHERS = 128
# Below it, nobody could be served.
LEAST = 32


class Places(NamedTuple):
    """How many connections there may be: WebSockets, and those that are none yet."""

    clients: int
    pending: int


def raise_limit() -> None:
    """Allow this process all descriptors that it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    """How many descriptors this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def share(descriptors: int, clients: int, pending: int) -> Places:
    """Divide the available descriptors: as many as requested, or as many as fit.

    Raises `OSError` if there is not enough for anything.
    """
    if descriptors < LEAST:
        raise OSError(
            f"this process may open {descriptors} files: allow it {LEAST} or more (ulimit -n)"
        )
    left = descriptors - min(OTHERS, descriptors // 4)
    pending = min(pending, left // 4)
    return Places(min(clients, left - pending), pending)
