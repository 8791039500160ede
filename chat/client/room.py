"""A room as seen by a client, and its interface to the connection.

`Room` is the public class. `Feed` is what the connection knows of a room, and `Link` what a room
knows of the connection.

All buffers are bounded. A room that is read too slowly does not delay others: messages that do not
fit into its buffer are dropped and fetched from the log again.
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

# Maximum number of messages per room that wait to be read.
BUFFERED = 1000
# Number of message ids remembered per room, to recognise repeats.
REMEMBERED = 2000

_message_decoder = msgspec.json.Decoder(Message)


class DisconnectedError(Exception):
    """There is no connection, and retrying is pointless. The text says why."""


class Gap(NamedTuple):
    """Messages may be missing here: the log no longer has the records after the previous
    message.
    """

    room: str


class Page(NamedTuple):
    """All messages of a room from `position` up to, not including, the requested position, oldest
    first. There may be `more` before `position`.
    """

    messages: list[Message]
    position: str
    more: bool


class Deleted(NamedTuple):
    """The message of this id was deleted: forget its text."""

    room: str
    id: str


class Edited(NamedTuple):
    """The message of this id has another text now, since `edited` (milliseconds since the
    epoch).
    """

    room: str
    id: str
    text: str
    edited: int


class Away(NamedTuple):
    """The connection is lost. The next attempt is in `retry_seconds`."""

    reason: str
    retry_seconds: float


class Back(NamedTuple):
    """The connection is (again) established, to this replica."""

    replica: str


Event: TypeAlias = Message | Gap | Deleted | Edited | Presence | IsTyping | Away | Back


class Link(NamedTuple):
    """What a room can ask of its connection."""

    # Send a frame; dropped while there is no connection.
    say: Callable[[ClientFrame], None]
    # Send a text: room, text, and optionally cid.
    send: Callable[[str, str, str | None], Awaitable[str]]
    # Delete a message: room, id.
    delete: Callable[[str, str], Awaitable[None]]
    # Replace the text of one: room, id, text.
    edit: Callable[[str, str, str], Awaitable[None]]
    # Report a message: room, id, reason.
    report: Callable[[str, str, str], Awaitable[None]]
    # Mute or ban somebody: room, author, seconds.
    mute: Callable[[str, str, int], Awaitable[None]]
    ban: Callable[[str, str, int], Awaitable[None]]
    # Leave a room by name; False if it was left already.
    leave: Callable[[str], bool]
    # Raise the error that ended the connection, if it has ended.
    check: Callable[[], None]


class Room(ABC):
    """A room as seen by this client. `async for` returns each message once, oldest first, and a
    `Gap` where some may be missing. `Chat.room` returns it.

    Only one loop may run at a time; a later loop continues where the previous one stopped. The loop
    ends when the room is left or the connection is closed, and raises the connection's error, if
    any.
    """

    name: str
    # Everything up to this position was returned by the loop. Another process can continue here,
    # with `since`.
    position: str | None
    # Number of people in the room, and their names unless there are too many to be listed.
    count: int
    users: frozenset[str]
    # Whether what is sent here would be refused.
    read_only: bool

    @abstractmethod
    async def joined(self) -> None:
        """Wait until the room is joined. From then on, no message is missed."""

    @abstractmethod
    async def send(self, text: str, *, cid: str | None = None) -> str:
        """See `Chat.send`."""

    @abstractmethod
    async def delete(self, identity: str) -> None:
        """Delete the message of this id: your own, or as a moderator anybody's. Returns once the
        log has the deletion. Repeating it is harmless.

        Raises `RefusedError` (`no_message`: there is none of yours; `bad_frame`: the site has not
        switched it on) and `DisconnectedError`.
        """

    @abstractmethod
    async def edit(self, identity: str, text: str) -> None:
        """Replace the text of your own message of this id. The last edit counts.

        Raises `RefusedError`, as `delete` and `send` do, and `DisconnectedError`.
        """

    @abstractmethod
    async def report(self, identity: str, reason: str) -> None:
        """Tell those who read the site's audit room of the message of this id, and why. They are
        told who you are.

        Raises `RefusedError` (`no_message`: there is none; `bad_frame`: the site has no such room)
        and `DisconnectedError`.
        """

    @abstractmethod
    async def mute(self, author: str, seconds: int) -> None:
        """As a moderator, let the person with this author (`Message.author`) read, but not write
        here for so long; 0: end what there was. Returns once a replica obeys; the others follow
        within a second, or when they reach Kafka again. It is never sent twice, because another
        moderator may have done something since.

        Raises `RefusedError` (`not_moderator`: you are none; `bad_author`: it is none, or you;
        `bad_frame`: the site has not switched it on, or it is for too long; `rate_limited`: too
        many; `unavailable`: it may count, or not) and `DisconnectedError` (the same).
        """

    @abstractmethod
    async def ban(self, author: str, seconds: int) -> None:
        """The same, but put them out of the room, and let them see nothing of it. Of the two, the
        last one counts.
        """

    @abstractmethod
    async def earlier(self, before: str, *, limit: int | None = None) -> Page:
        """Messages before `before` (a position or a message's id), read from the log: at most
        `limit`, and never more than the server returns at once.

        To continue, pass the `position` of the result. A page without messages may still have
        `more` before it.

        Raises `RefusedError` and `DisconnectedError`.
        """

    @abstractmethod
    def typing(self) -> None:
        """Tell the others that the user is typing. Repeat every few seconds while that is so."""

    @abstractmethod
    def leave(self) -> None:
        """Leave the room. Unread messages are dropped."""

    @abstractmethod
    def __aiter__(self) -> Room: ...

    @abstractmethod
    async def __anext__(self) -> Event: ...


class Feed(Room):
    """The connection's side of a room: buffers events until they are read, and knows what to
    request after a reconnection.
    """

    def __init__(
        self, link: Link, name: str, since: str | None, *, recent: bool, events: bool
    ) -> None:
        self._link = link
        self.name = name
        self.position = since
        self.count = 0
        self.users: frozenset[str] = frozenset()
        self.read_only = False
        self._recent = recent
        self._events = events
        # Everything up to this position was buffered.
        self._reached = since
        self._buffer: deque[tuple[Event, str | None]] = deque()
        self._ids: deque[str] = deque(maxlen=REMEMBERED)
        # Whether the server has confirmed the join; then everything it sends is buffered …
        self._in = False
        # … unless the buffer is full: then the rest is requested again once the buffer is empty.
        self._behind = False
        self._ended = False
        self._failure: Exception | None = None
        self._reading = False
        # Requests for messages before these positions.
        self._earlier: dict[str, tuple[History, asyncio.Future[Page]]] = {}
        self._entered = asyncio.Event()
        self._news = asyncio.Event()

    async def joined(self) -> None:
        await self._entered.wait()
        if self._ended:
            raise self._failure or DisconnectedError(f"Room {self.name} was left.")

    async def send(self, text: str, *, cid: str | None = None) -> str:
        return await self._link.send(self.name, text, cid)

    async def delete(self, identity: str) -> None:
        await self._link.delete(self.name, identity)

    async def edit(self, identity: str, text: str) -> None:
        await self._link.edit(self.name, identity, text)

    async def report(self, identity: str, reason: str) -> None:
        await self._link.report(self.name, identity, reason)

    async def mute(self, author: str, seconds: int) -> None:
        await self._link.mute(self.name, author, seconds)

    async def ban(self, author: str, seconds: int) -> None:
        await self._link.ban(self.name, author, seconds)

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

    # Called by the connection.

    @property
    def is_in(self) -> bool:
        """Whether the room is joined on the current connection."""
        return self._in

    def lose(self) -> None:
        """The connection is lost, so the room must be joined again."""
        self._in = False

    def join(self) -> None:
        self._link.say(Join(self.name, self._reached))

    def enter(self, joined: Joined) -> None:
        self._in = True
        self.read_only = joined.read_only
        self._entered.set()
        self._ask_for_earlier()
        self._behind = len(self._buffer) >= BUFFERED
        if self._behind:
            return
        began = self._reached is not None
        known: set[str] = set()
        if began and not joined.recovered:
            self._put(Gap(self.name), None)
            # After a gap, recent messages are sent again even if they were received before.
            known.update(self._ids)
        if began and self._events:
            for identity in joined.deleted or ():
                self._put(Deleted(self.name, identity), None)
            for message in map(_message_decoder.decode, joined.edited or ()):
                edited = message.edited or message.ts
                self._put(Edited(self.name, message.id, message.text, edited), None)
        if began or self._recent:
            for message in map(_message_decoder.decode, joined.messages):
                if message.id not in known:
                    self._keep(message)
        self.reach(joined.position)

    def ask_again(self) -> None:
        """Repeat a request that was refused temporarily."""
        if self._in:
            self._ask_for_earlier()
        else:
            self.join()

    def _ask_for_earlier(self) -> None:
        for frame, _ in self._earlier.values():
            self._link.say(frame)

    def answer_earlier(self, page: protocol.Page) -> None:
        # If the first answer was slow, the page may have been requested twice.
        if page.before in self._earlier:
            _, answer = self._earlier.pop(page.before)
            messages = [_message_decoder.decode(message) for message in page.messages]
            answer.set_result(Page(messages, page.position, page.more))

    def refuse_earlier(self, refused: RefusedError) -> bool:
        """Fail the oldest open request for earlier messages. Returns False if there is none, or if
        the refusal is about the room itself.
        """
        if refused.code is ErrorCode.NAME_TAKEN or not self._earlier:
            return False
        _, answer = self._earlier.pop(next(iter(self._earlier)))
        answer.set_exception(refused)
        return True

    def take(self, message: Message) -> None:
        if self._in and not self._behind:
            self._keep(message)
            self._behind = len(self._buffer) >= BUFFERED

    def revise(self, event: Deleted | Edited, position: str) -> None:
        if self._events and self._in and not self._behind:
            self._put(event, None)
        self.reach(position)
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
            # Avoid a warning if nobody waits any more.
            answer.exception()
        self._earlier.clear()
        self._entered.set()
        self._news.set()
