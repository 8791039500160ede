"""Tells a busy log from a quiet one, so that the reader fetches less often from a busy one. No
I/O.
"""

from __future__ import annotations

# Records per second. Below this rate, fetches cost little, and nobody should wait for an `ack`. At
# this rate, a fetch returns 20 records after the longest wait (`client.GATHER_MS`).
BUSY_RATE = 1000
# The rate is measured over this period, so that a single burst does not count as a busy log.
PERIOD_SECONDS = 0.1


class Pace:
    """`now`: the time in seconds, from any monotonic clock."""

    def __init__(self, now: float) -> None:
        self.busy = False
        self._began = now
        self._records = 0

    def count(self, records: int, now: float) -> None:
        """A poll returned this many records."""
        self._records += records
        if now - self._began >= PERIOD_SECONDS:
            self.busy = self._records >= BUSY_RATE * (now - self._began)
            self._began, self._records = now, 0
