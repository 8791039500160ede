"""The limit of open files and sockets of this process, and how it is divided."""

from __future__ import annotations

import resource
from typing import NamedTuple

# Reserved for logs, ports, pipes, broker connections, health checks and metrics scrapes.
OTHERS = 128
# With fewer, the server cannot serve anybody.
LEAST = 32


class Places(NamedTuple):
    """Maximum number of connections: WebSockets (`clients`), and connections that are not
    WebSockets yet (`pending`).
    """

    clients: int
    pending: int


def raise_limit() -> None:
    """Raise the soft limit of descriptors to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    """Maximum number of open descriptors of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def share(descriptors: int, clients: int, pending: int) -> Places:
    """Divide the available descriptors: as many as requested, or as many as fit.

    Raises `OSError` if there are too few to serve anybody.
    """
    if descriptors < LEAST:
        raise OSError(
            f"this process may open {descriptors} files: allow it {LEAST} or more (ulimit -n)"
        )
    left = descriptors - min(OTHERS, descriptors // 4)
    pending = min(pending, left // 4)
    return Places(min(clients, left - pending), pending)
