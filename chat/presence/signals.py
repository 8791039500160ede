"""How replicas tell each other of their people: the signals, and who writes them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec

# What a signal may hold, so that it stays far below what Kafka takes as one record.
MOST_IN_SIGNAL = 500

T = TypeVar("T")


class Tenure(Protocol):
    """That somebody has a name, or had it: a digest of their key, and since when."""

    @property
    def key(self) -> str: ...

    @property
    def since(self) -> int: ...


def precedes(one: Tenure, other: Tenure) -> bool:
    """Whether they are two people, and `one` has the better right to the name: who had it first."""
    return one.key != other.key and (one.since, one.key) < (other.since, other.key)


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
    """One part of all the people of a replica, of `parts` that follow each other."""

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
        if _header.decode(payload).replica == own:
            return None
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ForeignSignalError from None


class Writer:
    """Writes this replica's signals: all its people, or what is new of them and not told yet."""

    def __init__(self) -> None:
        self.replica = uuid.uuid4().hex
        self._seq = 0
        self._news: dict[tuple[str, str], None] = {}
        self._typed: dict[tuple[str, str], None] = {}

    def moved(self, room: str, user: str) -> None:
        """Somebody here has come or gone."""
        self._news[room, user] = None

    def typed(self, room: str, user: str) -> None:
        self._typed[room, user] = None

    def snapshot(self, here: People, reserved: Reserved) -> list[bytes]:
        # It says all that news would.
        self._news.clear()
        signals = [self._snapshot(people=part) for part in _in_parts(here)]
        signals += [self._snapshot(reserved=part) for part in _in_parts(reserved)]
        signals = signals or [self._snapshot()]
        for part, signal in enumerate(signals):
            signal.seq, signal.part, signal.parts = self._next_seq(), part, len(signals)
        return [_encoder.encode(signal) for signal in signals]

    def changes(self, here: People) -> list[bytes]:
        signals = []
        while self._news or self._typed:
            changes = Changes(replica=self.replica, seq=self._next_seq(), holds=True)
            for room, user in _first(self._news, MOST_IN_SIGNAL):
                claim = here.get(room, {}).get(user)
                if claim is not None:
                    changes.joined.setdefault(room, {})[user] = claim
                else:
                    changes.left.setdefault(room, []).append(user)
            for room, user in _first(self._typed, MOST_IN_SIGNAL):
                changes.typing.setdefault(room, []).append(user)
            signals.append(_encoder.encode(changes))
        return signals

    def gone(self) -> bytes:
        return _encoder.encode(Gone(replica=self.replica, seq=self._next_seq(), holds=True))

    def _snapshot(self, **holding: Any) -> Snapshot:
        """A part of one; which, is yet to be said."""
        return Snapshot(replica=self.replica, seq=0, holds=True, **holding)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq


def _in_parts(names: dict[str, dict[str, T]]) -> Iterator[dict[str, dict[str, T]]]:
    """By room and name, in parts that a signal can hold; none if there is nobody."""
    part: dict[str, dict[str, T]] = {}
    size = 0
    for room, users in names.items():
        for user, what in users.items():
            part.setdefault(room, {})[user] = what
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
