"""Reservations: names of people who have left. A name stays reserved for its owner for a while.
Otherwise somebody could take it, and members who have not noticed the change would mistake one for
the other.

Only a person with a key gets a reservation, because nobody else can prove to be the same person.
"""

from __future__ import annotations

import heapq
from itertools import islice

from chat.presence.names import looks_of
from chat.presence.occupants import Place
from chat.presence.signals import Reservation, Tenure, is_earlier, precedes

# Maximum number of reservations per room and in total. Beyond that, the reservation of the person
# with the shortest stay is dropped. So somebody who tries many names cannot push out the
# reservations of others.
MOST_OF_ROOM = 200
MOST = 20_000
# How many expired reservations are dropped per call.
MOST_EXPIRED = 2000


class Reservations:
    """`hold`: duration in milliseconds, 0 for no reservations. Times are wall clock times."""

    def __init__(self, hold: int) -> None:
        self._hold = hold
        self._rooms: dict[str, dict[str, Reservation]] = {}
        # A heap of (length of stay, sequence number, room, user): the shortest stay first, then the
        # oldest. Entries of reservations that were dropped or changed stay until they reach the
        # top.
        self._stays: list[tuple[int, int, str, str]] = []
        self._learned = 0
        # Cache of what the names look like: computing it is the most expensive step here.
        self._looks: dict[tuple[str, str], tuple[int, ...]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, room: str, user: str, key: str, since: int, now: int) -> None:
        """Reserve the name of a person who joined at `since` and has left now."""
        self.learn(room, user, Reservation(key, since, now + self._hold), now)

    def learn(self, room: str, user: str, reservation: Reservation, now: int) -> None:
        """Store a reservation that another replica sent."""
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
        """When the key's owner got the name: now, unless it is reserved for this key."""
        held = self._rooms.get(room, {}).get(user)
        return held.since if held and held.key == key and held.until > now else now

    def release(self, room: str, user: str, claim: Tenure) -> None:
        """Somebody has taken the name or one that looks like it. Drop the reservations that are not
        older than the new claim.

        An older reservation may belong to the same person, if the replica that accepted the claim
        did not know of it, or to somebody else.
        """
        for name in self._alike(room, user):
            if not is_earlier(self._rooms[room][name], claim):
                self._drop(room, name)

    def owner(self, room: str, user: str, key: str, now: int) -> str | None:
        """The reserved name that equals `user` or looks like it, and belongs to another key."""
        for name in self._alike(room, user):
            held = self._rooms[room][name]
            if held.key != key and held.until > now:
                return name
        return None

    def prior(self, room: str, user: str, tenure: Tenure, now: int) -> dict[str, Reservation]:
        """Reservations of the name and of names that look like it, if other people had them before
        `tenure`.
        """
        held = {name: self._rooms[room][name] for name in self._alike(room, user)}
        return {
            name: one for name, one in held.items() if one.until > now and precedes(one, tenure)
        }

    def expire(self, now: int) -> None:
        """Drop some of the expired reservations. (Expired reservations have no effect.)"""
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
    """The length of the stay, plus a constant."""
    return held.until - held.since
