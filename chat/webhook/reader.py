"""Reads a room from a position on, through the client library.

If it has missed more than the chat gives at once, it reads the rest over HTTP, page by page, oldest
first. So neither a long pause nor a slow receiver costs memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import msgspec
from tornado.httpclient import HTTPError, HTTPRequest
from tornado.httputil import url_concat
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from chat.client import Chat, Deleted, DisconnectedError, Edited, Gap, Message, Room
from chat.webhook.events import Kind, Missing

# After so long without an event, the position is looked at, as it may have moved.
IDLE_SECONDS = 60.0
FETCH_SECONDS = 30.0
# A refused page is asked for again after a random time in this range.
AGAIN_SECONDS = (1.0, 3.0)
# Of a page. The chat's default is 1 MB.
MOST_BYTES = 16 << 20
# The position before all that the chat has.
OLDEST = "oldest"

Token = Callable[[], str]


class Page(msgspec.Struct):
    """See docs/protocol.md, "Over HTTP"."""

    position: str
    more: bool
    recovered: bool
    messages: list[Message]


class Step(NamedTuple):
    """What happened, and the position after it. None: only the position has moved."""

    event: Message | Edited | Deleted | Missing | None
    position: str


class History:
    """Pages of rooms over HTTP. `url`: the chat's, https://HOST/."""

    def __init__(self, url: str, token: Token | None) -> None:
        self._url = f"{url.rstrip('/')}/api/rooms"
        self._token = token
        self._client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=MOST_BYTES)

    async def after(self, room: str, position: str) -> Page | None:
        """The messages after a position; None: the chat refuses it. The position is then of a log
        that was replaced, or the room may not be read, which `OLDEST` tells apart. Waits until the
        chat answers. Raises `DisconnectedError` if it answers something else, or refuses `OLDEST`.
        """
        url = url_concat(f"{self._url}/{room}/messages", {"after": position})
        while True:
            headers = {"Authorization": f"Bearer {self._token()}"} if self._token else {}
            request = HTTPRequest(
                url,
                headers=headers,
                follow_redirects=False,
                connect_timeout=FETCH_SECONDS,
                request_timeout=FETCH_SECONDS,
            )
            try:
                response = await self._client.fetch(request, raise_error=False)
            except (HTTPError, OSError) as error:
                raise DisconnectedError(f"history of {room}: {error}") from None
            if response.code == 200:
                return self._read(room, response.body)
            if response.code == 400 and position != OLDEST:
                return None
            if response.code not in (429, 503):
                raise DisconnectedError(f"history of {room}: the chat answers {response.code}")
            await asyncio.sleep(random.uniform(*AGAIN_SECONDS))

    def close(self) -> None:
        self._client.close()

    def _read(self, room: str, body: bytes) -> Page:
        try:
            return msgspec.json.decode(body, type=Page)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DisconnectedError(f"history of {room}: {error}") from None


class Reader:
    def __init__(self, chat: Chat, name: str, history: History) -> None:
        self._chat = chat
        self._name = name
        self._history = history

    async def read(self, position: str) -> AsyncIterator[Step]:
        """What happens in the room after a position, oldest first; if it is empty, from now on.
        Raises what a `Room` raises, and `OSError`.
        """
        while True:
            room = self._chat.room(self._name, since=position or None, events=True)
            await room.joined()
            if not position:
                position = room.position or ""
                yield Step(None, position)
            while not isinstance(event := await _next(room, IDLE_SECONDS), Gap):
                position = room.position or position
                told = event if isinstance(event, Message | Edited | Deleted) else None
                yield Step(told, position)
            # The chat has also said what became of older messages, before the last ones.
            while isinstance(event := await _next(room, 0), Edited | Deleted):
                yield Step(event, position)
            # What else is buffered comes again.
            room.leave()
            async for step in self._catch_up(position):
                position = step.position
                yield step

    async def _catch_up(self, position: str) -> AsyncIterator[Step]:
        """Everything after a position that the chat has by now."""
        more = True
        while more:
            page = await self._history.after(self._name, position)
            if page is None:
                # Before anything is told: if the room may not be read, this raises, and the
                # position stays.
                await self._history.after(self._name, OLDEST)
                position = OLDEST
                yield Step(Missing(frozenset(Kind)), position)
                continue
            if not page.recovered:
                yield Step(Missing(frozenset(Kind)), position)
            for message in page.messages:
                yield Step(message, message.id)
            position, more = page.position, page.more
            yield Step(None, position)
        if self._chat.revisions:
            # The pages have the last texts. They do not tell what became of earlier messages
            # meanwhile.
            yield Step(Missing(frozenset({Kind.EDITED, Kind.DELETED})), position)


async def _next(room: Room, seconds: float) -> object:
    """The next event of a room, or None if there is none for so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await anext(room)
    return None
