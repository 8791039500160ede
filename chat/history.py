"""History: messages of a room, page by page, from the window and from the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

from chat.archive import Archive, Asker, Page, revised_of
from chat.protocol import ErrorCode, Position, RefusedError
from chat.relay.base import Relay, UnavailableError
from chat.room import Room, StoredMessage
from chat.window import RoomWindow, Window

# Maximum time to wait for a page, and for missed messages on `join`.
PAGE_SECONDS = 10.0
MISSED_SECONDS = 5.0
# How often a page is read again because messages on it were revised meanwhile.
TRIES = 3

T = TypeVar("T")


class Revised(NamedTuple):
    """What became of messages: the ids of those that were deleted, and those that were edited. It
    is not `whole` if there may be others.
    """

    deleted: list[str]
    edited: list[StoredMessage]
    whole: bool


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
        self._page_bytes = page_bytes
        self._scan = scan

    async def before(self, name: str, before: str | None, limit: int | None, address: str) -> Page:
        """The messages before a position, or the latest ones. Raises `RefusedError`."""
        position = None if before is None else self._window.place(name, before)
        asker = Asker(address)

        def find(known: RoomWindow) -> Awaitable[Page]:
            end = known.end + 1
            if position is not None:
                end = min(position.offset, end)
            return self._archive.before(known, end, self._limit(limit), asker)

        return await self._look_up_page(name, find)

    async def after(self, name: str, after: str | None, limit: int | None, address: str) -> Page:
        """The messages after a position, or the oldest ones. Raises `RefusedError`. This does not
        wait until the replica has read further.
        """
        asker = Asker(address)
        known = self._window.part_of(name)
        held = True
        if after is None:
            start = await self._look_up(self._archive.begin(known, asker))
        else:
            position = self._window.place(name, after)
            start = position.offset
            if start > known.end:
                raise RefusedError(
                    ErrorCode.UNAVAILABLE,
                    "This replica has not read so far: try again in a moment.",
                )
            held = await self._look_up(self._holds(position, asker))
        page = await self._look_up_page(
            name, lambda known: self._archive.after(known, start, self._limit(limit), asker)
        )
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
        if not self._is_of(known, since):
            return None
        if not known.end - self._scan <= since.offset < known.floor:
            return None
        asker = Asker(address, urgent=True)
        try:
            async with asyncio.timeout(MISSED_SECONDS):
                page = await self._archive.after(known, since.offset, self._history + 1, asker)
        except (UnavailableError, TimeoutError):
            return None
        # The client may come again if it was revised meanwhile.
        return page if page.whole and not page.more and not _revised_since(known, page) else None

    async def find(self, name: str, position: Position, address: str) -> StoredMessage | None:
        """The message whose id is this position, also if it is deleted. Raises `RefusedError`."""
        room = self._window.rooms.get(name)
        message = room.find(position.offset) if room else None
        if message is not None and position.time in (0, message.time):
            return message
        known = self._window.part_of(name)
        if position.offset > known.end:
            return None
        return await self._look_up(self._archive.find(known, position, Asker(address)))

    async def learn(self, name: str, since: Position, address: str) -> bool:
        """Let the replica know what was revised after a position from which somebody resumes.
        Returns whether it does, as far as this may take.
        """
        known = self._window.part_of(name)
        if not self._is_of(known, since):
            return False
        if known.revisions.since <= since.offset + 1:
            return True
        if since.offset < known.end - self._scan:
            return False
        asker = Asker(address, urgent=True)
        try:
            async with asyncio.timeout(MISSED_SECONDS):
                await self._archive.learn(known, since.offset + 1, asker)
        except (UnavailableError, TimeoutError):
            return False
        return True

    async def edited(
        self, name: str, since: Position, address: str
    ) -> dict[int, StoredMessage | None]:
        """Messages before a position that were edited after it and are not in memory, by the offset
        of the last edit: as many as there is time for.
        """
        known = self._window.part_of(name)
        there = {message.offset for message in known.messages}
        found: dict[int, StoredMessage | None] = {}
        asker = Asker(address, urgent=True)
        revisions = known.revisions.after(name, since.offset)[: self._page]
        with contextlib.suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(MISSED_SECONDS):
                for (offset, time, _), revised in revisions:
                    if revised.deleted or offset > since.offset or offset in there:
                        continue
                    position = since._replace(offset=offset, time=time)
                    message = await self._archive.find(known, position, asker)
                    if message is not None:
                        message = await self._archive.as_revised(known, message, asker)
                    found[revised.at] = message
        return found

    def revised(
        self, room: Room, since: Position | None, edited: Mapping[int, StoredMessage | None]
    ) -> Revised:
        """What became of messages before a position after it, as far as is known. `edited` has
        those that are not in memory.
        """
        if since is None or (since.epoch, since.partition) != (room.epoch, room.partition):
            return Revised([], [], whole=False)
        revisions = self._window.partitions[room.partition].revisions
        found = Revised([], [], revisions.since <= since.offset + 1)
        news = revisions.after(room.name, since.offset)
        if not news:
            return found
        here = {message.offset: message for message in room.after(-1)}
        left = self._page_bytes
        for (offset, time, _), revised in news:
            if offset > since.offset:
                continue
            if len(found.deleted) + len(found.edited) == self._history:
                return found._replace(whole=False)
            if revised.deleted:
                of = since._replace(offset=offset, time=time)
                found.deleted.append(str(of))
                continue
            message = here.get(offset) or edited.get(revised.at)
            if message is not None and not self._is_deleted(room.name, message):
                left -= len(message.payload)
                if left < 0:
                    return found._replace(whole=False)
                found.edited.append(message)
            elif offset not in here and revised.at not in edited:
                found = found._replace(whole=False)
        return found

    async def _look_up_page(self, name: str, find: Callable[[RoomWindow], Awaitable[Page]]) -> Page:
        """A page that tells what is true when it is answered."""
        for _ in range(TRIES):
            known = self._window.part_of(name)
            page = await self._look_up(find(known))
            if not _revised_since(known, page):
                return page
        raise RefusedError(
            ErrorCode.UNAVAILABLE, "These messages are being edited: try again in a moment."
        )

    def _is_deleted(self, name: str, message: StoredMessage) -> bool:
        revised = self._window.revised(name, message)
        return revised is not None and revised.deleted

    def _is_of(self, known: RoomWindow, position: Position) -> bool:
        return (position.epoch, position.partition) == (self._window.epoch, known.partition)

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


def _revised_since(known: RoomWindow, page: Page) -> bool:
    """Whether a message of the page was revised after this was known of its room, or may be."""
    if known.revisions.forgotten != known.forgotten:
        return True
    revisions = (revised_of(known, message) for message in page.messages)
    return any(revised is not None and revised.at > known.end for revised in revisions)
