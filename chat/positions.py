"""Sends `position` frames when the log moves on without messages in a room.

A client that reconnects sends its last position. While that is in the window, all missed messages
are known. Therefore members get a new position before the old one leaves the window: when half of
the window lies between. They also get one periodically, because the log itself deletes old records.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from chat.protocol import Progress
from chat.room import Member, Room, frame_of
from chat.window import Partition, Window

# Interval of the check whether a position is about to leave the window.
LOOK_SECONDS = 0.25
# Members to notify per turn.
TURN = 100


class Positions:
    """`window` returns the current window. Members get a position at least every `seconds` while
    the log advances.
    """

    def __init__(self, window: Callable[[], Window], seconds: float) -> None:
        self._window = window
        self._seconds = seconds

    async def run(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self._seconds))
            now = time.monotonic()
            self._window().expire()
            for partition in self._window().partitions:
                if partition.told == partition.position:
                    continue
                due = now - partition.told_at >= self._seconds
                if not due and partition.told >= partition.middle:
                    continue
                wanted = partition.position if due else partition.middle
                await _tell(partition, [room for room in partition.occupied if room.seen < wanted])
                partition.told = min(
                    (room.seen for room in partition.occupied), default=partition.position
                )
                if due:
                    partition.told_at = now


async def _tell(partition: Partition, rooms: Sequence[Room]) -> None:
    """Send the position to the members of these rooms. Each member gets the frames of all its rooms
    at once.
    """
    position = partition.position
    rooms_of: dict[Member, list[Room]] = {}
    for room in rooms:
        for member in room.members:
            rooms_of.setdefault(member, []).append(room)
    frames: dict[Room, bytes] = {}
    for number, (member, theirs) in enumerate(rooms_of.items(), 1):
        for room in theirs:
            if room not in frames:
                frames[room] = frame_of(Progress(room.name, room.position(partition.position)))
            if member in room.members:
                member.connection.push(frames[room])
        if number % TURN == 0:
            # Let other tasks run. The log may advance meanwhile.
            frames.clear()
            await asyncio.sleep(0)
    for room in rooms:
        room.told = position
