"""What another replica has told of its people."""

from __future__ import annotations

from collections.abc import Iterator

from chat.presence.occupants import Holder, Place
from chat.presence.signals import Snapshot


class Peer:
    """Another replica: its people, and when it was heard.

    While a snapshot comes, those it has named are apart from those it has not. So once it is whole
    it is known who has left, however many they all are.
    """

    def __init__(self) -> None:
        self.people: dict[Place, Holder] = {}
        # Those that the snapshot which comes has not named so far.
        self._doubted: dict[Place, Holder] = {}
        # Whether it has come to its end, so that they have left.
        self._left = False
        # Whether the replica is taken for dead.
        self.dead = False
        self.heard = 0.0
        self.seq = -1
        # Whether its people's keys say whose names are held (`Signal.holds`).
        self.holds = False
        # Parts of the snapshot so far; None if there is no whole one coming.
        self._parts: int | None = None

    def __len__(self) -> int:
        return len(self.people) + len(self._doubted)

    def get(self, place: Place) -> Holder | None:
        return self.people.get(place) or self._doubted.get(place)

    def put(self, holder: Holder) -> None:
        """Somebody is there, instead of who held this place before."""
        self._doubted.pop(holder.place, None)
        self.people[holder.place] = holder

    def confirm(self, place: Place) -> None:
        """Somebody who was there is still there."""
        if (holder := self._doubted.pop(place, None)) is not None:
            self.people[place] = holder

    def pop(self, place: Place) -> Holder | None:
        """Somebody has left, if they were there."""
        return self.people.pop(place, None) or self._doubted.pop(place, None)

    def begin(self, snapshot: Snapshot, *, follows: bool) -> None:
        """A part of a snapshot has come. `follows`: no signal is missing between this one and the
        last.
        """
        if snapshot.part == 0:
            self._doubt_all()
            self._parts = 0
        elif not follows or snapshot.part != self._parts:
            # A part is missing, so nobody is known to have left: the next snapshot is near.
            self._parts = None

    def end(self, snapshot: Snapshot) -> None:
        """That part has been taken in. After the last one, those who were not named have left."""
        if self._parts is None:
            return
        self._parts += 1
        if self._parts == snapshot.parts:
            self._parts = None
            self._left = True

    def die(self) -> None:
        """All have left."""
        self.dead = True
        self._doubt_all()
        self._parts = None
        self._left = True

    def left(self, most: int) -> Iterator[Holder]:
        """Take out so many of those who have left."""
        while self._left and self._doubted and most:
            yield self._doubted.popitem()[1]
            most -= 1

    @property
    def settled(self) -> bool:
        """Whether nobody is here who has left."""
        return not (self._left and self._doubted)

    def _doubt_all(self) -> None:
        self._left = False
        if self._doubted:
            # The last snapshot had no end.
            self.people.update(self._doubted)
        self.people, self._doubted = {}, self.people
