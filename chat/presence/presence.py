"""All people on all replicas, as this one knows them.

Nothing here waits, sleeps or sends: time comes in as `now`, in seconds, and signals go in and out
as bytes. Whatever comes in is checked, and what cannot be true is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from chat import protocol
from chat.presence.occupants import Holder, Occupants
from chat.presence.peers import MOST_PLACES, Peer
from chat.presence.reservations import Reservations
from chat.presence.signals import (
    Changes,
    Claim,
    ForeignSignalError,
    Gone,
    People,
    Reserved,
    Snapshot,
    Writer,
    decode,
    precedes,
)
from chat.protocol import RefusedError
from chat.room import PASSING, Person

# A replica that was silent for so many heartbeats is dead.
HEARTBEATS = 3
# A replica that is heard for the first time is told of everyone here, but not more often than this:
# whoever makes up replicas must not make real ones talk without end.
ANSWER_SECONDS = 1.0
# What others may make this replica remember, beside `MOST_PLACES`.
MOST_REPLICAS = 1000
MOST_HOLDERS = 16


class Heard(NamedTuple):
    """What a signal means for people here, as (room, user): who lost the name, and who types."""

    lost: list[tuple[str, str]]
    typing: list[tuple[str, str]]


class Presence:
    """`heartbeat`, `typing` and `hold` in seconds; `shown`: the largest room whose members are
    listed; `hold`: how long a name stays its owner's after they left.
    """

    def __init__(
        self,
        *,
        heartbeat: float,
        shown: int,
        typing: float,
        hold: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._heartbeat = heartbeat
        self._shown = shown
        self._typing = typing
        self._wall_clock = wall_clock
        self._writer = Writer()
        self._here: People = {}
        # Connections of a person in a room, where they are more than one.
        self._more: dict[tuple[str, str], int] = {}
        self._rooms: dict[str, Occupants] = {}
        self._peers: dict[str, Peer] = {}
        self._reservations = Reservations(round(hold * 1000))
        # Whether a replica is new, and knows of no reservations yet; and of which another one knows
        # nothing.
        self._newcomer = False
        self._unknown: Reserved = {}
        # Pairs of room and name: of people here, and of those on other replicas.
        self._places_here = 0
        self._places_elsewhere = 0
        # The rooms whose members are to be told.
        self._changed: set[str] = set()
        self._next_beat = 0.0
        self._last_beat = -ANSWER_SECONDS
        # Signals, or people in them, that cannot be.
        self.foreign = 0

    @property
    def replicas(self) -> int:
        """How many replicas there are, as far as they were heard; this one is one of them."""
        return 1 + len(self._peers)

    @property
    def places(self) -> int:
        """How many there are in all rooms, on all replicas; in two rooms, one counts twice."""
        return self._places_here + self._places_elsewhere

    # Who is here.

    def enter(self, room: str, person: Person) -> None:
        """One more connection of the person is in the room; raises `RefusedError` (name_taken)."""
        now = self._milliseconds()
        claim = Claim(person.key, self._reservations.since(room, person.user, person.key, now))
        for holder in self._holders(room, person.user):
            if (holder.user, holder.key) != person[:2] and not self._is_astray(holder, claim, now):
                raise protocol.name_taken(room, holder.user)
        owner = self._reservations.owner(room, person.user, person.key, now)
        if owner is not None:
            raise protocol.name_taken(room, owner)
        people = self._here.setdefault(room, {})
        if person.user in people:
            self._more[room, person.user] = self._more.get((room, person.user), 1) + 1
            return
        people[person.user] = claim
        self._places_here += 1
        self._put(room, person.user, people[person.user], self._writer.replica)
        self._writer.moved(room, person.user)

    def exit(self, room: str, person: Person) -> None:
        """One connection less."""
        place = (room, person.user)
        connections = self._more.pop(place, 1) - 1
        if connections > 1:
            self._more[place] = connections
        if connections:
            return
        people = self._here[room]
        del people[person.user]
        self._places_here -= 1
        if not people:
            del self._here[room]
        self._remove(room, person.user, self._writer.replica)
        self._writer.moved(*place)

    def clear(self) -> None:
        """Everyone here has gone."""
        for room, people in self._here.items():
            for user in people:
                self._remove(room, user, self._writer.replica)
                self._writer.moved(room, user)
        self._here = {}
        self._places_here = 0
        self._more = {}

    def types(self, room: str, user: str, now: float) -> bool:
        """Somebody here types; whether members are to be told."""
        tell = self._is_news(room, user, now)
        if tell:
            self._writer.typed(room, user)
        return tell

    # What members are told.

    def whole(self, room: str) -> protocol.Presence:
        """Everyone in the room, as far as they are to be named."""
        return self._rooms[room].whole(self._shown)

    def due(self, now: float) -> list[str]:
        """The rooms whose members are to be told now what changed."""
        return [room for room in self._changed if self._rooms[room].due <= now]

    def changes(self, room: str, now: float) -> protocol.Presence:
        """What changed since this was asked last.

        Whoever has been told `whole` in between knows some of it; being told twice does no harm.
        """
        self._changed.discard(room)
        occupants = self._rooms[room]
        if not len(occupants):
            del self._rooms[room]
        return occupants.changes(self._shown, now)

    # What replicas tell each other.

    def outgoing(self, now: float) -> list[bytes]:
        """The signals to send now: call it often, at least several times a heartbeat."""
        if now < self._next_beat:
            return self._writer.changes(self._here)
        self._next_beat = now + self._heartbeat
        self._last_beat = now
        self._reservations.expire(self._milliseconds())
        reserved = self._reservations.all() if self._newcomer else self._unknown
        self._newcomer, self._unknown = False, {}
        return self._writer.snapshot(self._here, reserved)

    def farewell(self) -> bytes:
        """The last signal: nobody is here any more."""
        return self._writer.gone()

    def heard(self, payload: bytes, now: float) -> Heard:
        """Take in a signal, of whatever replica and whatever quality."""
        heard = Heard([], [])
        try:
            signal = decode(payload, self._writer.replica)
        except ForeignSignalError:
            self.foreign += 1
            return heard
        if signal is None:
            return heard
        peer = self._peers.get(signal.replica)
        if peer is None:
            if isinstance(signal, Gone) or len(self._peers) >= MOST_REPLICAS:
                return heard
            peer = self._peers[signal.replica] = Peer()
            self._newcomer = True
            self._answer_soon()
        if signal.seq <= peer.seq:
            return heard
        follows = signal.seq == peer.seq + 1
        peer.seq = signal.seq
        peer.heard = now
        peer.holds = signal.holds
        try:
            if isinstance(signal, Snapshot):
                left = peer.left(signal, follows)
                self._apply(signal.replica, peer, signal.people, left, heard)
                self._learn(signal.reserved, heard)
            elif isinstance(signal, Changes):
                self._take_changes(signal, peer, heard, now)
            else:
                self._bury(signal.replica)
        except RefusedError:
            self.foreign += 1
        return heard

    def expire(self, now: float) -> None:
        """Drop the replicas that were silent for too long."""
        for replica, peer in tuple(self._peers.items()):
            if now - peer.heard > HEARTBEATS * self._heartbeat:
                self._bury(replica)

    def _learn(self, reserved: Reserved, heard: Heard) -> None:
        now = self._milliseconds()
        for room, names in reserved.items():
            protocol.check_room(room)
            for user, reservation in names.items():
                if protocol.check_user(user) != user:
                    self.foreign += 1
                    continue
                holders = self._holders(room, user)
                if all(precedes(reservation, holder) for holder in holders):
                    self._reservations.learn(room, user, reservation, now)
                    heard.lost.extend(
                        (room, holder.user)
                        for holder in holders
                        if holder.replica == self._writer.replica
                        and self._reservations.prior(room, holder.user, holder, now)
                    )

    def _take_changes(self, signal: Changes, peer: Peer, heard: Heard, now: float) -> None:
        self._apply(signal.replica, peer, signal.joined, signal.left, heard)
        for room, users in signal.typing.items():
            for user in users:
                if user in peer.people.get(room, ()) and self._is_news(room, user, now):
                    heard.typing.append((room, user))

    def _apply(
        self,
        replica: str,
        peer: Peer,
        joined: People,
        left: dict[str, list[str]],
        heard: Heard,
    ) -> None:
        for room, users in left.items():
            people = peer.people.get(room, {})
            for user in users:
                if people.pop(user, None) is not None:
                    self._places_elsewhere -= 1
                    self._remove(room, user, replica)
            if not people:
                peer.people.pop(room, None)
        for room, claims in joined.items():
            protocol.check_room(room)
            for user, claim in claims.items():
                people = peer.people.setdefault(room, {})
                known = people.get(user)
                if known == claim:
                    continue
                if known is None:
                    if (
                        protocol.check_user(user) != user
                        or self._places_elsewhere >= MOST_PLACES
                        or len(self._holders(room, user)) >= MOST_HOLDERS
                    ):
                        self.foreign += 1
                        continue
                    self._places_elsewhere += 1
                people[user] = claim
                if known is not None:
                    self._remove(room, user, replica)
                heard.lost.extend(
                    (room, holder.user)
                    for holder in self._put(room, user, claim, replica)
                    if holder.replica == self._writer.replica and self._is_late(room, holder)
                )
                prior = self._reservations.prior(room, user, claim, self._milliseconds())
                if prior:
                    # The replica that let them in does not know.
                    self._unknown.setdefault(room, {}).update(prior)
                    self._answer_soon()

    def _answer_soon(self) -> None:
        self._next_beat = min(self._next_beat, self._last_beat + ANSWER_SECONDS)

    def _is_astray(self, holder: Holder, claim: Claim, now: int) -> bool:
        """Whether another replica let the holder in because it knew nothing of the reservation that
        the claim comes back to. They are put out there.
        """
        elsewhere = holder.replica != self._writer.replica
        return elsewhere and claim.since < now and precedes(claim, holder)

    def _is_late(self, room: str, holder: Holder) -> bool:
        """Whether somebody else had the name first."""
        best = self._holders(room, holder.user)[0]
        return (holder.user, holder.key) != (best.user, best.key)

    def _bury(self, replica: str) -> None:
        for room, people in self._peers[replica].people.items():
            self._places_elsewhere -= len(people)
            for user in people:
                self._remove(room, user, replica)
        del self._peers[replica]

    def _is_news(self, room: str, user: str, now: float) -> bool:
        """Whether that somebody types is worth telling: not in a crowd, and not all the time."""
        occupants = self._rooms[room]
        return len(occupants) <= self._shown and occupants.types(user, self._typing / 2, now)

    def _milliseconds(self) -> int:
        return round(self._wall_clock() * 1000)

    def _holders(self, room: str, user: str) -> tuple[Holder, ...]:
        occupants = self._rooms.get(room)
        return occupants.holders(user) if occupants is not None else ()

    def _put(self, room: str, user: str, claim: Claim, replica: str) -> tuple[Holder, ...]:
        occupants = self._rooms.get(room)
        if occupants is None:
            occupants = self._rooms[room] = Occupants(room)
        self._reservations.release(room, user, claim)
        after = occupants.put(Holder(claim.since, claim.key, user, replica))
        self._note(occupants)
        return after

    def _remove(self, room: str, user: str, replica: str) -> None:
        """Somebody is not there any more: the name stays theirs if they are nowhere else."""
        occupants = self._rooms[room]
        holder = occupants.remove(user, replica)
        peer = self._peers.get(replica)
        held = not holder.key.startswith(PASSING) and (peer is None or peer.holds)
        now = self._milliseconds()
        if (
            held
            and all(precedes(holder, other) for other in occupants.holders(user))
            and not self._reservations.prior(room, user, holder, now)
        ):
            self._reservations.add(room, user, holder.key, holder.since, now)
        self._note(occupants)

    def _note(self, occupants: Occupants) -> None:
        if occupants.changed:
            self._changed.add(occupants.room)
