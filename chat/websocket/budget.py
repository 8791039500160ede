"""Limits what a client can make the server read. Every read, every frame and every byte is charged
to one budget, before and after `hello`.

The unit is bytes. A frame and a read cost more than their bytes, so each is charged a fixed number
of bytes in addition. A client within its message rate never notices. The server stops reading from
a client over budget for a while, so that its sending blocks (backpressure), and closes a client
that stays over budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from chat.websocket.wheel import TICK_SECONDS

FRAME_BYTES = 1024
READ_BYTES = 256
# The largest header of a frame.
HEADER_BYTES = 14
# A client is closed if it has been over budget for this long without getting half of the budget
# back.
PERSIST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Sustained rate in bytes per second, and burst in bytes."""

    rate: int
    burst: int

    @classmethod
    def of_messages(cls, rate: int, burst: int, size: int) -> Self:
        """The allowance for a rate and a burst of messages, each of `size` bytes in its own frame
        and read.
        """
        each = READ_BYTES + FRAME_BYTES + HEADER_BYTES + size
        return cls(rate * each, burst * each)


class Budget:
    """The remaining budget of one client. Times are ticks of the wheel."""

    __slots__ = ("_over_since", "_then", "left")

    def __init__(self, allowance: Allowance, now: int) -> None:
        # Negative: only the elapsed time tells whether the client is over budget. It starts with
        # the budget of one second, so that reconnecting again and again gains little.
        self.left = min(allowance.rate, allowance.burst)
        self._then = now
        self._over_since: int | None = None

    def charge_read(self, size: int) -> None:
        self.left -= READ_BYTES + size

    def charge_frames(self, number: int) -> None:
        self.left -= number * FRAME_BYTES

    def over(self, allowance: Allowance, now: int) -> bool:
        """Whether more was charged than allowed until now."""
        if self.left >= 0:
            return False
        earned = int((now - self._then) * TICK_SECONDS * allowance.rate)
        self.left = min(allowance.burst, self.left + earned)
        self._then = now
        if self.left >= allowance.burst // 2:
            self._over_since = None
        if self.left >= 0:
            return False
        if self._over_since is None:
            self._over_since = now
        return True

    def persists(self, now: int) -> bool:
        """Whether the client has been over budget for too long."""
        return (
            self._over_since is not None
            and (now - self._over_since) * TICK_SECONDS >= PERSIST_SECONDS
        )
