"""History: what was said in a room, a page at a time, from the window and from the log."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from chat.archive import Archive, Page
from chat.protocol import ErrorCode, Position, RefusedError
from chat.relay.base import Relay, UnavailableError
from chat.window import Window

T = TypeVar("T")


class History:
    """The history of one log. `history` and `page` count messages of a room, `scan` offsets of a
    partition.
    """

    def __init__(
        self, relay: Relay, window: Window, *, size: int, history: int, page: int, scan: int
    ) -> None:
        self._window = window
        self._archive = Archive(relay.read, window.epoch, window=size, scan=scan)
        self._history = history
        self._page = page
        self._scan = scan

    async def before(self, name: str, before: str | None, limit: int | None) -> Page:
        """The messages before a position, or the last ones; raises `RefusedError`."""
        known = self._window.part_of(name)
        end = known.end + 1
        if before is not None:
            end = min(self._window.place(name, before).offset, end)
        return await self._look_up(self._archive.before(known, end, self._limit(limit)))

    async def after(self, name: str, after: str | None, limit: int | None) -> Page:
        """The messages after a position, or the oldest ones; raises `RefusedError`."""
        if after is not None:
            start = self._window.place(name, after).offset
            if start > self._window.partition_of(name).position:
                raise RefusedError(
                    ErrorCode.UNAVAILABLE,
                    "This replica has not read so far: try again in a moment.",
                )
        else:
            start = await self._look_up(self._archive.begin(self._window.part_of(name)))
        known = self._window.part_of(name)
        return await self._look_up(self._archive.after(known, start, self._limit(limit)))

    async def missed(self, name: str, since: Position) -> Page | None:
        """What the log has after `since`, if the window does not reach back to it, but the log
        does.
        """
        known = self._window.part_of(name)
        if (since.epoch, since.partition) != (self._window.epoch, known.partition):
            return None
        if not known.end - self._scan <= since.offset < known.floor:
            return None
        try:
            page = await self._archive.after(known, since.offset, self._history + 1)
        except UnavailableError:
            return None
        return page if page.whole and not page.more else None

    def _limit(self, limit: int | None) -> int:
        return min(limit or self._page, self._page)

    async def _look_up(self, looking: Awaitable[T]) -> T:
        try:
            found = await looking
        except UnavailableError as error:
            raise RefusedError(ErrorCode.UNAVAILABLE, str(error)) from None
        if self._window.replaced:
            raise RefusedError(ErrorCode.UNAVAILABLE, "The log was replaced: try again.")
        return found
