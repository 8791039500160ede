"""What a client may make the server do, whatever it says: every read, every frame and every byte of
them is charged to one budget, before and after `hello`.

It is counted in bytes. A frame and a read cost more than what they bring, so each is charged as if
it brought some bytes more. A client that keeps to its rate of messages never feels it. One that
does not is not read for a while, so that its own sending waits; one that goes on like that is
closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from chat.websocket.wheel import TICK_SECONDS

FRAME_BYTES = 1024
READ_BYTES = 256
# The largest header of a frame.
HEADER_BYTES = 14
# Who has been over budget for so long, and has not once had half of it back, is closed.
PERSIST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Bytes per second for long, and bytes at once."""

    rate: int
    burst: int

    @classmethod
    def of_messages(cls, rate: int, burst: int, size: int) -> Self:
        """So many messages per second and at once, each of `size` bytes in a frame and a read."""
        each = READ_BYTES + FRAME_BYTES + HEADER_BYTES + size
        return cls(rate * each, burst * each)


class Budget:
    """What is left for one client. Times are ticks of the wheel."""

    __slots__ = ("_over_since", "_then", "left")

    def __init__(self, allowance: Allowance, now: int) -> None:
        # Negative: whether it is over budget follows from the time that has passed. At first it is
        # a second's worth: who connects again and again gains little.
        self.left = min(allowance.rate, allowance.burst)
        self._then = now
        self._over_since: int | None = None

    def charge_read(self, size: int) -> None:
        self.left -= READ_BYTES + size

    def charge_frames(self, number: int) -> None:
        self.left -= number * FRAME_BYTES

    def over(self, allowance: Allowance, now: int) -> bool:
        """Whether more was charged than is allowed until now."""
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
