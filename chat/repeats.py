"""Messages that have left the window, as far as this replica remembers that the log has them.

What is a repeat in the log is decided by the window before it (`Room.forget`), alike on all
replicas. But others in its partition may fill the window within seconds, and a client that got no
`ack` sends again after minutes. It is answered from here, with the id of the first one, and nothing
is appended. This saves a message from being shown twice; the log does not depend on it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from chat.room import Key

# How long after it left the window a message is remembered, in seconds.
KEPT_SECONDS = 600.0
# Messages of one room, and of all: whoever says much in one room does not make others forgotten.
MOST_OF_ROOM = 100
MOST = 20_000


class _Left:
    """The messages of one room: where each was first, the oldest first."""

    __slots__ = ("last", "offsets")

    def __init__(self) -> None:
        self.offsets: dict[Key, int] = {}
        self.last = 0.0


class Repeats:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The room whose messages left last is the last one.
        self._rooms: OrderedDict[str, _Left] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, room: str, key: Key, first: int) -> None:
        """A message of `room` has left the window; it was first at offset `first`."""
        left = self._rooms.get(room)
        if left is None:
            left = self._rooms[room] = _Left()
        else:
            self._rooms.move_to_end(room)
        offsets = left.offsets
        if offsets.pop(key, None) is None:
            if len(offsets) >= MOST_OF_ROOM:
                del offsets[next(iter(offsets))]
            else:
                self._count += 1
        offsets[key] = first
        left.last = self._clock()
        while self._count > MOST:
            self._drop()

    def first(self, room: str, key: Key) -> int | None:
        """The offset of a message that has left the window; None if it is not remembered."""
        left = self._rooms.get(room)
        return None if left is None else left.offsets.get(key)

    def expire(self) -> None:
        """Forget rooms that nothing has left for long."""
        until = self._clock() - KEPT_SECONDS
        while self._rooms and next(iter(self._rooms.values())).last < until:
            self._drop()

    def _drop(self) -> None:
        _, left = self._rooms.popitem(last=False)
        self._count -= len(left.offsets)
