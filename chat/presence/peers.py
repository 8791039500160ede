"""The people of another replica, according to its signals."""

from __future__ import annotations

from collections.abc import Iterator

from chat.presence.occupants import Holder, Place
from chat.presence.signals import Snapshot


class Peer:
    """Another replica: its people, and when its last signal arrived.

    While a snapshot is arriving, people it has not named yet are kept apart from those it has. So
    at its end it is known who has left, without a search through all people.
    """

    def __init__(self) -> None:
        self.people: dict[Place, Holder] = {}
        # People whom the current snapshot has not named yet.
        self._doubted: dict[Place, Holder] = {}
        # Whether the snapshot is complete, so that those people have left.
        self._left = False
        # Whether the replica is considered dead.
        self.dead = False
        self.heard = 0.0
        self.seq = -1
        # Whether its people's keys tell whose names are reserved when they leave (`Signal.holds`).
        self.holds = False
        # Parts of the current snapshot so far; None if no complete snapshot is arriving.
        self._parts: int | None = None

    def __len__(self) -> int:
        return len(self.people) + len(self._doubted)

    def get(self, place: Place) -> Holder | None:
        return self.people.get(place) or self._doubted.get(place)

    def put(self, holder: Holder) -> None:
        """Add a person, or replace the claim of the one at this place."""
        self._doubted.pop(holder.place, None)
        self.people[holder.place] = holder

    def confirm(self, place: Place) -> None:
        """Mark a person as still present."""
        if (holder := self._doubted.pop(place, None)) is not None:
            self.people[place] = holder

    def pop(self, place: Place) -> Holder | None:
        """Remove a person, if present."""
        return self.people.pop(place, None) or self._doubted.pop(place, None)

    def begin(self, snapshot: Snapshot, *, follows: bool) -> None:
        """Prepare for the people in one part of a snapshot. `follows`: no signal is missing between
        this one and the last.
        """
        if snapshot.part == 0:
            self._doubt_all()
            self._parts = 0
        elif not follows or snapshot.part != self._parts:
            # A part is missing, so it is unknown who has left. The next snapshot will tell.
            self._parts = None

    def end(self, snapshot: Snapshot) -> None:
        """Finish one part. After the last one, people whom no part named have left."""
        if self._parts is None:
            return
        self._parts += 1
        if self._parts == snapshot.parts:
            self._parts = None
            self._left = True

    def die(self) -> None:
        """Treat everyone as having left."""
        self.dead = True
        self._doubt_all()
        self._parts = None
        self._left = True

    def left(self, most: int) -> Iterator[Holder]:
        """Remove and return up to `most` people who have left."""
        while self._left and self._doubted and most:
            yield self._doubted.popitem()[1]
            most -= 1

    @property
    def settled(self) -> bool:
        """Whether all people who have left are removed."""
        return not (self._left and self._doubted)

    def _doubt_all(self) -> None:
        self._left = False
        if self._doubted:
            # The previous snapshot was never completed.
            self.people.update(self._doubted)
        self.people, self._doubted = {}, self.people
