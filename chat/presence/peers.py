"""What another replica has told of its people."""

from __future__ import annotations

from chat.presence.signals import People, Snapshot

# What others may make this replica remember.
MOST_PLACES = 200_000


class Peer:
    """Another replica: its people, and when it was heard."""

    def __init__(self) -> None:
        self.people: People = {}
        self.heard = 0.0
        self.seq = -1
        # Whether its people's keys say whose names are held (`Signal.holds`).
        self.holds = False
        # Who was in the parts of a snapshot so far, by room; None if there is no whole one coming.
        self._told: dict[str, set[str]] | None = None
        self._parts = 0

    def left(self, snapshot: Snapshot, follows: bool) -> dict[str, list[str]]:
        """Who has left, by what a part of a snapshot tells: who is in none of the parts.

        `follows`: no signal is missing between this one and the last.
        """
        if snapshot.part == 0:
            self._told = {}
        elif not follows or snapshot.part != self._parts:
            # A part is missing, so nobody is known to have left: the next snapshot is near.
            self._told = None
        self._parts = snapshot.part + 1
        if self._told is None:
            return {}
        told = self._told
        for room, people in snapshot.people.items():
            told.setdefault(room, set()).update(people)
        if self._parts == snapshot.parts:
            self._told = None
            return {
                room: [user for user in people if user not in told.get(room, ())]
                for room, people in self.people.items()
            }
        if sum(map(len, told.values())) > MOST_PLACES:
            self._told = None
        return {}
