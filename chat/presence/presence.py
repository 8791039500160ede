"""All people on all replicas, as this replica knows them.

This module does not wait, sleep or send. `now` is passed in, in seconds; signals go in and out as
bytes. Incoming signals are checked, and invalid content is skipped.
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

# A replica that sends nothing for this many heartbeats is considered dead.
HEARTBEATS = 3
# When a new replica is heard, it soon gets a snapshot of everyone here, but at most once in this
# time. Otherwise somebody who invents replicas could make real ones send without end.
ANSWER_SECONDS = 1.0
# Limits on what other replicas can make this one store, besides their people.
MOST_REPLICAS = 1000
MOST_HOLDERS = 16
# How many people who have left are removed at once.
MOST_FORGOTTEN = 100


class Heard(NamedTuple):
    """The effects of a signal on people here, as (room, user): who lost the name, and who is
    typing.
    """

    lost: list[tuple[str, str]]
    typing: list[tuple[str, str]]


class Presence:
    """`heartbeat`, `typing` and `hold` in seconds. `shown`: the largest room whose members are
    listed. `hold`: how long a name stays reserved after its owner has left. `elsewhere`: the
    maximum number of people on other replicas; a person in two rooms counts twice.
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
        # Connections of a person in a room, if there is more than one.
        self._more: dict[Place, int] = {}
        self._rooms: dict[str, Occupants] = {}
        self._peers: dict[str, Peer] = {}
        self._reservations = Reservations(round(hold * 1000))
        # Whether some replica may lack our reservations and needs them all; and the reservations
        # that another replica turned out to lack.
        self._newcomer = False
        self._unknown: dict[Place, Reservation] = {}
        # How many places people on other replicas take, and the limit.
        self._places_elsewhere = 0
        self._most_elsewhere = elsewhere
        # The rooms with changes that members have not been sent yet, and whose names changed.
        self._changed: dict[str, set[str]] = {}
        # When a person's typing was last passed on.
        self._typed: dict[Place, float] = {}
        self._next_beat = 0.0
        self._last_beat = -ANSWER_SECONDS
        # Number of invalid signals, and of invalid people in signals.
        self.foreign = 0

    @property
    def replicas(self) -> int:
        """How many replicas are alive, including this one, according to their signals."""
        return 1 + sum(not peer.dead for peer in self._peers.values())

    @property
    def places(self) -> int:
        """How many people are in rooms, on all replicas. A person in two rooms counts twice."""
        return len(self._here) + self.elsewhere

    @property
    def elsewhere(self) -> int:
        """How many people are in rooms on other replicas. A person in two rooms counts twice."""
        return self._places_elsewhere

    # People on this replica.

    def check(self, room: str, person: Person) -> Claim:
        """The claim with which the person may use their name in the room. Raises `RefusedError`
        (name_taken).
        """
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
        return claim

    def enter(self, room: str, person: Person) -> None:
        """Add a connection of the person to the room. Raises `RefusedError` (name_taken)."""
        claim = self.check(room, person)
        place = (room, person.user)
        if place in self._here:
            self._more[place] = self._more.get(place, 1) + 1
            return
        holder = Holder(claim.since, person.key, person.user, self._writer.replica, room)
        self._here[place] = holder
        self._put(holder)
        self._writer.moved(*place)

    def exit(self, room: str, person: Person) -> None:
        """Remove a connection of the person from the room."""
        place = (room, person.user)
        connections = self._more.pop(place, 1) - 1
        if connections > 1:
            self._more[place] = connections
        if connections:
            return
        self._remove(self._here.pop(place), held=True)
        self._writer.moved(*place)

    def clear(self) -> None:
        """Remove everyone on this replica."""
        here, self._here = self._here, {}
        for place, holder in here.items():
            self._remove(holder, held=True)
            self._writer.moved(*place)
        self._more = {}

    def types(self, room: str, user: str, now: float) -> bool:
        """Somebody here is typing. Returns whether members should be notified."""
        tell = self._is_news(room, user, now)
        if tell:
            self._writer.typed(room, user)
        return tell

    # What members are sent.

    def whole(self, room: str) -> protocol.Presence:
        """Everyone in the room, or only the count if they are too many to be listed."""
        return self._rooms[room].whole(room, self._shown)

    def due(self, now: float) -> list[str]:
        """The rooms whose members should be sent changes now."""
        return [room for room in self._changed if self._rooms[room].due <= now]

    def changes(self, room: str, now: float) -> protocol.Presence:
        """The changes in the room since the last call.

        A member who got `whole` in between may get a change twice, which is harmless.
        """
        changed = self._changed.pop(room)
        occupants = self._rooms[room]
        if not len(occupants):
            del self._rooms[room]
        return occupants.changes(room, changed, self._shown, now)

    # Signals between replicas.

    def outgoing(self, now: float) -> Iterator[bytes]:
        """Return the signals to send now. Call this at least several times per heartbeat, and not
        again before all signals are sent. The iterator encodes them one by one, so that other work
        can run in between.
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
        """The last signal: this replica has no people any more."""
        return self._writer.gone()

    def heard(self, payload: bytes, now: float) -> Heard:
        """Process a signal, which may come from any replica and may be invalid."""
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
        # This usually removes all who have left.
        self._forget_some(peer)
        return heard

    def expire(self, now: float) -> None:
        """Mark the replicas as dead that have sent nothing for too long."""
        for peer in self._peers.values():
            if not peer.dead and now - peer.heard > HEARTBEATS * self._heartbeat:
                peer.die()

    def forget(self) -> Iterator[int]:
        """Remove people who have left according to snapshots, and people of dead replicas. Yields
        after each batch with the number of people removed, so that other work can run in between.
        """
        for replica, peer in tuple(self._peers.items()):
            while not peer.settled:
                yield self._forget_some(peer)
            if peer.dead:
                del self._peers[replica]
                # Replicas that started since then never heard this one's signals, so they lack
                # reservations.
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
        """Add or confirm these people of the replica."""
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
        """If somebody took the name although it is reserved for another person, send the
        reservation: that replica does not know it.
        """
        now = self._milliseconds()
        for holder in self._holders(room, user):
            prior = self._reservations.prior(room, holder.user, holder, now)
            if prior:
                self._unknown.update(((room, name), one) for name, one in prior.items())
                self._answer_soon()

    def _answer_soon(self) -> None:
        self._next_beat = min(self._next_beat, self._last_beat + ANSWER_SECONDS)

    def _is_astray(self, holder: Holder, claim: Claim, now: int) -> bool:
        """Whether another replica accepted the holder without knowing that the name belongs to the
        claimant. That replica will remove the holder.
        """
        elsewhere = holder.replica != self._writer.replica
        return elsewhere and claim.since < now and precedes(claim, holder)

    def _is_late(self, room: str, holder: Holder) -> bool:
        """Whether somebody else had the name first."""
        best = self._holders(room, holder.user)[0]
        return (holder.user, holder.key) != (best.user, best.key)

    def _is_news(self, room: str, user: str, now: float) -> bool:
        """Whether to pass on that somebody is typing: not in large rooms, and at a limited rate."""
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
        """Remove a holder, and reserve the name. It is not reserved if somebody else had it first
        and is present or has a reservation. `held`: whether the holder's replica reserves names at
        all.
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
    """Whether a valid replica could have sent this user name and room name."""
    try:
        protocol.check_room(room)
        return protocol.check_user(user) == user
    except RefusedError:
        return False
