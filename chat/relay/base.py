"""The interface of a relay: one log to which every replica appends, and which is delivered to every
replica in the same order.

The log has partitions. All records of a room are in one partition, so each room has one order. Each
record has an offset that grows within its partition (gaps are possible). The `epoch` changes when
the log is replaced or recreated; offsets of another epoch are meaningless.

In addition to the log there are signals: small, short-lived payloads for every replica (presence,
typing). They are never in the log, have no order relative to its records, and may be lost.

A relay knows nothing about clients, repeats or the meaning of signals: the listener handles these.
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
    """A message to append: `user` says `text` in `room`. `cid` is the client's id for it.

    `author` identifies the writer independently of the name: 32 hexadecimal digits. It is empty if
    unknown.
    """

    room: str
    user: str
    text: str
    cid: str
    author: str = ""


class Revision(Record, frozen=True, gc=False):
    """Deletes the message at `offset`, which the log stored at `time`, or replaces its text.

    `text` is the new text; it is empty if the message is deleted. `user` and `author` are who did
    it: the author of the message, or somebody who may delete those of others (`moderator`).
    """

    offset: int = -1
    time: int = 0
    moderator: bool = False


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A record at its offset. `ts` is when the log stored it, in milliseconds since the epoch."""

    offset: int
    ts: int
    record: Record


# Maximum size of one read from the log, in bytes. Each record counts as its text plus a fixed
# number of bytes.
PORTION_BYTES = 2 << 20
_BESIDE_TEXT = 600


class Portion(NamedTuple):
    """All records that the log has between the start of the read and offset `reached`."""

    entries: Sequence[Entry]
    reached: int

    @classmethod
    def of(cls, entries: Iterable[Entry], upto: int) -> Self:
        """As many of the entries as one portion may hold, and at least one. `upto` is the last
        offset of the range.
        """
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
    """The next records of one partition. `position` is the last offset covered, even if `entries`
    is empty.

    `times` says when the log stored what: each pair is an offset and the time at which everything
    up to it (and after the pair before) was stored, in milliseconds since the epoch. The last
    offset equals `position`.
    """

    partition: int
    position: int
    entries: Sequence[Entry]
    times: Sequence[tuple[int, int]] = ()


class Listener(Protocol):
    """Receives the content of the log: on the event loop, in log order. It must not raise."""

    def reset(self, epoch: str, positions: Sequence[int]) -> None:
        """The log was opened or replaced: partition p is delivered from just after `positions[p]`.

        Everything delivered before belongs to another log, or is followed by a gap, or is lost. In
        the last case the epoch may be the same; an offset that now has another record then has
        another time.
        """

    def deliver(self, batches: Sequence[Batch]) -> None:
        """The next records, in order within each partition, without gaps or duplicates."""

    def signalled(self, payloads: Sequence[bytes]) -> None:
        """Signals of any replica, including this one. Signals of one replica are in order."""


class UnavailableError(Exception):
    """The log does not accept records now; the text says why. Retry later."""


class TooLargeError(Exception):
    """The log does not accept records of this size. Do not retry."""


class Relay(abc.ABC):
    """A log shared by all replicas that use the same one."""

    @property
    @abc.abstractmethod
    def up(self) -> bool:
        """Whether the log accepts records now, as far as is known."""

    @property
    @abc.abstractmethod
    def caught_up(self) -> bool:
        """Whether everything that the log held when it was opened has been delivered."""

    @property
    def trouble(self) -> str:
        """Why this replica cannot work, and what to do about it; empty if it can."""
        return ""

    @property
    def away(self) -> str:
        """Why the log is unreachable now, as far as is known; empty if it is reachable."""
        return ""

    @property
    def lag(self) -> Mapping[int, int]:
        """The number of records in each partition that are known to exist and are not read yet."""
        return {}

    @property
    def foreign_records(self) -> int:
        """Number of skipped records that no chat wrote."""
        return 0

    @property
    def unknown_records(self) -> int:
        """Number of skipped records that a later release wrote."""
        return 0

    @abc.abstractmethod
    async def start(self, listener: Listener) -> None:
        """Start delivery. Returns at once, even if the log is unreachable."""

    @abc.abstractmethod
    def append(self, record: Record) -> asyncio.Future[None]:
        """Append a record. The future is done when the log has stored it durably.

        Raises `TooLargeError` or `UnavailableError`, here or through the future. After
        `UnavailableError` the record may be in the log nevertheless: append it again with the same
        cid.
        """

    @abc.abstractmethod
    async def read(self, partition: int, after: int, upto: int) -> Portion:
        """The records with `after` < offset <= `upto` that the log still has, in order: all of
        them, or as many as fit into `PORTION_BYTES`.

        They are read from the log itself, however old they are, in parallel to the delivery.

        Raises `UnavailableError`.
        """

    async def time_at(self, partition: int, offset: int) -> int | None:
        """When the log stored the record at this offset, in milliseconds since the epoch.

        None if the log does not have it. Raises `UnavailableError`.
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
        """Wait up to `seconds` until all appended records are in the log, and end."""


def author_by_name(user: str) -> str:
    """The author of a record without one. It never equals the author of a key."""
    return hashlib.blake2b(user.encode(), digest_size=16, person=b"chat name").hexdigest()


def partition_of(room: str, partitions: int) -> int:
    """The partition that holds a room's records. It is the same on every replica, forever."""
    return zlib.crc32(room.encode()) % partitions
