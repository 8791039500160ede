"""Drain: disconnect clients in batches, as fast as other replicas can accept them.

Batches are spread evenly over most of the available time, with a minimum rate. While other replicas
report that nearly all clients have arrived, the rate is up to twice as high; the time gained is
used to wait when clients arrive slowly. Requests that wait for the log get their answers first.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

BATCH_SECONDS = 0.1
SPREAD = 0.9
LEAST_PER_SECOND = 20
FEW_AWAY = 0.05
# Short: batches follow each other evenly enough, this spreads one over the time until the next.
RETRY_SECONDS = (0.05, 0.25)


class Client(Protocol):
    def send_away(self, reason: str, retry_after: float) -> None:
        """Ask the client to reconnect after `retry_after` seconds."""


class Presence(Protocol):
    @property
    def places(self) -> int:
        """How many people are in rooms, on all replicas. A person in two rooms counts twice."""


class Pace:
    """The rate at which to disconnect a number of clients within a time."""

    def __init__(self, clients: int, seconds: float) -> None:
        self._clients = clients
        self._per_second = max(clients / max(seconds, BATCH_SECONDS), LEAST_PER_SECOND)

    def batch(self, left: int, passed: float) -> tuple[int, int]:
        """Return how many of the `left` clients must be disconnected now, and how many may be.
        `passed` is in seconds.

        On average, twice as many may as must. The required number never exceeds the allowed one,
        not even after the process was blocked for a moment.
        """
        most = min(left, math.ceil(2 * BATCH_SECONDS * self._per_second))
        late = left - self._clients + math.ceil((passed + BATCH_SECONDS) * self._per_second)
        return max(0, min(late, most)), most


class InFlight:
    """Requests that are being answered."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        self._count += 1
        self._none.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._none.set()

    async def answered(self, seconds: float) -> int:
        """Wait until all are answered, at most so long. Returns how many are not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none.wait()
        return self._count


async def send_away(leaving: Iterable[Client], presence: Presence, seconds: float) -> None:
    """Ask all clients to reconnect. The last one is asked within `SPREAD` of this time."""
    clients = list(leaving)
    # Shuffle, so that the oldest connections are not always first.
    random.shuffle(clients)
    nearly_all = (1 - FEW_AWAY) * presence.places
    pace = Pace(len(clients), SPREAD * seconds)
    began = time.monotonic()
    while clients:
        must, may = pace.batch(len(clients), time.monotonic() - began)
        for number in range(may):
            # A disconnected client leaves its rooms at once, and is counted again after it has
            # reconnected.
            if number >= must and presence.places <= nearly_all:
                break
            clients.pop().send_away("restart", random.uniform(*RETRY_SECONDS))
        if clients:
            await asyncio.sleep(random.uniform(0.5, 1.5) * BATCH_SECONDS)
