"""A room as a client reads it, and what its connection tells it.

`Room` is the public class. `Feed` is the connection's side of a room, and `Link` a room's side of
the connection: neither knows more of the other.

All buffers are bounded. A room that is read too slowly does not delay the others: messages that do
not fit into its buffer are dropped and fetched from the log again.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

import msgspec

from chat import protocol
from chat.protocol import (
    ClientFrame,
    ErrorCode,
    History,
    IsTyping,
    Join,
    Joined,
    Message,
    Presence,
    RefusedError,
    Typing,
)

# Messages of a room that may wait to be read.
BUFFERED = 1000
# Ids of a room's last messages, by which one that comes again is known.
REMEMBERED = 2000

_message_decoder = msgspec.json.Decoder(Message)


class DisconnectedError(Exception):
    """There is no connection, and trying again will not bring one; the text says why."""


class Gap(NamedTuple):
    """Messages of the room may be missing here: the log does not reach back to the previous one."""

    room: str


class Page(NamedTuple):
    """All that was said in a room from `position` on and before what was asked for, oldest first;
    there may be `more` before `position`.
    """

    messages: list[Message]
    position: str
    more: bool


class Away(NamedTuple):
    """The connection is lost; it is tried again in so many seconds."""

    reason: str
    retry_seconds: float


class Back(NamedTuple):
    """There is a connection (again), to this replica."""

    replica: str


Event: TypeAlias = Message | Gap | Presence | IsTyping | Away | Back


class Link(NamedTuple):
    """What a room asks of its connection."""

    # Nothing is said while there is no connection.
    say: Callable[[ClientFrame], None]
    # The room, the text, and the cid, if it is given.
    send: Callable[[str, str, str | None], Awaitable[str]]
    # The room of this name; False if it was left already.
    leave: Callable[[str], bool]
    # Raises what the connection has ended with, if it has.
    check: Callable[[], None]


class Room(ABC):
    """A room as this client reads it: `async for` gives its messages, oldest first, each once, and
    a `Gap` where some may be missing. Asked for by `Chat.room`.

    One loop at a time; a further one goes on where the last one stopped. The loop ends when the
    room is left or the connection is closed, and raises what the connection failed with.
    """

    name: str
    # What the loop has been given reaches up to here. With `since`, another process can go on.
    position: str | None
    # How many people are in the room, and who, unless there are too many to be named.
    count: int
    users: frozenset[str]

    @abstractmethod
    async def joined(self) -> None:
        """Wait until the room has been joined: from then on, nothing said there is missed."""

    @abstractmethod
    async def send(self, text: str, *, cid: str | None = None) -> str:
        """As `Chat.send`."""

    @abstractmethod
    async def earlier(self, before: str, *, limit: int | None = None) -> Page:
        """What was said before the position (or the message of the id) `before`, from the log
        itself: at most `limit` messages, and never more than the server gives at once.

        To go on, ask for what is before the `position` of the answer. An answer without messages
        may have `more` before it.

        Raises `RefusedError`, and `DisconnectedError`.
        """

    @abstractmethod
    def typing(self) -> None:
        """Tell the others that something is being written here; again every few seconds, while it
        is.
        """

    @abstractmethod
    def leave(self) -> None:
        """Be in the room no more. What has not been read is dropped."""

    @abstractmethod
    def __aiter__(self) -> Room: ...

    @abstractmethod
    async def __anext__(self) -> Event: ...


class Feed(Room):
    """A room with what its connection tells it: it keeps what is to be read, and knows what to ask
    for when there is a connection again.
    """

    def __init__(
        self, link: Link, name: str, since: str | None, *, recent: bool, events: bool
    ) -> None:
        self._link = link
        self.name = name
        self.position = since
        self.count = 0
        self.users: frozenset[str] = frozenset()
        self._recent = recent
        self._events = events
        # What has been buffered reaches up to here.
        self._reached = since
        self._buffer: deque[tuple[Event, str | None]] = deque()
        self._ids: deque[str] = deque(maxlen=REMEMBERED)
        # The server knows that we are in the room, and all that it says comes into the buffer …
        self._in = False
        # … unless that is full: then what is missing is asked for once it has been read.
        self._behind = False
        self._ended = False
        self._failure: Exception | None = None
        self._reading = False
        # What was said before these positions is asked for.
        self._earlier: dict[str, tuple[History, asyncio.Future[Page]]] = {}
        self._entered = asyncio.Event()
        self._news = asyncio.Event()

    async def joined(self) -> None:
        await self._entered.wait()
        if self._ended:
            raise self._failure or DisconnectedError(f"Room {self.name} was left.")

    async def send(self, text: str, *, cid: str | None = None) -> str:
        return await self._link.send(self.name, text, cid)

    async def earlier(self, before: str, *, limit: int | None = None) -> Page:
        self._link.check()
        if self._ended:
            raise self._failure or DisconnectedError(f"Room {self.name} was left.")
        asked = self._earlier.get(before)
        if asked is None:
            answer: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
            asked = self._earlier[before] = History(self.name, before, limit), answer
            if self._in:
                self._link.say(asked[0])
        return await asyncio.shield(asked[1])

    def typing(self) -> None:
        if self._in:
            self._link.say(Typing(self.name))

    def leave(self) -> None:
        if self._link.leave(self.name):
            self._buffer.clear()
            self.end(None)

    def __aiter__(self) -> Room:
        return self

    async def __anext__(self) -> Event:
        if self._reading:
            raise RuntimeError(f"Room {self.name} is read by another loop: use that one.")
        self._reading = True
        try:
            while not self._buffer:
                if self._ended:
                    raise self._failure or StopAsyncIteration
                if self._behind:
                    self._behind = self._in = False
                    self.join()
                self._news.clear()
                await self._news.wait()
        finally:
            self._reading = False
        event, position = self._buffer.popleft()
        self.position = position or self.position
        return event

    # What the connection tells.

    @property
    def is_in(self) -> bool:
        """Whether the server knows that we are in the room, on this connection."""
        return self._in

    def lose(self) -> None:
        """The connection is lost, and with it our place in the room."""
        self._in = False

    def join(self) -> None:
        self._link.say(Join(self.name, self._reached))

    def enter(self, joined: Joined) -> None:
        self._in = True
        self._entered.set()
        self._ask_for_earlier()
        self._behind = len(self._buffer) >= BUFFERED
        if self._behind:
            return
        began = self._reached is not None
        known: set[str] = set()
        if began and not joined.recovered:
            self._put(Gap(self.name), None)
            # After a gap, the last messages come whether or not they came before.
            known.update(self._ids)
        if began or self._recent:
            for message in map(_message_decoder.decode, joined.messages):
                if message.id not in known:
                    self._keep(message)
        self.reach(joined.position)

    def ask_again(self) -> None:
        """Ask once more for what was refused for now."""
        if self._in:
            self._ask_for_earlier()
        else:
            self.join()

    def _ask_for_earlier(self) -> None:
        for frame, _ in self._earlier.values():
            self._link.say(frame)

    def answer_earlier(self, page: protocol.Page) -> None:
        # It may have been asked for twice, for the first answer was long in coming.
        if page.before in self._earlier:
            _, answer = self._earlier.pop(page.before)
            messages = [_message_decoder.decode(message) for message in page.messages]
            answer.set_result(Page(messages, page.position, page.more))

    def refuse_earlier(self, refused: RefusedError) -> bool:
        """Whether it was the first thing asked for here that was refused."""
        if refused.code is ErrorCode.NAME_TAKEN or not self._earlier:
            return False
        _, answer = self._earlier.pop(next(iter(self._earlier)))
        answer.set_exception(refused)
        return True

    def take(self, message: Message) -> None:
        if self._in and not self._behind:
            self._keep(message)
            self._behind = len(self._buffer) >= BUFFERED

    def _keep(self, message: Message) -> None:
        self._reached = message.id
        self._ids.append(message.id)
        self._put(message, message.id)

    def reach(self, position: str) -> None:
        if not self._in or self._behind:
            return
        self._reached = position
        if self._buffer:
            self._buffer[-1] = (self._buffer[-1][0], position)
        else:
            self.position = position

    def see(self, presence: Presence) -> None:
        self.count = presence.count
        if presence.joined or presence.left:
            self.users = self.users - set(presence.left) | set(presence.joined)
        else:
            self.users = frozenset(presence.users)
        self.tell(presence)

    def tell(self, event: Presence | IsTyping | Away | Back) -> None:
        if self._events and len(self._buffer) < BUFFERED:
            self._put(event, None)

    def _put(self, event: Event, position: str | None) -> None:
        self._buffer.append((event, position))
        self._news.set()

    def end(self, failure: Exception | None) -> None:
        self._failure = failure
        self._ended = True
        for _, answer in self._earlier.values():
            answer.set_exception(failure or DisconnectedError(f"Room {self.name} was left."))
            # Nobody may be waiting any more.
            answer.exception()
        self._earlier.clear()
        self._entered.set()
        self._news.set()
