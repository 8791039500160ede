"""All people on all replicas, as this one knows them.

Nothing here waits, sleeps or sends: time comes in as `now`, in seconds, and signals go in and out
as bytes. Whatever comes in is checked, and what cannot be true is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from chat import protocol
from chat.presence.occupants import Holder, Occupants, Place
from chat.presence.peers import Peer
from chat.presence.reservations import Reservations
from chat.presence.signals import (
    Changes,
    Claim,
    ForeignSignalError,
    Gone,
    People,
    Reservation,
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
# What others may make this replica remember, beside their people.
MOST_REPLICAS = 1000
MOST_HOLDERS = 16
# How many who have left are forgotten at once.
MOST_FORGOTTEN = 100


class Heard(NamedTuple):
    """What a signal means for people here, as (room, user): who lost the name, and who types."""

    lost: list[tuple[str, str]]
    typing: list[tuple[str, str]]


class Presence:
    """`heartbeat`, `typing` and `hold` in seconds; `shown`: the largest room whose members are
    listed; `hold`: how long a name stays its owner's after they left; `elsewhere`: how many people
    of other replicas are known, in two rooms, one counts twice.
    """

    def __init__(
        self,
        *,
        heartbeat: float,
        shown: int,
        typing: float,
        hold: float,
        elsewhere: int,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._heartbeat = heartbeat
        self._shown = shown
        self._typing = typing
        self._wall_clock = wall_clock
        self._writer = Writer()
        self._here: dict[Place, Holder] = {}
        # Connections of a person in a room, where they are more than one.
        self._more: dict[Place, int] = {}
        self._rooms: dict[str, Occupants] = {}
        self._peers: dict[str, Peer] = {}
        self._reservations = Reservations(round(hold * 1000))
        # Whether a replica is new, and knows of no reservations yet; and of which another one knows
        # nothing.
        self._newcomer = False
        self._unknown: dict[Place, Reservation] = {}
        # How many places people of other replicas have, and may have.
        self._places_elsewhere = 0
        self._most_elsewhere = elsewhere
        # The rooms whose members are to be told, and who came or went since they were.
        self._changed: dict[str, set[str]] = {}
        # When somebody's typing was last passed on.
        self._typed: dict[Place, float] = {}
        self._next_beat = 0.0
        self._last_beat = -ANSWER_SECONDS
        # Signals, or people in them, that cannot be.
        self.foreign = 0

    @property
    def replicas(self) -> int:
        """How many replicas there are, as far as they were heard; this one is one of them."""
        return 1 + sum(not peer.dead for peer in self._peers.values())

    @property
    def places(self) -> int:
        """How many there are in all rooms, on all replicas; in two rooms, one counts twice."""
        return len(self._here) + self.elsewhere

    @property
    def elsewhere(self) -> int:
        """The same, on other replicas."""
        return self._places_elsewhere

    # Who is here.

    def enter(self, room: str, person: Person) -> None:
        """One more connection of the person is in the room; raises `RefusedError` (name_taken)."""
        now = self._milliseconds()
        holders = self._holders(room, person.user)
        since = self._reservations.since(room, person.user, person.key, now)
        mine = [one.since for one in holders if (one.user, one.key) == person[:2]]
        claim = Claim(person.key, min([since, *mine]))
        for holder in holders:
            if (holder.user, holder.key) != person[:2] and not self._is_astray(holder, claim, now):
                raise protocol.name_taken(room, holder.user)
        owner = self._reservations.owner(room, person.user, person.key, now)
        if owner is not None:
            raise protocol.name_taken(room, owner)
        place = (room, person.user)
        if place in self._here:
            self._more[place] = self._more.get(place, 1) + 1
            return
        holder = Holder(claim.since, person.key, person.user, self._writer.replica, room)
        self._here[place] = holder
        self._put(holder)
        self._writer.moved(*place)

    def exit(self, room: str, person: Person) -> None:
        """One connection less."""
        place = (room, person.user)
        connections = self._more.pop(place, 1) - 1
        if connections > 1:
            self._more[place] = connections
        if connections:
            return
        self._remove(self._here.pop(place), held=True)
        self._writer.moved(*place)

    def clear(self) -> None:
        """Everyone here has gone."""
        here, self._here = self._here, {}
        for place, holder in here.items():
            self._remove(holder, held=True)
            self._writer.moved(*place)
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
        return self._rooms[room].whole(room, self._shown)

    def due(self, now: float) -> list[str]:
        """The rooms whose members are to be told now what changed."""
        return [room for room in self._changed if self._rooms[room].due <= now]

    def changes(self, room: str, now: float) -> protocol.Presence:
        """What changed since this was asked last.

        Whoever has been told `whole` in between knows some of it; being told twice does no harm.
        """
        changed = self._changed.pop(room)
        occupants = self._rooms[room]
        if not len(occupants):
            del self._rooms[room]
        return occupants.changes(room, changed, self._shown, now)

    # What replicas tell each other.

    def outgoing(self, now: float) -> Iterator[bytes]:
        """The signals to send now: call it often, at least several times a heartbeat, and not again
        before all are written. They are written one by one, so that other work may be done between.
        """
        if now < self._next_beat:
            return self._writer.changes(self._here)
        self._next_beat = now + self._heartbeat
        self._last_beat = now
        self._reservations.expire(self._milliseconds())
        reserved = self._reservations.all() if self._newcomer else self._unknown
        self._newcomer, self._unknown = False, {}
        return self._writer.snapshot(tuple(self._here.values()), reserved)

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
        if peer is None or peer.dead:
            if isinstance(signal, Gone):
                return heard
            if peer is None:
                if len(self._peers) >= MOST_REPLICAS:
                    return heard
                peer = self._peers[signal.replica] = Peer()
            peer.dead = False
            self._newcomer = True
            self._answer_soon()
        if signal.seq <= peer.seq:
            return heard
        follows = signal.seq == peer.seq + 1
        peer.seq = signal.seq
        peer.heard = now
        peer.holds = signal.holds
        if isinstance(signal, Snapshot):
            peer.begin(signal, follows=follows)
            self._take_people(signal.replica, peer, signal.people, heard)
            peer.end(signal)
            self._learn(signal.reserved, heard)
        elif isinstance(signal, Changes):
            self._take_changes(signal, peer, heard, now)
        else:
            peer.die()
        # Mostly, that is all of them.
        self._forget_some(peer)
        return heard

    def expire(self, now: float) -> None:
        """Take the replicas for dead that were silent for too long."""
        for peer in self._peers.values():
            if not peer.dead and now - peer.heard > HEARTBEATS * self._heartbeat:
                peer.die()

    def forget(self) -> Iterator[int]:
        """Forget those who have left, as snapshots and dead replicas tell: some at a time, so that
        other work may be done between. Yields how many these were.
        """
        for replica, peer in tuple(self._peers.items()):
            while not peer.settled:
                yield self._forget_some(peer)
            if peer.dead:
                del self._peers[replica]
                # A replica that has started since then never heard it.
                self._newcomer = True

    def _forget_some(self, peer: Peer) -> int:
        gone = tuple(peer.left(MOST_FORGOTTEN))
        for holder in gone:
            self._places_elsewhere -= 1
            self._remove(holder, held=peer.holds)
        return len(gone)

    def _learn(self, reserved: Reserved, heard: Heard) -> None:
        now = self._milliseconds()
        for room, names in reserved.items():
            for user, reservation in names.items():
                if not _can_be(room, user):
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
        for room, users in signal.left.items():
            for user in users:
                if (holder := peer.pop((room, user))) is not None:
                    self._places_elsewhere -= 1
                    self._remove(holder, held=peer.holds)
        self._take_people(signal.replica, peer, signal.joined, heard)
        for room, users in signal.typing.items():
            for user in users:
                if peer.get((room, user)) is not None and self._is_news(room, user, now):
                    heard.typing.append((room, user))

    def _take_people(self, replica: str, peer: Peer, people: People, heard: Heard) -> None:
        """These are there."""
        for room, claims in people.items():
            for user, claim in claims.items():
                known = peer.get((room, user))
                if known is not None:
                    if claim == (known.key, known.since):
                        peer.confirm((room, user))
                        continue
                    self._remove(known, held=peer.holds)
                elif (
                    self._places_elsewhere >= self._most_elsewhere
                    or len(self._holders(room, user)) >= MOST_HOLDERS
                    or not _can_be(room, user)
                ):
                    self.foreign += 1
                    continue
                else:
                    self._places_elsewhere += 1
                holder = Holder(claim.since, claim.key, user, replica, room)
                peer.put(holder)
                self._put(holder)
                heard.lost.extend(
                    (room, one.user)
                    for one in self._holders(room, user)
                    if one.replica == self._writer.replica and self._is_late(room, one)
                )
                self._tell_if_unknown(room, user)

    def _tell_if_unknown(self, room: str, user: str) -> None:
        """Tell of what is held of the name if somebody else has it: their replica does not know."""
        now = self._milliseconds()
        for holder in self._holders(room, user):
            prior = self._reservations.prior(room, holder.user, holder, now)
            if prior:
                self._unknown.update(((room, name), one) for name, one in prior.items())
                self._answer_soon()

    def _answer_soon(self) -> None:
        self._next_beat = min(self._next_beat, self._last_beat + ANSWER_SECONDS)

    def _is_astray(self, holder: Holder, claim: Claim, now: int) -> bool:
        """Whether another replica let the holder in because it did not know whose the name is. They
        are put out there.
        """
        elsewhere = holder.replica != self._writer.replica
        return elsewhere and claim.since < now and precedes(claim, holder)

    def _is_late(self, room: str, holder: Holder) -> bool:
        """Whether somebody else had the name first."""
        best = self._holders(room, holder.user)[0]
        return (holder.user, holder.key) != (best.user, best.key)

    def _is_news(self, room: str, user: str, now: float) -> bool:
        """Whether that somebody types is worth telling: not in a crowd, and not all the time."""
        if len(self._rooms[room]) > self._shown:
            return False
        place = (room, user)
        if now - self._typed.get(place, -self._typing) < self._typing / 2:
            return False
        self._typed[place] = now
        return True

    def _milliseconds(self) -> int:
        return round(self._wall_clock() * 1000)

    def _holders(self, room: str, user: str) -> tuple[Holder, ...]:
        occupants = self._rooms.get(room)
        return occupants.holders(user) if occupants is not None else ()

    def _put(self, holder: Holder) -> None:
        occupants = self._rooms.get(holder.room)
        if occupants is None:
            occupants = self._rooms[holder.room] = Occupants()
        self._reservations.release(*holder.place, holder)
        self._note(holder.room, occupants.put(holder))

    def _remove(self, holder: Holder, *, held: bool) -> None:
        """Somebody is not there any more: the name stays theirs, unless somebody is there, or may
        come back, who had it first. `held`: whether their replica holds names at all.
        """
        room, user = holder.place
        occupants = self._rooms[room]
        self._note(room, occupants.remove(holder))
        others = occupants.holders(user)
        now = self._milliseconds()
        if (
            held
            and not holder.key.startswith(PASSING)
            and all(precedes(holder, other) for other in others)
            and not self._reservations.prior(room, user, holder, now)
        ):
            self._reservations.add(room, user, holder.key, holder.since, now)
            self._tell_if_unknown(room, user)
        if not any(other.user == user for other in others):
            self._typed.pop(holder.place, None)

    def _note(self, room: str, changed: set[str]) -> None:
        if changed:
            self._changed.setdefault(room, set()).update(changed)


def _can_be(room: str, user: str) -> bool:
    """Whether a replica of ours may have somebody of this name in such a room."""
    try:
        protocol.check_room(room)
        return protocol.check_user(user) == user
    except RefusedError:
        return False
