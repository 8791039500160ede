"""What all replicas agree on, because each makes it of the same records in the same order: those of
a register, which they share.

A record counts when the register delivers it, also one of this replica's own. So whoever writes at
the same moment, all replicas end with the same. After a fault, a register delivers everything from
the beginning. Until that is whole, what was known before counts: otherwise an old record would
bring back what a later one has ended.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Iterable, Sequence, Set
from typing import ClassVar, Generic, NamedTuple, TypeVar

import msgspec

from chat.protocol import ErrorCode, RefusedError
from chat.relay.base import UnavailableError
from chat.relay.register import Kept, Register
from chat.rights import Rights

# The register delivers what it has stored within milliseconds.
BACK_SECONDS = 5.0

# A person in a room: room, author.
Place = tuple[str, str]
R = TypeVar("R")
T = TypeVar("T")


class Follower(abc.ABC):
    """Knows what a register holds. Until it has read all of it, nobody is let in."""

    # What the register holds, for people.
    what: ClassVar[str]

    def __init__(self, register: Register) -> None:
        self._register = register
        # Number of skipped records that no chat wrote, or a later release.
        self.foreign = 0
        # Records that were put, and were not delivered yet.
        self._put: dict[bytes, asyncio.Future[bool]] = {}

    @property
    def caught_up(self) -> bool:
        """Whether all of it is known."""
        return self._register.caught_up

    @property
    def away(self) -> str:
        """Why it cannot be read now; empty if it can."""
        return self._register.away

    async def stop(self) -> None:
        await self._register.stop()

    async def _put_and_read(self, key: str, value: bytes) -> bool:
        """Put a record. Returns whether it counts, once this replica has read it back.

        Raises `UnavailableError`: it may count, or not.
        """
        counts = self._put.setdefault(value, asyncio.get_running_loop().create_future())
        try:
            await self._register.put(key, value)
            async with asyncio.timeout(BACK_SECONDS):
                return await asyncio.shield(counts)
        except (UnavailableError, TimeoutError) as error:
            why = str(error).rstrip(".") or "Kafka does not give it back"
            raise UnavailableError(f"It may count, or not: {why}.") from None
        finally:
            self._put.pop(value, None)

    def _answer(self, value: bytes, counts: bool) -> None:
        """Whoever put this record is told whether it counts, once this replica has read it."""
        if (answer := self._put.get(value)) is not None and not answer.done():
            answer.set_result(counts)


class Applied(NamedTuple):
    """What a record did: whose rights in which rooms may have changed, and whether it counts.

    `foreign`: no chat wrote it, or a later release.
    """

    changed: Sequence[Place]
    counts: bool = True
    foreign: bool = False


class Agreed(Follower, Generic[T]):
    """A table that each replica makes of the register's records, and that says what people may
    do.
    """

    def __init__(self, register: Register) -> None:
        super().__init__(register)
        self._table = self._new()
        # What is read while the register delivers everything from the beginning.
        self._anew: T | None = None
        # Of the records that were put, those that are in it.
        self._taken: dict[bytes, bool] = {}
        self._on_changed: Callable[[str, Set[str]], None]

    async def start(self, on_changed: Callable[[str, Set[str]], None]) -> None:
        """`on_changed` is told a room, and the authors whose rights in it may have changed."""
        self._on_changed = on_changed
        await self._register.start(self._take, begin=self._begin, whole=self._whole)

    @abc.abstractmethod
    def rights(self, author: str, rights: Rights) -> Rights:
        """What this makes of an author's rights. It follows all later changes."""

    @abc.abstractmethod
    def _new(self) -> T:
        """An empty table."""

    @abc.abstractmethod
    def _apply(self, table: T, one: Kept) -> Applied:
        """Take a record into a table."""

    @abc.abstractmethod
    def _differences(self, before: T, after: T) -> Iterable[Place]:
        """Whose rights are others in `after`."""

    def _tell(self, changed: Iterable[Place]) -> None:
        """Called after each change of the table that counts now."""
        rooms: dict[str, set[str]] = {}
        for room, author in changed:
            rooms.setdefault(room, set()).add(author)
        for room, authors in rooms.items():
            self._on_changed(room, authors)

    async def _store(self, key: str, value: bytes) -> bool:
        """Put a record. Returns whether it counts, once this replica has read it back.

        Raises `RefusedError` (`unavailable`): it may count, or not.
        """
        try:
            return await self._put_and_read(key, value)
        except UnavailableError as error:
            raise RefusedError(ErrorCode.UNAVAILABLE, str(error)) from None

    def _begin(self) -> None:
        self._anew = self._new()
        self._taken.clear()

    def _whole(self) -> None:
        if self._anew is None:
            return
        before, self._table, self._anew = self._table, self._anew, None
        self._tell(self._differences(before, self._table))
        self._answer_all()

    def _take(self, values: Sequence[Kept]) -> None:
        table = self._table if self._anew is None else self._anew
        changed: list[Place] = []
        for one in values:
            applied = self._apply(table, one)
            changed += applied.changed
            if applied.foreign:
                self.foreign += 1
            elif one.value in self._put:
                self._taken[one.value] = applied.counts
        if self._anew is not None:
            return
        if changed:
            self._tell(changed)
        self._answer_all()

    def _answer_all(self) -> None:
        for value, counts in self._taken.items():
            self._answer(value, counts)
        self._taken.clear()


def decode(decoder: msgspec.json.Decoder[R], value: bytes, most_bytes: int) -> R | None:
    """Read a record. Others may write to a topic: None if no chat wrote it, or a later release."""
    if len(value) > most_bytes:
        return None
    try:
        return decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
