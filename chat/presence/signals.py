"""How replicas tell each other of their people: the signals, and who writes them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import msgspec

from chat.presence.occupants import Holder, Place

# What a signal of others may have: more takes too long to hear at once. Theirs have 200 names.
MOST_BYTES = 256 << 10
MOST_NAMES = 1000
# What a signal may hold, so that it stays far below what Kafka takes as one record, and that to
# write it, or to hear it, takes a few milliseconds at most.
MOST_IN_SIGNAL = 200


class Tenure(Protocol):
    """That somebody has a name, or had it: a digest of their key, and since when."""

    @property
    def key(self) -> str: ...

    @property
    def since(self) -> int: ...


def is_earlier(one: Tenure, other: Tenure) -> bool:
    """Whether `one` had the name before `other`; between two people, always one of them had."""
    return (one.since, one.key) < (other.since, other.key)


def precedes(one: Tenure, other: Tenure) -> bool:
    """Whether they are two people, and `one` has the better right to the name: who had it first."""
    return one.key != other.key and is_earlier(one, other)


class Claim(NamedTuple):
    """A person's hold on a name: a digest of their key, and since when, in milliseconds."""

    key: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    since: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Reservation(NamedTuple):
    """The name of somebody who has left: a digest of their key, since when the name was theirs, and
    until when it is, in milliseconds.
    """

    key: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    since: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    until: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


# By room, then by name.
People = dict[str, dict[str, Claim]]
Reserved = dict[str, dict[str, Reservation]]


class Signal(msgspec.Struct, tag_field="type", omit_defaults=True, kw_only=True):
    """`replica` is new with every process; `seq` grows with each of its signals.

    `holds`: of its people, those whose names are not held can be told by their keys (`PASSING`).
    Releases that hold no names do not say so, and give whoever has no key one like any other.
    """

    v: Literal[1] = 1
    replica: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    seq: Annotated[int, msgspec.Meta(ge=0)]
    holds: bool = False


class Snapshot(Signal, tag="snapshot"):
    """One part of all the people of a replica. It is the last one if `part` is `parts` - 1: people
    come and go while it is written, so how many there will be is not known before.
    """

    part: int = 0
    parts: int = 1
    people: People = {}
    # Names of people who have left, on whatever replica. Told to replicas that are new; releases
    # that hold no names ignore it.
    reserved: Reserved = {}


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


class ForeignSignalError(Exception):
    """No replica of this version wrote this."""


def decode(payload: bytes, own: str) -> Snapshot | Changes | Gone | None:
    """Read a signal; None if it is of the replica `own`. Raises `ForeignSignalError`."""
    try:
        if len(payload) > MOST_BYTES:
            raise ForeignSignalError
        if _header.decode(payload).replica == own:
            return None
        signal = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ForeignSignalError from None
    if isinstance(signal, Snapshot):
        parts: tuple[Mapping[str, Sized], ...] = (signal.people, signal.reserved)
    elif isinstance(signal, Changes):
        parts = (signal.joined, signal.left, signal.typing)
    else:
        parts = ()
    if sum(len(names) for rooms in parts for names in rooms.values()) > MOST_NAMES:
        raise ForeignSignalError
    return signal


class Writer:
    """Writes this replica's signals: all its people, or what is new of them and not told yet."""

    def __init__(self) -> None:
        self.replica = uuid.uuid4().hex
        self._seq = 0
        self._news: dict[Place, None] = {}
        self._typed: dict[Place, None] = {}

    def moved(self, room: str, user: str) -> None:
        """Somebody here has come or gone."""
        self._news[room, user] = None

    def typed(self, room: str, user: str) -> None:
        self._typed[room, user] = None

    def snapshot(
        self, here: Sequence[Holder], reserved: Mapping[Place, Reservation]
    ) -> Iterator[bytes]:
        """All of them, a part at a time. Between two parts, other work may be done; what is news
        meanwhile must be told after the last one.
        """
        # It says all that news would.
        self._news.clear()
        people = ((one.room, one.user, Claim(one.key, one.since)) for one in here)
        names = ((room, user, held) for (room, user), held in reserved.items())
        parts = itertools.chain(
            ({"people": part} for part in _in_parts(people)),
            ({"reserved": part} for part in _in_parts(names)),
        )
        holding: dict[str, Any] | None = next(parts, {})
        number = 0
        while holding is not None:
            following = next(parts, None)
            signal = Snapshot(
                replica=self.replica,
                seq=self._next_seq(),
                holds=True,
                part=number,
                parts=number + (1 if following is None else 2),
                **holding,
            )
            yield _encoder.encode(signal)
            holding = following
            number += 1

    def changes(self, here: Mapping[Place, Holder]) -> Iterator[bytes]:
        """What is news, a signal at a time."""
        while self._news or self._typed:
            changes = Changes(replica=self.replica, seq=self._next_seq(), holds=True)
            for place in _first(self._news, MOST_IN_SIGNAL):
                room, user = place
                if (holder := here.get(place)) is not None:
                    claim = Claim(holder.key, holder.since)
                    changes.joined.setdefault(room, {})[user] = claim
                else:
                    changes.left.setdefault(room, []).append(user)
            for room, user in _first(self._typed, MOST_IN_SIGNAL):
                changes.typing.setdefault(room, []).append(user)
            yield _encoder.encode(changes)

    def gone(self) -> bytes:
        return _encoder.encode(Gone(replica=self.replica, seq=self._next_seq(), holds=True))

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq


def _in_parts(names: Iterator[tuple[str, str, Any]]) -> Iterator[dict[str, dict[str, Any]]]:
    """By room and name, in parts that a signal can hold; none if there is nobody."""
    while some := list(islice(names, MOST_IN_SIGNAL)):
        part: dict[str, dict[str, Any]] = {}
        for room, user, what in some:
            part.setdefault(room, {})[user] = what
        yield part


def _first(places: dict[Place, None], count: int) -> Iterable[Place]:
    """Take so many out, oldest first."""
    taken = list(islice(places, count))
    for place in taken:
        del places[place]
    return taken
