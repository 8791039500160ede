"""Slow mode: in the rooms of some rules, a person sends at most one message in so many seconds.

The log says when somebody sent what, and every replica reads all of it. So replicas need not tell
each other, and one that starts knows what its window has. A message counts from the moment on when
a replica takes it, before the log has it. So one replica never takes two within the time. Two
replicas may both take one within the milliseconds that the log needs. Times are the log's: clocks
that differ make the time shorter or longer by as much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from chat.protocol import ErrorCode, RefusedError
from chat.rights import Rules

# Maximum number of rooms and people in them that are remembered, in 30 MB. Beyond that, the people
# who have sent nothing for the longest time may send again.
MOST = 50_000
# Maximum number of rooms in which one person waits. So nobody makes a replica forget who has to
# wait by sending to many rooms.
MOST_ROOMS = 100


class Slow:
    def __init__(self, rules: Rules, clock: Callable[[], float] = time.time) -> None:
        self._rules = rules
        self._clock = clock
        # When each author sent their last message to each room (seconds since the epoch), and its
        # cid until the log has it. The last ones are at the end, as are the authors who sent last.
        self._sent: dict[str, dict[str, tuple[float, str]]] = {}
        self._count = 0

    def check(self, room: str, author: str, cid: str) -> None:
        """Raises `RefusedError` if the author has to wait. A message that is sent again need not:
        the first time, it may not have reached the log. (The window knows those that have.)
        """
        seconds = self._rules.slow(room)
        mine = self._sent.get(author) if seconds else None
        if mine is None:
            return
        now = self._clock()
        if room in mine:
            if mine[room][1] == cid:
                return
            wait = self._wait(mine, room, now)
            why = f"each person sends at most one message in {seconds} s to {room}"
        elif len(mine) >= MOST_ROOMS:
            wait = min(self._wait(mine, other, now) for other in mine)
            why = f"you have sent to {MOST_ROOMS} rooms, and cannot send to any of them yet"
        else:
            return
        if wait > 0:
            raise RefusedError(
                ErrorCode.RATE_LIMITED,
                f"Slow mode: {why}. Yours may go in {wait} s.",
                retry_after=wait,
            )

    def sent(self, room: str, author: str, cid: str, at: float | None = None) -> None:
        """A replica takes the message now, or the log took it at that time."""
        seconds = self._rules.slow(room)
        if not seconds:
            return
        now = self._clock()
        entry = (now, cid) if at is None else (min(at, now), "")
        if entry[0] + seconds <= now:
            return
        mine = self._sent.pop(author, {})
        last = mine.pop(room, None)
        if last is None:
            self._count += 1
        elif last[0] > entry[0]:
            entry = (last[0], "") if at is not None and last[1] == cid else last
        mine[room] = entry
        self._sent[author] = mine
        if len(mine) > MOST_ROOMS:
            # Moderators, who need not wait, and what other replicas took at the same moment.
            self._drop(author, min(mine, key=lambda other: self._wait(mine, other, now)))
        # Forget a few who need not wait, so that each message pays for the memory it takes.
        before = now - self._rules.slowest
        self._forget(author, before)
        for _ in range(2):
            self._forget(next(iter(self._sent)), before if self._count <= MOST else math.inf)

    def _wait(self, mine: dict[str, tuple[float, str]], room: str, now: float) -> int:
        """For how many seconds its author waits in the room; 0 or less: not any more."""
        at, pending = mine[room]
        if at > now:
            # The clock was set back. They wait once more, and not until it is that late again.
            at = now
            mine[room] = (at, pending)
        return math.ceil(at + self._rules.slow(room) - now)

    def _forget(self, author: str, before: float) -> None:
        """Forget the author's oldest message, if it was sent before that time."""
        room, (at, _) = next(iter(self._sent[author].items()))
        if at <= before:
            self._drop(author, room)

    def _drop(self, author: str, room: str) -> None:
        self._count -= 1
        mine = self._sent[author]
        del mine[room]
        if not mine:
            del self._sent[author]
