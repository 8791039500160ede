"""Names of people who have left. Each stays its owner's for a while, so that nobody is taken for
them by those who do not know yet that they went.

Only a person with a key has a name to come back to, for nobody else can prove to be the same.
"""

from __future__ import annotations

import heapq
from itertools import islice

from chat.presence.names import looks_of
from chat.presence.occupants import Place
from chat.presence.signals import Reservation, Tenure, is_earlier, precedes

# Reservations of a room, and of all. Beyond, that of who stayed for the shortest time is dropped:
# names that somebody tries one after the other do not push out those of people.
MOST_OF_ROOM = 200
MOST = 20_000
# How many are dropped at once when their time is over.
MOST_EXPIRED = 2000


class Reservations:
    """`hold`: milliseconds; 0 if names are not held. Times are those of the wall clock."""

    def __init__(self, hold: int) -> None:
        self._hold = hold
        self._rooms: dict[str, dict[str, Reservation]] = {}
        # How long who left had stayed, when this was learned, and their place: the shortest first,
        # then the oldest. What is not held any more, or for another time, stays until its turn.
        self._stays: list[tuple[int, int, str, str]] = []
        self._learned = 0
        # What the names look like: to find it out costs more than all else here.
        self._looks: dict[tuple[str, str], tuple[int, ...]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, room: str, user: str, key: str, since: int, now: int) -> None:
        """The person, who was in since `since`, has left."""
        self.learn(room, user, Reservation(key, since, now + self._hold), now)

    def learn(self, room: str, user: str, reservation: Reservation, now: int) -> None:
        """Another replica knows of a reservation."""
        until = min(reservation.until, now + self._hold)
        if until <= now:
            return
        names = self._rooms.setdefault(room, {})
        known = names.get(user)
        if known is None:
            self._count += 1
            self._looks[room, user] = looks_of(user)
        elif known.until > now:
            if known.key != reservation.key:
                return
            reservation = reservation._replace(since=min(known.since, reservation.since))
        names[user] = reservation._replace(until=until)
        self._learned += 1
        heapq.heappush(self._stays, (_stay(names[user]), self._learned, room, user))
        if len(names) > MOST_OF_ROOM:
            self._drop(room, min(names, key=lambda name: _stay(names[name])))
        if self._count > MOST:
            self._drop_shortest()
        if len(self._stays) > 3 * MOST:
            self._stays = [one for one in self._stays if self._is_held(*one)]
            heapq.heapify(self._stays)

    def since(self, room: str, user: str, key: str, now: int) -> int:
        """Since when the name is the key's: from now on, unless it is held for it."""
        held = self._rooms.get(room, {}).get(user)
        return held.since if held and held.key == key and held.until > now else now

    def release(self, room: str, user: str, claim: Tenure) -> None:
        """Somebody has the name, or one that looks like it: it is held for nobody but those who had
        it first. That may be the same person, let in by a replica that did not know since when the
        name is theirs; somebody else may have been, too.
        """
        for name in self._alike(room, user):
            if not is_earlier(self._rooms[room][name], claim):
                self._drop(room, name)

    def owner(self, room: str, user: str, key: str, now: int) -> str | None:
        """The name held for somebody else that is this one or looks like it."""
        for name in self._alike(room, user):
            held = self._rooms[room][name]
            if held.key != key and held.until > now:
                return name
        return None

    def prior(self, room: str, user: str, tenure: Tenure, now: int) -> dict[str, Reservation]:
        """What is held of the name, and those that look like it, for people who had it first."""
        held = {name: self._rooms[room][name] for name in self._alike(room, user)}
        return {
            name: one for name, one in held.items() if one.until > now and precedes(one, tenure)
        }

    def expire(self, now: int) -> None:
        """Drop some of those that are over. (None of them counts any more.)"""
        over = (
            (room, user)
            for room, names in self._rooms.items()
            for user, held in names.items()
            if held.until <= now
        )
        for room, user in tuple(islice(over, MOST_EXPIRED)):
            self._drop(room, user)

    def all(self) -> dict[Place, Reservation]:
        return {
            (room, user): held
            for room, names in self._rooms.items()
            for user, held in names.items()
        }

    def _alike(self, room: str, user: str) -> list[str]:
        names = self._rooms.get(room)
        if not names:
            return []
        looks = set(looks_of(user))
        return [name for name in names if not looks.isdisjoint(self._looks[room, name])]

    def _drop_shortest(self) -> None:
        while not self._is_held(*(shortest := heapq.heappop(self._stays))):
            pass
        self._drop(*shortest[2:])

    def _is_held(self, stay: int, _: int, room: str, user: str) -> bool:
        held = self._rooms.get(room, {}).get(user)
        return held is not None and _stay(held) == stay

    def _drop(self, room: str, user: str) -> None:
        names = self._rooms[room]
        del names[user], self._looks[room, user]
        self._count -= 1
        if not names:
            del self._rooms[room]


def _stay(held: Reservation) -> int:
    """How long they had stayed, and a constant."""
    return held.until - held.since
