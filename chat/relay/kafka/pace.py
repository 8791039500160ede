"""Tells a busy log from a quiet one, so that the reader fetches the former less often. No I/O."""

from __future__ import annotations

# Records a second. With fewer, fetches cost little, and nobody should wait for an `ack`. With this
# many, a fetch brings 20 of them after the longest wait (`client.GATHER_MS`).
BUSY_RATE = 1000
# The rate is that of the last period, so that a single burst is not taken for a busy log.
PERIOD_SECONDS = 0.1


class Pace:
    """`now`: the time in seconds, by any clock that only goes forward."""

    def __init__(self, now: float) -> None:
        self.busy = False
        self._began = now
        self._records = 0

    def count(self, records: int, now: float) -> None:
        """A poll brought so many records."""
        self._records += records
        if now - self._began >= PERIOD_SECONDS:
            self.busy = self._records >= BUSY_RATE * (now - self._began)
            self._began, self._records = now, 0
