"""Messages that have left the window, as far as this replica remembers that the log has them.

What is a repeat in the log is decided by the window before it (`Room.forget`), alike on all
replicas. But others in its partition may fill the window within seconds, and a client that got no
`ack` sends again after minutes. It is answered from here, with the id of the first one, and nothing
is appended. This saves a message from being shown twice; the log does not depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from chat.room import First, Key

# How long after it left the window a message is remembered at least, in seconds.
KEPT_SECONDS = 600.0
# A room that has so many messages in the window needs no more to be remembered: so who says much
# does not make others forgotten.
ENOUGH = 100
# Messages that are remembered at least, however many leave the window meanwhile.
LEAST = 10_000


class Repeats:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Messages are forgotten by generations, for that costs nothing.
        self._new: dict[tuple[str, Key], First] = {}
        self._old: dict[tuple[str, Key], First] = {}
        self._since = clock()

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def add(self, room: str, key: Key, first: First) -> None:
        """A message of `room` has left the window."""
        self._new[room, key] = first
        if len(self._new) >= LEAST:
            self._age()

    def first(self, room: str, key: Key) -> First | None:
        """A message that has left the window; None if it is not remembered."""
        found = self._new.get((room, key))
        return self._old.get((room, key)) if found is None else found

    def expire(self) -> None:
        """Forget what is remembered for long enough; called once in a while."""
        if self._clock() - self._since >= KEPT_SECONDS:
            self._age()

    def _age(self) -> None:
        self._old, self._new = self._new, {}
        self._since = self._clock()
