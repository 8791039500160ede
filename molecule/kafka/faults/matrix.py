"""A row of the matrix of faults: its goals, the traffic through it, and its line in the table."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hosts import eventually
from kafka_clients import bootstrap, whole
from traffic import Traffic


@dataclass
class Fault:
    """A row of the matrix, and what became of it."""

    row: str
    what: str
    gap_goal: float | None
    recovery_goal: float
    topic: str
    recovery: float | None = None
    outcome: str = "?"
    _traffic: Traffic | None = field(default=None, repr=False)

    @contextmanager
    def traffic(
        self,
        servers: list[str] | None = None,
        security: Mapping[str, Any] | None = None,
        *,
        acks: str | int = "all",
    ) -> Iterator[Traffic]:
        """Traffic through the fault; afterwards nothing is lost and the gap is within bounds."""
        flows = Traffic(servers or bootstrap(), self.topic, acks=acks, security=security)
        with flows as self._traffic:
            yield self._traffic
        if self.gap_goal is not None:
            self._traffic.assert_gap(self.gap_goal)

    def recovers(self) -> None:
        """Wait until all is as before the fault; to be called when it has been taken away."""
        assert self._traffic is not None, "nothing flows"
        began = time.monotonic()
        # In this order: brokers only know that one of them was killed when others have its place.
        self._traffic.goes_on(within=2 * self.recovery_goal)
        eventually(whole, within=2 * self.recovery_goal, what="every copy is in sync again")
        self.recovery = max(time.monotonic() - began, self.recovery or 0)

    def cells(self) -> list[str]:
        traffic = self._traffic
        counts = ["", "", "", "", ""]
        gap = None
        if traffic is not None and traffic.history.log:
            found = traffic.violations
            gap = traffic.longest_gap
            counts = [
                str(len(each))
                for each in (
                    traffic.history.acknowledged,
                    traffic.failed,
                    found.lost,
                    found.duplicated,
                    found.misordered,
                )
            ]
        return [
            self.row,
            self.what,
            self.outcome,
            _against(gap, self.gap_goal),
            _against(self.recovery, self.recovery_goal),
            *counts,
        ]


def _against(measured: float | None, goal: float | None) -> str:
    if measured is None:
        return ""
    if goal is None:
        return f"{measured:.1f}"
    return f"{measured:.1f} of {goal:g}{' MISSED' if measured > goal else ''}"


HEADINGS = ["row", "fault", "", "gap s", "back s", "acked", "failed", "lost", "twice", "misordered"]
