"""One timer for the deadlines of all connections: a hashed timing wheel.

A deadline is put into the slot of its tick, and each tick checks one slot. So a deadline costs an
entry in a dict instead of a timer of the event loop, however many connections there are (Varghese
and Lauck, "Hashed and Hierarchical Timing Wheels", 1987, scheme 6).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

TICK_SECONDS = 0.1
# A power of two. Deadlines further away than one turn (51 s) wait in their slot for a later turn.
SLOTS = 512
# Maximum number of missed ticks that are caught up at once. While the process was blocked for
# longer, it could not receive anything, so a client that answers now is not late.
MOST_MADE_UP = 5


class Timed(Protocol):
    """Something with at most one deadline. `due` belongs to the wheel: the tick of the deadline, or
    None.
    """

    due: int | None

    def on_deadline(self) -> None: ...


class Wheel:
    """Calls `on_deadline` at most one tick late, and `on_lag` with the delay of each tick."""

    def __init__(self, on_lag: Callable[[float], object]) -> None:
        # (Sets of so many take more memory than dicts.)
        self._slots: list[dict[Timed, None]] = [{} for _ in range(SLOTS)]
        # Ticks so far: a clock that costs nothing to read.
        self.now = 0
        self._on_lag = on_lag
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._arm(asyncio.get_running_loop().time() + TICK_SECONDS)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def schedule(self, timed: Timed, seconds: float) -> None:
        """Set the deadline of `timed`, replacing the old one, if any."""
        self.cancel(timed)
        # Plus one, because part of the current tick is over.
        timed.due = due = self.now + 1 + math.ceil(seconds / TICK_SECONDS)
        self._slots[due % SLOTS][timed] = None

    def cancel(self, timed: Timed) -> None:
        if timed.due is not None:
            self._slots[timed.due % SLOTS].pop(timed, None)
            timed.due = None

    def _arm(self, when: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(when - loop.time(), self._tick, when)

    def _tick(self, when: float) -> None:
        late = max(0.0, asyncio.get_running_loop().time() - when)
        self._on_lag(late)
        passed = 1 + int(late / TICK_SECONDS)
        self._arm(when + passed * TICK_SECONDS)
        self.turn(min(passed, 1 + MOST_MADE_UP))

    def turn(self, ticks: int) -> None:
        """Advance by this many ticks."""
        for _ in range(ticks):
            self.now += 1
            slot = self._slots[self.now % SLOTS]
            for timed in tuple(slot):
                # Skip deadlines of a later turn, and those that a call just before has cancelled.
                if timed.due == self.now:
                    self.cancel(timed)
                    timed.on_deadline()
            if not slot:
                # An emptied dict keeps its memory; a cleared one does not.
                slot.clear()
