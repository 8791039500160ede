"""Who is in which room, on whatever replica, and who of them is typing.

Each replica tells the others of its own people by signals: all of them once a heartbeat (a
*snapshot*), and between two of those what has changed. Nothing is agreed upon, nothing is
confirmed and nothing is kept: a signal that was lost is made good by the next snapshot, and a
replica that was not heard for three heartbeats is taken for dead, its people with it. So every
picture is right within three heartbeats of the last loss, whatever happened.

In a room, a name is one person's. Two replicas may give it away at the same time, for neither asks
the other; once they hear of each other, both know who had it first, and the later one loses it.

Nothing here waits, sleeps or sends: time comes in as `now`, in seconds, and signals go in and out
as bytes. Whatever comes in is checked, and what cannot be true is left out.
"""

from __future__ import annotations

import time
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Annotated, Literal, NamedTuple

import msgspec
import regex

from chat import protocol
from chat.protocol import RefusedError
from chat.room import Person

# A replica that was silent for so many heartbeats is dead.
HEARTBEATS = 3
# A replica that is heard for the first time is told of everyone here, but not more often than this:
# whoever makes up replicas must not make real ones talk without end.
ANSWER_SECONDS = 1.0
# What a signal may hold, so that it stays far below what Kafka takes as one record.
MOST_IN_SIGNAL = 500
# What others may make this replica remember.
MOST_REPLICAS = 1000
MOST_PLACES = 200_000
MOST_HOLDERS = 16
# Changes of one room are told to so many members a second: the more there are, the rarer. It is
# what keeps a storm of joins from costing its square.
TOLD_PER_SECOND = 2000


class Claim(NamedTuple):
    """A person's hold on a name: a digest of their key, and since when, in milliseconds."""

    key: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    since: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


# By room, then by name.
People = dict[str, dict[str, Claim]]


class Signal(msgspec.Struct, tag_field="type", omit_defaults=True, kw_only=True):
    """`replica` is new with every process; `seq` grows with each of its signals."""

    v: Literal[1] = 1
    replica: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    seq: Annotated[int, msgspec.Meta(ge=0)]


class Snapshot(Signal, tag="snapshot"):
    """One part of all the people of a replica, of `parts` that follow each other."""

    part: int = 0
    parts: int = 1
    people: People = {}


class Changes(Signal, tag="changes"):
    joined: People = {}
    left: dict[str, list[str]] = {}
    typing: dict[str, list[str]] = {}


class Gone(Signal, tag="gone"):
    """The replica ends, in order."""


class _Header(msgspec.Struct):
    replica: str


_header = msgspec.json.Decoder(_Header)
_decoder: msgspec.json.Decoder[Snapshot | Changes | Gone] = msgspec.json.Decoder(
    Snapshot | Changes | Gone
)
_encoder = msgspec.json.Encoder()


class Heard(NamedTuple):
    """What a signal means for people here, as (room, user): who lost the name, and who types."""

    lost: list[tuple[str, str]]
    typing: list[tuple[str, str]]


class Holder(NamedTuple):
    """Who holds a name, and where. The first of several, in this order, has the better right."""

    since: int
    key: str
    user: str
    replica: str


class Crowd:
    """All the people of one room."""

    __slots__ = ("changed", "due", "named", "names", "typed")

    def __init__(self) -> None:
        # By the name's skeleton; most have one holder, a person on two replicas has two.
        self.names: dict[str, tuple[Holder, ...]] = {}
        # Who came or went since members were told, and not before when they are told again.
        self.changed: set[str] = set()
        self.due = 0.0
        # Whether members have a list to which changes can be told.
        self.named = True
        # When typing was last passed on.
        self.typed: dict[str, float] = {}


class Peer:
    """Another replica: its people, and when it was heard."""

    def __init__(self) -> None:
        self.people: People = {}
        self.heard = 0.0
        self.seq = -1
        # Who was in the parts of a snapshot so far, by room; None if there is no whole one coming.
        self.told: dict[str, set[str]] | None = None
        self.parts = 0


