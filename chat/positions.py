"""Tells members how far they have seen, when the log moves on without their room.

A client that comes back gives its last position. While that is in the window, all that it missed is
known. So a position is worth a frame when the old one is about to leave the window: members are
told when half of the window lies between. Beside that they are told once in a while, for the log
itself keeps its records only for some time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from chat.protocol import Progress
from chat.room import Room, frame_of
from chat.window import Partition, Window

# How often it is looked whether a position is about to leave the window.
LOOK_SECONDS = 0.25


class Positions:
    """`window` gives the window of now. Members are told at least every `seconds` while the log
    moves.
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
                told = partition.position
                for room in tuple(partition.occupied):
                    if room.known < (partition.position if due else partition.middle):
                        _tell(room, partition)
                        # Others have their turn in between.
                        await asyncio.sleep(0)
                partition.told = min((room.known for room in partition.occupied), default=told)
                if due:
                    partition.told_at = now


def _tell(room: Room, partition: Partition) -> None:
    room.told = partition.position
    frame = frame_of(Progress(room.name, room.position(partition.position)))
    for member in tuple(room.members):
        member.connection.push(frame)
