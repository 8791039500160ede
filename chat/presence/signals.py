"""The signals by which replicas tell each other about their people, and their encoder."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import msgspec

from chat.presence.occupants import Holder, Place

# Maximum size of a received signal. Larger ones would take too long to process. Our own have 200
# names.
MOST_BYTES = 256 << 10
MOST_NAMES = 1000
# Names per signal that we send: it stays far below Kafka's limit for a record, and writing or
# processing it takes a few milliseconds at most.
MOST_IN_SIGNAL = 200


class Tenure(Protocol):
    """A claim to a name: a digest of the person's key, and the start of the claim."""

    @property
    def key(self) -> str: ...

    @property
    def since(self) -> int: ...


def is_earlier(one: Tenure, other: Tenure) -> bool:
    """Whether the claim `one` is older than `other`. Claims of two people are never equal."""
    return (one.since, one.key) < (other.since, other.key)


def precedes(one: Tenure, other: Tenure) -> bool:
    """Whether the claims belong to two people and `one` is older, so that it has priority."""
    return one.key != other.key and is_earlier(one, other)


class Claim(NamedTuple):
    """A person's claim to a name: a digest of the person's key, and its start in milliseconds."""

    key: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    since: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Reservation(NamedTuple):
    """The reserved name of a person who has left: a digest of the person's key, the start of the
    claim, and the end of the reservation, in milliseconds.
    """

    key: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    since: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    until: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


# By room, then by name.
People = dict[str, dict[str, Claim]]
Reserved = dict[str, dict[str, Reservation]]


class Signal(msgspec.Struct, tag_field="type", omit_defaults=True, kw_only=True):
    """`replica` is new for each process; `seq` grows with each of its signals.

    `holds`: the key of a person tells whether the name is reserved after leaving (`PASSING`: it is
    not). Releases without reservations do not set this, and they give people without a key one that
    looks like any other.
    """

    v: Literal[1] = 1
    replica: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    seq: Annotated[int, msgspec.Meta(ge=0)]
    holds: bool = False


class Snapshot(Signal, tag="snapshot"):
    """One part of the full list of a replica's people. The last part has `part` equal to `parts` -
    1. The total is not known earlier, because people come and go while the parts are written.
    """

    part: int = 0
    parts: int = 1
    people: People = {}
    # Reservations of any replica, sent to replicas that do not know them. Releases without
    # reservations ignore this field.
    reserved: Reserved = {}


class Changes(Signal, tag="changes"):
    joined: People = {}
    left: dict[str, list[str]] = {}
    typing: dict[str, list[str]] = {}


class Gone(Signal, tag="gone"):
    """The replica shuts down in an orderly way."""


class _Header(msgspec.Struct):
    replica: str


_header = msgspec.json.Decoder(_Header)
_decoder: msgspec.json.Decoder[Snapshot | Changes | Gone] = msgspec.json.Decoder(
    Snapshot | Changes | Gone
)
_encoder = msgspec.json.Encoder()


class ForeignSignalError(Exception):
    """This signal cannot come from a replica of this version."""


def decode(payload: bytes, own: str) -> Snapshot | Changes | Gone | None:
    """Decode a signal; None if replica `own` sent it. Raises `ForeignSignalError`."""
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
    """Encodes this replica's signals: snapshots, and changes that were not sent yet."""

    def __init__(self) -> None:
        self.replica = uuid.uuid4().hex
        self._seq = 0
        self._news: dict[Place, None] = {}
        self._typed: dict[Place, None] = {}

    def moved(self, room: str, user: str) -> None:
        """Somebody here has joined or left."""
        self._news[room, user] = None

    def typed(self, room: str, user: str) -> None:
        self._typed[room, user] = None

    def snapshot(
        self, here: Sequence[Holder], reserved: Mapping[Place, Reservation]
    ) -> Iterator[bytes]:
        """Encode a snapshot, one part per signal. Other work may run between two parts; changes
        made meanwhile must be sent after the last part.
        """
        # The snapshot includes these changes.
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
        """Encode the changes that were not sent yet, a signal at a time."""
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
    """Split into parts for one signal each, by room and name. No parts if there are no names."""
    while some := list(islice(names, MOST_IN_SIGNAL)):
        part: dict[str, dict[str, Any]] = {}
        for room, user, what in some:
            part.setdefault(room, {})[user] = what
        yield part


def _first(places: dict[Place, None], count: int) -> Iterable[Place]:
    """Remove and return up to `count` places, oldest first."""
    taken = list(islice(places, count))
    for place in taken:
        del places[place]
    return taken
