"""The interface of a relay: one log, to which every replica appends, and which is delivered to
every replica in one order.

The log has partitions; a room's records are all in one of them, so a room has one order. Each
record has an offset that grows within its partition (gaps are possible). The log's `epoch` changes
when the log is not the same any more, and then no offset means what it meant.

In addition to the log there are signals: small, short-lived payloads for every replica (presence,
typing). They are never in the log, have no order relative to its records, and may be lost.

A relay knows nothing of clients, repeats or the meaning of signals: the listener handles these.
"""

from __future__ import annotations

import abc
import asyncio
import hashlib
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import msgspec


class Record(msgspec.Struct, frozen=True, gc=False):
    """What is appended: somebody says `text` in `room`, under an id of their own.

    `author` says who wrote it, whatever they are called: 32 hexadecimal digits. It is empty where
    nobody said.
    """

    room: str
    user: str
    text: str
    cid: str
    author: str = ""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A record in its place; `ts` is when the log took it, in milliseconds since the epoch."""

    offset: int
    ts: int
    record: Record


# What is read from the log at once: bytes, in which each record counts so much beside its text.
PORTION_BYTES = 2 << 20
_BESIDE_TEXT = 600


class Portion(NamedTuple):
    """All records that the log has up to offset `reached`, from where the read began."""

    entries: Sequence[Entry]
    reached: int

    @classmethod
    def of(cls, entries: Iterable[Entry], upto: int) -> Self:
        """As many of these as may be held at once, and one at least; offset `upto` ends them."""
        taken = []
        left = PORTION_BYTES
        for entry in entries:
            taken.append(entry)
            left -= sys.getsizeof(entry.record.text) + _BESIDE_TEXT
            if left <= 0:
                return cls(taken, entry.offset)
        return cls(taken, upto)


@dataclass(frozen=True, slots=True)
class Batch:
    """What came next in one partition. `position` is the offset it reaches, entries or not.

    `times` says when the log took what: pairs of an offset and of when everything up to it (and
    after the pair before) was taken, in milliseconds since the epoch. The last offset is the
    position.
    """

    partition: int
    position: int
    entries: Sequence[Entry]
    times: Sequence[tuple[int, int]] = ()


class Listener(Protocol):
    """Receives the content of the log: on the event loop, in log order. It must not raise."""

    def reset(self, epoch: str, positions: Sequence[int]) -> None:
        """The log is opened anew: partition p is delivered from just after `positions[p]`.

        Whatever was delivered before belongs to another log, or is separated from what follows by a
        hole, or is lost. In the last case the epoch may be the same: an offset that the log gives
        to another record then has another time.
        """

    def deliver(self, batches: Sequence[Batch]) -> None:
        """The next records, each partition's in order, none left out and none twice."""

    def signalled(self, payloads: Sequence[bytes]) -> None:
        """Signals of some replica, this one included; those of one replica in its order."""


class UnavailableError(Exception):
    """The log does not accept records now; the text says why. Retry later."""


class TooLargeError(Exception):
    """The log accepts no record of this size. Do not retry."""


class Relay(abc.ABC):
    """A log that is shared by all replicas that name the same one."""

    @property
    @abc.abstractmethod
    def up(self) -> bool:
        """Whether the log accepts records now, as far as is known."""

    @property
    @abc.abstractmethod
    def caught_up(self) -> bool:
        """Whether all that the log held when it was opened has been delivered."""

    @property
    def trouble(self) -> str:
        """Why this replica cannot do its work, and what to do about it; empty if it can."""
        return ""

    @property
    def away(self) -> str:
        """Why the log cannot be reached now, as far as is known; empty if it can."""
        return ""

    @property
    def lag(self) -> Mapping[int, int]:
        """Per partition, the records that the log is known to hold and that are not read yet."""
        return {}

    @property
    def foreign_records(self) -> int:
        """Records skipped so far, for no chat wrote them."""
        return 0

    @property
    def unknown_records(self) -> int:
        """Records skipped so far, for a later release wrote them."""
        return 0

    @abc.abstractmethod
    async def start(self, listener: Listener) -> None:
        """Begin to deliver. Returns at once, whether or not the log can be reached."""

    @abc.abstractmethod
    def append(self, record: Record) -> asyncio.Future[None]:
        """Append a record; the future is done when the log holds it for good.

        Raises `TooLargeError`, or `UnavailableError`, here or through the future. In the latter
        case the record may be in the log all the same: append it again with the same cid.
        """

    @abc.abstractmethod
    async def read(self, partition: int, after: int, upto: int) -> Portion:
        """The records with `after` < offset <= `upto` that the log still has, in order: all of
        them, or those that make up `PORTION_BYTES`.

        They come from the log itself, however long ago they were delivered, and beside the
        delivery, which goes on.

        Raises `UnavailableError`.
        """

    async def time_at(self, partition: int, offset: int) -> int | None:
        """When the log took what is at this offset, in milliseconds since the epoch.

        None if it does not have it. Raises `UnavailableError`.
        """
        for entry in (await self.read(partition, offset - 1, offset)).entries:
            return entry.ts
        return None

    @abc.abstractmethod
    def signal(self, payload: bytes) -> None:
        """Send a signal to every replica, including this one: best effort, without confirmation.

        Never waits and never raises. A signal that cannot be sent now is dropped.
        """

    @abc.abstractmethod
    async def stop(self, seconds: float) -> None:
        """Wait up to so many seconds until all appended records are in the log, and end."""


def author_by_name(user: str) -> str:
    """The author of a record that names none. It is never that of a key."""
    return hashlib.blake2b(user.encode(), digest_size=16, person=b"chat name").hexdigest()


def partition_of(room: str, partitions: int) -> int:
    """The partition that holds a room's records: the same on every replica, for ever."""
    return zlib.crc32(room.encode()) % partitions
