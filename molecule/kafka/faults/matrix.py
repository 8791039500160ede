"""A row of the fault matrix: its goals, the traffic during the fault, and its line in the table."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hosts import eventually
from kafka_clients import application, whole
from traffic import Traffic


@dataclass
class Fault:
    """A row of the matrix and its results."""

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
        """Traffic during the fault. At the end, assert that nothing was lost, and check the gap."""
        if servers is None:
            servers, security = application()
        flows = Traffic(servers, self.topic, acks=acks, security=security)
        with flows as self._traffic:
            yield self._traffic
        if self.gap_goal is not None:
            self._traffic.assert_gap(self.gap_goal)

    def recovers(self) -> None:
        """Wait until writes, reads and replicas are as before. Call it when the fault has ended."""
        assert self._traffic is not None, "call it within the block of Fault.traffic"
        began = time.monotonic()
        # Wait for traffic first: until others have taken over, the metadata shows a killed broker
        # as healthy.
        self._traffic.goes_on(within=2 * self.recovery_goal)
        eventually(whole, within=2 * self.recovery_goal, what="every replica is in sync again")
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
