"""The interface of a register: values that every replica keeps in memory, by key.

Unlike the log, it has no positions: a replica starts with everything that the register holds, in
the order in which it was put, and then follows it. Of a key's values, only the last one is sure to
be delivered. After a fault, everything is delivered again from the beginning. A register knows
nothing about what values mean.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Kept(NamedTuple):
    """A value, which may be any bytes: others may write, too. It is empty if the `key` was removed,
    which is delivered like a value. `ts`: when it was stored, in milliseconds since the epoch; 0 if
    that is unknown.
    """

    ts: int
    value: bytes
    key: bytes = b""


# Called on the event loop. They must not raise.
Take = Callable[[Sequence[Kept]], None]
Note = Callable[[], None]


def ignore() -> None:
    """For those to whom it makes no difference."""


class Register(abc.ABC):
    """A register shared by all replicas that use the same one."""

    @property
    @abc.abstractmethod
    def caught_up(self) -> bool:
        """Whether everything that it held when it was opened has been delivered."""

    @property
    def away(self) -> str:
        """Why it cannot be read now; empty if it can."""
        return ""

    @abc.abstractmethod
    async def start(self, take: Take, *, begin: Note = ignore, whole: Note = ignore) -> None:
        """Start delivery. Returns at once, even if the register is unreachable.

        `begin` is called before the first value, and before that is delivered again; `whole` when
        everything has been delivered that was there at that time. Between the two, an older value
        of a key may come after a newer one that was delivered before.
        """

    @abc.abstractmethod
    async def put(self, key: str, value: bytes) -> None:
        """Store a value durably. It is delivered to every replica, including this one.

        Raises `UnavailableError`; the value may be stored nevertheless.
        """

    @abc.abstractmethod
    async def remove(self, key: str) -> None:
        """Forget a key and its values, durably. Raises as `put` does."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """End delivery."""


class MemoryRegister(Register):
    """For one process without Kafka: what it holds ends with the process."""

    def __init__(self) -> None:
        self._take: Take | None = None

    @property
    def caught_up(self) -> bool:
        return True

    async def start(self, take: Take, *, begin: Note = ignore, whole: Note = ignore) -> None:
        self._take = take
        begin()
        whole()

    async def put(self, key: str, value: bytes) -> None:
        if self._take is not None:
            self._take([Kept(time.time_ns() // 1_000_000, value, key.encode())])

    async def remove(self, key: str) -> None:
        await self.put(key, b"")

    async def stop(self) -> None:
        self._take = None
