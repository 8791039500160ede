"""Messages that have left the window, but that this replica still remembers to be in the log.

Whether a record is a repeat depends on the window before it (`Room.forget`), in the same way on all
replicas. But other rooms in its partition may fill the window within seconds, and a client without
an `ack` may retry after minutes. Such a retry is answered from here with the id of the first
message, and nothing is appended. This prevents a message from being shown twice; the log does not
depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from chat.room import First, Key

# Minimum time to remember a message after it left the window, in seconds.
KEPT_SECONDS = 600.0
# Do not remember more messages of a room that has this many in the window, so that a busy room does
# not displace others.
ENOUGH = 100
# Minimum number of remembered messages, however many leave the window.
LEAST = 10_000


class Repeats:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Two generations: dropping the older one costs nothing.
        self._new: dict[tuple[str, Key], First] = {}
        self._old: dict[tuple[str, Key], First] = {}
        self._since = clock()

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def add(self, room: str, key: Key, first: First) -> None:
        """Remember a message of `room` that has left the window."""
        self._new[room, key] = first
        if len(self._new) >= LEAST:
            self._age()

    def first(self, room: str, key: Key) -> First | None:
        """Find a message that has left the window; None if it is not remembered."""
        found = self._new.get((room, key))
        return self._old.get((room, key)) if found is None else found

    def expire(self) -> None:
        """Forget messages that were remembered long enough; called periodically."""
        if self._clock() - self._since >= KEPT_SECONDS:
            self._age()

    def _age(self) -> None:
        self._old, self._new = self._new, {}
        self._since = self._clock()
