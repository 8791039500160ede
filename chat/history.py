"""History: messages of a room, page by page, from the window and from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from chat.archive import Archive, Asker, Page
from chat.protocol import ErrorCode, Position, RefusedError
from chat.relay.base import Relay, UnavailableError
from chat.window import Window

# Maximum time to wait for a page, and for missed messages on `join`.
PAGE_SECONDS = 10.0
MISSED_SECONDS = 5.0

T = TypeVar("T")


class History:
    """The history of one log. `history` and `page` count messages of a room, `page_bytes` their
    bytes, `scan` offsets of a partition.

    Reads are charged to an `address`.
    """

    def __init__(
        self,
        relay: Relay,
        window: Window,
        *,
        size: int,
        history: int,
        page: int,
        page_bytes: int,
        scan: int,
    ) -> None:
        self._relay = relay
        self._window = window
        self._archive = Archive(
            relay.read, window.epoch, window=size, scan=scan, page_bytes=page_bytes
        )
        self._history = history
        self._page = page
        self._scan = scan

    async def before(self, name: str, before: str | None, limit: int | None, address: str) -> Page:
        """The messages before a position, or the latest ones. Raises `RefusedError`."""
        known = self._window.part_of(name)
        end = known.end + 1
        if before is not None:
            end = min(self._window.place(name, before).offset, end)
        return await self._look_up(
            self._archive.before(known, end, self._limit(limit), Asker(address))
        )

    async def after(self, name: str, after: str | None, limit: int | None, address: str) -> Page:
        """The messages after a position, or the oldest ones. Raises `RefusedError`. This does not
        wait until the replica has read further.
        """
        asker = Asker(address)
        known = self._window.part_of(name)
        held = True
        if after is None:
            start = await self._look_up(self._archive.begin(known, asker))
            known = self._window.part_of(name)
        else:
            position = self._window.place(name, after)
            start = position.offset
            if start > known.end:
                raise RefusedError(
                    ErrorCode.UNAVAILABLE,
                    "This replica has not read so far: try again in a moment.",
                )
            held = await self._look_up(self._holds(position, asker))
            known = self._window.part_of(name)
        page = await self._look_up(self._archive.after(known, start, self._limit(limit), asker))
        return page._replace(whole=page.whole and held)

    async def holds(self, position: Position, address: str) -> bool:
        """Whether the log still has the record at a position, as far as is known. It does not if
        the log lost its end and other records took those offsets. The read is urgent, because a
        client waits to join.
        """
        try:
            async with asyncio.timeout(MISSED_SECONDS):
                return await self._holds(position, Asker(address, urgent=True))
        except TimeoutError:
            return False

    async def _holds(self, position: Position, asker: Asker) -> bool:
        window = self._window
        if position.epoch != window.epoch or position.partition >= len(window.partitions):
            return False
        partition = window.partitions[position.partition]
        if position.time == 0 or position.offset > partition.position:
            return True
        known: int | None = partition.times.at(position.offset)
        if not known:
            try:
                known = await self._archive.once(
                    ("time", position.partition, position.offset),
                    asker,
                    lambda: self._relay.time_at(position.partition, position.offset),
                )
            except UnavailableError:
                return False
        # If the log has deleted the record, there is no time to compare. Then the next records
        # decide.
        return not known or known == position.time

    async def missed(self, name: str, since: Position, address: str) -> Page | None:
        """What the log has after `since`, if the window starts after it but the log still reaches
        it.
        """
        known = self._window.part_of(name)
        if (since.epoch, since.partition) != (self._window.epoch, known.partition):
            return None
        if not known.end - self._scan <= since.offset < known.floor:
            return None
        asker = Asker(address, urgent=True)
        try:
            async with asyncio.timeout(MISSED_SECONDS):
                page = await self._archive.after(known, since.offset, self._history + 1, asker)
        except (UnavailableError, TimeoutError):
            return None
        return page if page.whole and not page.more else None

    def _limit(self, limit: int | None) -> int:
        return min(limit or self._page, self._page)

    async def _look_up(self, looking: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                found = await looking
        except UnavailableError as error:
            raise RefusedError(ErrorCode.UNAVAILABLE, str(error)) from None
        except TimeoutError:
            raise RefusedError(
                ErrorCode.UNAVAILABLE, "Many read the history: try again in a moment."
            ) from None
        if self._window.replaced:
            raise RefusedError(ErrorCode.UNAVAILABLE, "The log was replaced: try again.")
        return found