class Presence:
    """`heartbeat` and `typing` in seconds; `shown`: the largest room whose members are listed."""

    def __init__(
        self,
        *,
        heartbeat: float,
        shown: int,
        typing: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._heartbeat = heartbeat
        self._shown = shown
        self._typing = typing
        self._wall_clock = wall_clock
        self._id = uuid.uuid4().hex
        self._seq = 0
        self._here: People = {}
        # Connections of a person in a room, where they are more than one.
        self._more: dict[tuple[str, str], int] = {}
        self._crowds: dict[str, Crowd] = {}
        self._peers: dict[str, Peer] = {}
        # Pairs of room and name: of people here, and of those on other replicas.
        self._places_here = 0
        self._places_elsewhere = 0
        self._news: dict[tuple[str, str], None] = {}
        self._typed: dict[tuple[str, str], None] = {}
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
        holders = self._holders(room, person.user)
        if any((holder.user, holder.key) != person for holder in holders):
            raise protocol.name_taken(room, holders[0].user)
        people = self._here.setdefault(room, {})
        if person.user in people:
            self._more[room, person.user] = self._more.get((room, person.user), 1) + 1
            return
        people[person.user] = Claim(person.key, round(self._wall_clock() * 1000))
        self._places_here += 1
        self._put(room, person.user, people[person.user], self._id)
        self._news[room, person.user] = None

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
        self._remove(room, person.user, self._id)
        self._news[place] = None

    def clear(self) -> None:
        """Everyone here has gone."""
        for room, people in self._here.items():
            for user in people:
                self._remove(room, user, self._id)
                self._news[room, user] = None
        self._here = {}
        self._places_here = 0
        self._more = {}

    def types(self, room: str, user: str, now: float) -> bool:
        """Somebody here types; whether members are to be told."""
        tell = self._is_news(room, user, now)
        if tell:
            self._typed[room, user] = None
        return tell

    # What members are told.

    def whole(self, room: str) -> protocol.Presence:
        """Everyone in the room, as far as they are to be named."""
        crowd = self._crowds[room]
        count = len(crowd.names)
        if count > self._shown:
            # Whoever is told this has no list to which changes could be told.
            crowd.named = False
            return protocol.Presence(room, count)
        return protocol.Presence(
            room, count, sorted(holders[0].user for holders in crowd.names.values())
        )

    def due(self, now: float) -> list[str]:
        """The rooms whose members are to be told now what changed."""
        return [room for room in self._changed if self._crowds[room].due <= now]

    def changes(self, room: str, now: float) -> protocol.Presence:
        """What changed since this was asked last.

        Whoever has been told `whole` in between knows some of it; being told twice does no harm.
        """
        self._changed.discard(room)
        crowd = self._crowds[room]
        count = len(crowd.names)
        changed, crowd.changed = crowd.changed, set()
        listed, crowd.named = crowd.named, count <= self._shown
        crowd.due = now + count / TOLD_PER_SECOND
        if not crowd.names:
            del self._crowds[room]
        elif not (listed and crowd.named):
            return self.whole(room)
        present = {user for user in changed if self._is_shown(crowd, user)}
        return protocol.Presence(
            room, count, joined=sorted(present), left=sorted(changed - present)
        )

    # What replicas tell each other.

    def outgoing(self, now: float) -> list[bytes]:
        """The signals to send now: call it often, at least several times a heartbeat."""
        if now >= self._next_beat:
            self._next_beat = now + self._heartbeat
            self._last_beat = now
            # It says all that news would.
            self._news.clear()
            signals: Iterator[Signal] = self._snapshot()
        else:
            signals = self._changes()
        return [_encoder.encode(signal) for signal in signals]

    def farewell(self) -> bytes:
        """The last signal: nobody is here any more."""
        return _encoder.encode(Gone(replica=self._id, seq=self._next_seq()))

    def heard(self, payload: bytes, now: float) -> Heard:
        """Take in a signal, of whatever replica and whatever quality."""
        heard = Heard([], [])
        try:
            if _header.decode(payload).replica == self._id:
                return heard
            signal = _decoder.decode(payload)
        except (msgspec.MsgspecError, RecursionError):
            self.foreign += 1
            return heard
        peer = self._peers.get(signal.replica)
        if peer is None:
            if isinstance(signal, Gone) or len(self._peers) >= MOST_REPLICAS:
                return heard
            peer = self._peers[signal.replica] = Peer()
            self._next_beat = min(self._next_beat, max(now, self._last_beat + ANSWER_SECONDS))
        if signal.seq <= peer.seq:
            return heard
        follows = signal.seq == peer.seq + 1
        peer.seq = signal.seq
        peer.heard = now
        try:
            if isinstance(signal, Snapshot):
                self._take_snapshot(signal, peer, follows, heard)
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

    def _snapshot(self) -> Iterator[Snapshot]:
        parts = list(_in_parts(self._here)) or [{}]
        for part, people in enumerate(parts):
            yield Snapshot(
                replica=self._id,
                seq=self._next_seq(),
                part=part,
                parts=len(parts),
                people=people,
            )

    def _changes(self) -> Iterator[Changes]:
        while self._news or self._typed:
            changes = Changes(replica=self._id, seq=self._next_seq())
            for room, user in _first(self._news, MOST_IN_SIGNAL):
                claim = self._here.get(room, {}).get(user)
                if claim is not None:
                    changes.joined.setdefault(room, {})[user] = claim
                else:
                    changes.left.setdefault(room, []).append(user)
            for room, user in _first(self._typed, MOST_IN_SIGNAL):
                changes.typing.setdefault(room, []).append(user)
            yield changes

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _take_snapshot(self, signal: Snapshot, peer: Peer, follows: bool, heard: Heard) -> None:
        """Who is in a part is here at once; who is in none of the parts has left."""
        if signal.part == 0:
            peer.told = {}
        elif not follows or signal.part != peer.parts:
            # A part is missing, so nobody is known to have left: the next snapshot is near.
            peer.told = None
        peer.parts = signal.part + 1
        left: dict[str, list[str]] = {}
        if peer.told is not None:
            for room, people in signal.people.items():
                peer.told.setdefault(room, set()).update(people)
            if peer.parts == signal.parts:
                left = {
                    room: [user for user in people if user not in peer.told.get(room, ())]
                    for room, people in peer.people.items()
                }
                peer.told = None
            elif sum(map(len, peer.told.values())) > MOST_PLACES:
                peer.told = None
        self._apply(signal.replica, peer, signal.people, left, heard)

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
                holders = self._put(room, user, claim, replica)
                best = holders[0]
                heard.lost.extend(
                    (room, holder.user)
                    for holder in holders
                    if holder.replica == self._id
                    and (holder.user, holder.key) != (best.user, best.key)
                )

    def _bury(self, replica: str) -> None:
        for room, people in self._peers.pop(replica).people.items():
            self._places_elsewhere -= len(people)
            for user in people:
                self._remove(room, user, replica)

    def _is_news(self, room: str, user: str, now: float) -> bool:
        """Whether that somebody types is worth telling: not in a crowd, and not all the time."""
        crowd = self._crowds[room]
        if len(crowd.names) > self._shown:
            return False
        if now - crowd.typed.get(user, -self._typing) < self._typing / 2:
            return False
        crowd.typed[user] = now
        return True

    # One name in one room. Whatever changes who is shown under it is remembered for the members.

    def _holders(self, room: str, user: str) -> tuple[Holder, ...]:
        crowd = self._crowds.get(room)
        return crowd.names.get(skeleton(user), ()) if crowd else ()

    def _is_shown(self, crowd: Crowd, user: str) -> bool:
        holders = crowd.names.get(skeleton(user))
        return holders is not None and holders[0].user == user

    def _put(self, room: str, user: str, claim: Claim, replica: str) -> tuple[Holder, ...]:
        crowd = self._crowds.get(room)
        if crowd is None:
            crowd = self._crowds[room] = Crowd()
        holder = Holder(claim.since, claim.key, user, replica)
        before = crowd.names.get(skeleton(user), ())
        after = tuple(sorted((*before, holder))) if before else (holder,)
        self._replace(room, crowd, user, before, after)
        return after

    def _remove(self, room: str, user: str, replica: str) -> None:
        crowd = self._crowds[room]
        before = crowd.names[skeleton(user)]
        after = tuple(
            holder for holder in before if (holder.user, holder.replica) != (user, replica)
        )
        self._replace(room, crowd, user, before, after)

    def _replace(
        self,
        room: str,
        crowd: Crowd,
        user: str,
        before: tuple[Holder, ...],
        after: tuple[Holder, ...],
    ) -> None:
        if after:
            crowd.names[skeleton(user)] = after
        else:
            del crowd.names[skeleton(user)]
        shown = [holders[0].user for holders in (before, after) if holders]
        if len(shown) == 1 or shown[0] != shown[1]:
            crowd.changed.update(shown)
            self._changed.add(room)
        if not any(holder.user == user for holder in after):
            crowd.typed.pop(user, None)


_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")


def skeleton(user: str) -> str:
    """What names have in common that look the same but for case, width or invisible characters
    (NFKC_Casefold, Unicode chapter 3.13).
    """
    if user.isascii():
        return user.lower()
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", user)).casefold()
    return unicodedata.normalize("NFKC", folded)


def _in_parts(people: People) -> Iterator[People]:
    part: People = {}
    size = 0
    for room, claims in people.items():
        for user, claim in claims.items():
            part.setdefault(room, {})[user] = claim
            size += 1
            if size == MOST_IN_SIGNAL:
                yield part
                part, size = {}, 0
    if part:
        yield part


def _first(places: dict[tuple[str, str], None], count: int) -> Iterable[tuple[str, str]]:
    """Take so many out, oldest first."""
    taken = list(islice(places, count))
    for place in taken:
        del places[place]
    return taken
