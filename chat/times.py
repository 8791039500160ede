"""The times at which the log stored the records of a window. They distinguish a record from another
one at the same offset.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence

# Remove this many at once, because a removal costs as much as there are entries left.
FORGOTTEN = 1000


class Times:
    """The times of one partition. `Batch.times` describes the pairs."""

    __slots__ = ("_after", "_offsets", "_times")

    def __init__(self, after: int) -> None:
        # Nothing is known about this offset and earlier ones.
        self._after = after
        self._offsets = array("q")
        self._times = array("q")

    def add(self, times: Sequence[tuple[int, int]]) -> None:
        for offset, time in times:
            self._offsets.append(offset)
            self._times.append(time)

    def at(self, offset: int) -> int:
        """The time in milliseconds since the epoch; 0 if unknown."""
        if offset <= self._after or not self._offsets or offset > self._offsets[-1]:
            return 0
        return self._times[bisect_left(self._offsets, offset)]

    def forget(self, floor: int) -> None:
        """Drop the times before offset `floor`, which nobody needs any more."""
        count = bisect_left(self._offsets, floor)
        if count >= FORGOTTEN:
            self._after = self._offsets[count - 1]
            del self._offsets[:count], self._times[:count]
