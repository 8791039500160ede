"""A user's connection that reconnects after network failures, and the rooms that are read through
it.

Implements the client's duties in the protocol, so that a bot need not know them: after a lost
connection, reconnect when the server says (or later each time, with a random delay), join each room
from its last position, resend unacknowledged messages with their cids, and report where messages
may be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import math
import random
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, get_args, runtime_checkable
from urllib.parse import urlsplit, urlunsplit

import msgspec
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

from chat import protocol
from chat.client.room import Away, Back, Deleted, DisconnectedError, Edited, Feed, Link, Room
from chat.protocol import (
    EVERYWHERE,
    Accept,
    Access,
    Ack,
    Auth,
    Ban,
    Block,
    Bye,
    ClientFrame,
    CloseCode,
    Delete,
    Direct,
    DirectRoom,
    Edit,
    Error,
    ErrorCode,
    Hello,
    Invite,
    IsTyping,
    Joined,
    Leave,
    Limits,
    ListMembers,
    ListRooms,
    ListSanctions,
    Make,
    MemberList,
    Message,
    Mute,
    Page,
    Ping,
    Pong,
    Presence,
    PrivateFrame,
    Progress,
    Promote,
    RefusedError,
    Remove,
    Renewed,
    Report,
    Revoke,
    RoomList,
    SanctionList,
    Send,
    ServerFrame,
    Welcome,
)

log = logging.getLogger("chat.client")

# The shortest and the longest pause after a lost connection. The pause doubles with each attempt,
# and is then reduced by up to half at random.
RETRY_SECONDS = (0.5, 15.0)
# Limits of a pause that the server requests.
ASKED_SECONDS = (0.1, 300.0)
# A frame that was refused temporarily is sent again after a random time in this range.
AGAIN_SECONDS = (0.5, 2.5)
# See docs/protocol.md, "Timers". From the start of an attempt to `welcome`.
OPEN_SECONDS = 10.0
# If no frame arrives for this long, the client sends `ping`: after the shorter time if a frame
# other than `pong` arrived within `ACTIVE_SECONDS`. If nothing arrives after that, the connection
# is considered lost.
QUIET_SECONDS = (4.0, 15.0)
ACTIVE_SECONDS = 60.0
ANSWER_SECONDS = 6.0
# A client that only listens sends nothing. After 5 s without a packet, its kernel probes the other
# side 3 times, every 2 s. If another machine has taken over the address of a dead one, it resets
# the connection at once.
KEEPALIVE = (5, 2, 3)
# After a connection that lasted this long, the next pause is the shortest again.
STABLE_SECONDS = 30.0
# After `make` and `accept`, another replica may not know yet who is in the room. For so long, a
# refused join is repeated.
MEMBER_SECONDS = 10.0
# Maximum number of unacknowledged messages. Further ones wait before they are sent.
MOST_PENDING = 100
# A token is renewed after this share of its lifetime, and at most once in this many seconds.
RENEW_SHARE = 0.75
RENEW_SECONDS = 1.0
# Maximum size of a frame. A `joined` with 500 messages of maximum length has half of it.
MOST_BYTES = 16 << 20

# The server would close the next connection for the same reason: the client needs a fix.
_FATAL = {
    CloseCode.PROTOCOL_ERROR,
    CloseCode.NOT_TEXT,
    CloseCode.NOT_UTF8,
    CloseCode.TOO_BIG,
}
_FOR_NOW = {ErrorCode.UNAVAILABLE, ErrorCode.RATE_LIMITED, ErrorCode.NOT_JOINED}

# A new token is tried for so long: a chat looks for a provider's new keys every ten seconds.
NEW_SECONDS = 15.0

# Frames about a room that has to be joined; the server answers with an `ack` once what they say is
# kept.
InRoom = Send | Delete | Edit | Report | Mute | Ban | ListSanctions
# These are never sent twice, because somebody else may have done something since.
_ONCE = (Mute, Ban, *get_args(PrivateFrame))
Answer = Ack | SanctionList | MemberList | RoomList

# A function that returns a sufficiently fresh token on each call.
TokenSource = Callable[[], str | Awaitable[str]]


@runtime_checkable
class Renewable(Protocol):
    """A source of tokens that keeps one until it has to be renewed."""

    def __call__(self) -> Awaitable[str]: ...

    def refuse(self, token: str) -> bool:
        """The chat refuses this token: the next one must be new. Returns whether there can be
        one.
        """


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[ServerFrame] = msgspec.json.Decoder(ServerFrame)


class _Typed(msgspec.Struct):
    type: str


_type_decoder = msgspec.json.Decoder(_Typed)
_TYPES = {struct.__struct_config__.tag for struct in get_args(ServerFrame)}


@contextlib.asynccontextmanager
async def connect(
    url: str,
    user: str = "",
    *,
    key: str | None = None,
    token: str | TokenSource | None = None,
    open_seconds: float = 10.0,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[Chat]:
    """Connect as `user` to the chat at `url`: ws://HOST/ws, or the page's http://HOST/.

    `key`: the secret that proves who owns the name, 16 to 64 of A-Z a-z 0-9 - _. Two clients with
    the same key are one person. Without a key, a random one is used, and the name is free as soon
    as this client has left. `token`: a token, if the chat requires one, or a function that returns
    one (or an awaitable). The function is called for each connection, and before a token expires.
    The token then determines who this client is; `user` and `key` are ignored. `open_seconds`: time
    limit for the first connection; later ones are retried forever. `headers` are sent with each
    handshake.

    Raises `RefusedError` if the name is refused, `DisconnectedError` if there is no connection in
    time, `ValueError` if the URL is invalid.
    """
    # A random key is not used again, so do not reserve the name for it.
    hello = Hello(user, key or uuid.uuid4().hex, hold=key is not None)
    chat = Chat(_websocket_url(url), hello, headers or {}, token)
    running = asyncio.create_task(chat._run(), name=f"chat client {user}")
    try:
        await chat._opened(open_seconds)
        yield chat
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()


def _websocket_url(url: str) -> str:
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is not a chat's address: give ws://HOST/ws or http://HOST/")
    path = parts.path if parts.path.strip("/") else "/ws"
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


class _Pending:
    """A frame of ours of which the server has not said yet that it is kept."""

    def __init__(self, frame: InRoom | PrivateFrame) -> None:
        self.frame = frame
        # The room that has to be joined first; None: no room has to.
        self.room = frame.room if isinstance(frame, InRoom) else None
        if self.room == EVERYWHERE:
            self.room = None
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        # Sent on the current connection.
        self.sent = False


class Chat:
    """A user's connection, created by `connect`."""

    def __init__(
        self,
        url: str,
        hello: Hello,
        headers: dict[str, str],
        token: str | TokenSource | None = None,
    ) -> None:
        self._url = url
        self._hello = hello
        self._headers = headers
        self._token = token
        # The last token of the source.
        self._given = ""
        # Since the server refused a token, until it accepts one: whether the source has been asked
        # for another, when it gave that, and whether that was refused, too, while it was new.
        self._replacing = False
        self._replaced_at: float | None = None
        self._new_refused = False
        # The timer until the token's renewal, and the renewal itself.
        self._renewal: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        # As spelled by the server, once connected.
        self.user = hello.user
        # Identifies the author of this client's messages (`Message.author`): one value per key,
        # whatever the name.
        self.author = ""
        # The replica that serves this client, or served it last.
        self.replica = ""
        # The server's limits, and whether it lets people delete and edit messages. Set when
        # `connect` returns.
        self.limits: Limits
        self.revisions = False
        self.connected = False
        self._rooms: dict[str, Feed] = {}
        # Private rooms that this client came into within the last `MEMBER_SECONDS`.
        self._new_member_of: set[str] = set()
        # Those who wait for direct rooms. None: there is a new connection, or no more.
        self._openings: set[asyncio.Queue[DirectRoom | None]] = set()
        self._pending: dict[str, _Pending] = {}
        self._places = asyncio.Semaphore(MOST_PENDING)
        self._outgoing: asyncio.Queue[ClientFrame] = asyncio.Queue()
        self._welcomed = asyncio.Event()
        self._attempts = 0
        # Time of `welcome` on this connection, by the loop's clock.
        self._welcomed_at = math.inf
        # Time of the last frame other than `pong`.
        self._heard_at = -math.inf
        # In seconds, from `bye`.
        self._asked_to_wait: float | None = None
        # Rooms with a temporarily refused frame that will be sent again. None stands for a frame
        # without a room.
        self._refused_for_now: set[str | None] = set()
        self._trouble = "no answer"
        self._failure: Exception | None = None
        self._ended = False

    def room(
        self, name: str, *, since: str | None = None, recent: bool = False, events: bool = False
    ) -> Room:
        """Return the room. It is joined as soon as there is a connection; iterate over it to get
        messages.

        By default, only messages from now on are returned. `since`: start after this position
        (`Room.position` or a message's id). `recent`: start with the latest messages. `events`:
        also return `Deleted`, `Edited`, `Presence`, `IsTyping`, `Away` and `Back`. These options
        only have an effect on the first call for a room.

        Raises `RefusedError` if the name is invalid or there are too many rooms.
        """
        if name not in self._rooms:
            protocol.check_room(name)
            if len(self._rooms) >= self.limits.rooms:
                raise RefusedError(
                    ErrorCode.TOO_MANY_ROOMS,
                    f"You are in {len(self._rooms)} rooms: leave one before you join another.",
                )
            link = Link(
                self._say,
                self._send_text,
                self._delete,
                self._edit,
                self._report,
                self._mute,
                self._ban,
                self._leave,
                self._check,
            )
            self._rooms[name] = Feed(link, name, since, recent=recent, events=events)
            self._rooms[name].join()
        return self._rooms[name]

    async def send(self, room: str, text: str, *, cid: str | None = None) -> str:
        """Send `text` to the room, joining it first if necessary. Returns the message's id once the
        log has it, even if that takes several connections. To wait for a shorter time, cancel the
        call or use `asyncio.timeout`. The message may be delivered nevertheless; sending it again
        with the same `cid` is idempotent.

        Messages keep their order if each call waits for the previous one. Concurrent calls may be
        reordered.

        Raises `RefusedError` if the server refuses the message (`cid_used`: this `cid` was used for
        another text; choose a new one), and `DisconnectedError`.
        """
        protocol.check_text(text, self.limits)
        sent = await self._ask(Send(room, text, protocol.check_cid(cid or _cid())))
        return _acknowledged(sent).id

    async def ban(self, author: str, seconds: int) -> None:
        """Ban somebody (`Message.author`) from the whole chat for so long; 0: lift that. `Room.ban`
        is for one room. It is not sent twice: somebody else may have decided otherwise since.

        Raises `RefusedError` (`not_moderator`, and as `Room.ban` does) and `DisconnectedError`.
        """
        await self._ban(EVERYWHERE, author, seconds)

    async def sanctions(self, room: str = EVERYWHERE) -> SanctionList:
        """Who is banned from the whole chat, or muted or banned in a room, which is joined first.
        Only moderators are told.

        Raises `RefusedError` (`not_moderator`) and `DisconnectedError`.
        """
        answer = await self._ask(ListSanctions(room, _cid()))
        assert isinstance(answer, SanctionList)
        return answer

    # Private rooms. None of this is sent twice: if the connection breaks, or Kafka does not answer,
    # it may count, or not, and `DisconnectedError` or `RefusedError` (`unavailable`) says so.

    async def make_room(self) -> str:
        """Make a private room, as its owner. Returns its name. Nobody else can use it until you
        invite them.

        Raises `RefusedError` (`bad_frame`: the site has not switched private rooms on;
        `too_many_rooms`, `full`, `rate_limited`) and `DisconnectedError`, as all that follows does.
        """
        return self._come_into(await self._ask(Make(_cid())))

    async def direct(self, author: str) -> str:
        """Open the direct room with another person (`Message.author`), unless it is open. Returns
        its name. Both may join it, and nobody else.

        Raises `RefusedError` (`bad_author`: the person is not available, or you).
        """
        return self._come_into(await self._ask(Direct(author, _cid())))

    async def block(self, author: str) -> None:
        """Let another person open no direct room with you, and write in none. You cannot, either.
        Nothing tells them why. `private_rooms` has all whom you block (`blocked`).
        """
        await self._ask(Block(author, blocked=True, cid=_cid()))

    async def unblock(self, author: str) -> None:
        """End that."""
        await self._ask(Block(author, blocked=False, cid=_cid()))

    async def direct_rooms(self) -> AsyncIterator[DirectRoom]:
        """The direct rooms that this client has not joined yet (`room`), and with whom (`author`,
        and `user`: their name, if it is known): those that there are, then each one as soon as it
        is opened.
        """
        opened: asyncio.Queue[DirectRoom | None] = asyncio.Queue()
        opened.put_nowait(None)
        self._openings.add(opened)
        try:
            while True:
                one = await opened.get()
                for found in await self._open_now() if one is None else [one]:
                    if found.room not in self._rooms:
                        yield found
        finally:
            self._openings.discard(opened)

    async def _open_now(self) -> list[DirectRoom]:
        try:
            answer = await self.private_rooms()
        except DisconnectedError:
            self._check()
            # The next connection is asked again.
            return []
        return [
            DirectRoom(room, author, answer.names.get(author, ""))
            for room, author in answer.direct.items()
        ]

    async def invite(self, room: str, seconds: int, *, uses: int = 1) -> Ack:
        """As an owner, make an invitation for so many people, which ends after so many seconds.
        Give its `token` to them, and keep its `id` to revoke it.
        """
        return _acknowledged(await self._ask(Invite(room, seconds, uses, _cid())))

    async def accept(self, token: str) -> str:
        """Use an invitation. Returns the name of the room, which you may join now.

        Raises `RefusedError` (`no_invitation`: it is none, or used up, over or revoked).
        """
        return self._come_into(await self._ask(Accept(token, _cid())))

    async def revoke(self, room: str, invitation: str) -> None:
        """As an owner, end an invitation by its id."""
        await self._ask(Revoke(room, invitation, _cid()))

    async def remove(self, room: str, author: str) -> None:
        """As an owner, remove a member (`Message.author`), and end all invitations; or leave the
        room for good, with your own `author`.
        """
        await self._ask(Remove(room, author, _cid()))

    async def promote(self, room: str, author: str) -> None:
        """As an owner, make a member an owner, too."""
        await self._ask(Promote(room, author, _cid()))

    async def members(self, room: str) -> MemberList:
        """The authors of who may use a private room of yours, with the names under which they came
        (`names`), and if you are an owner, its invitations.
        """
        answer = await self._ask(ListMembers(room, _cid()))
        assert isinstance(answer, MemberList)
        return answer

    async def private_rooms(self) -> RoomList:
        """The private rooms that you are a member of."""
        answer = await self._ask(ListRooms(_cid()))
        assert isinstance(answer, RoomList)
        return answer

    def _tell_openings(self, one: DirectRoom | None) -> None:
        for opened in self._openings:
            opened.put_nowait(one)

    def _come_into(self, answer: Answer) -> str:
        room = _acknowledged(answer).id
        self._new_member_of.add(room)
        _later(functools.partial(self._new_member_of.discard, room), MEMBER_SECONDS)
        return room

    async def _delete(self, room: str, identity: str) -> None:
        await self._ask(Delete(room, identity, _cid()))

    async def _edit(self, room: str, identity: str, text: str) -> None:
        protocol.check_text(text, self.limits)
        await self._ask(Edit(room, identity, text, _cid()))

    async def _report(self, room: str, identity: str, reason: str) -> None:
        protocol.check_text(reason, self.limits)
        await self._ask(Report(room, identity, reason, _cid()))

    async def _mute(self, room: str, author: str, seconds: int) -> None:
        await self._ask(Mute(room, author, seconds, _cid()))

    async def _ban(self, room: str, author: str, seconds: int) -> None:
        await self._ask(Ban(room, author, seconds, _cid()))

    async def _ask(self, frame: InRoom | PrivateFrame) -> Answer:
        """Send it as soon as that can be, and return the answer to it."""
        async with self._places:
            self._check()
            if frame.cid in self._pending:
                raise ValueError(f"cid {frame.cid!r} is being sent already: give another")
            pending = self._pending[frame.cid] = _Pending(frame)
            try:
                if pending.room is not None:
                    self.room(pending.room)
                if self._can_send(pending):
                    self._send(pending)
                return await pending.answer
            finally:
                del self._pending[frame.cid]

    # The connection.

    async def _opened(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._welcomed.wait()
        except TimeoutError:
            raise DisconnectedError(f"{self._url}: {self._trouble}") from None
        self._check()

    async def _run(self) -> None:
        try:
            while True:
                self._welcomed_at = math.inf
                retry_after = await self._converse()
                if asyncio.get_running_loop().time() - self._welcomed_at >= STABLE_SECONDS:
                    self._attempts = 0
                self._attempts += 1
                most = min(RETRY_SECONDS[1], RETRY_SECONDS[0] * 2 ** min(self._attempts - 1, 10))
                delay = random.uniform(most / 2, most)
                if retry_after is not None:
                    delay = min(max(retry_after, ASKED_SECONDS[0]), ASKED_SECONDS[1])
                log.info("%s: %s; again in %.1f s", self._url, self._trouble, delay)
                for room in self._rooms.values():
                    room.tell(Away(self._trouble, delay))
                await asyncio.sleep(delay)
        except (RefusedError, DisconnectedError) as failure:
            self._failure = failure
        finally:
            self._ended = True
            self._welcomed.set()
            for room in self._rooms.values():
                room.end(self._failure)
            self._tell_openings(None)
            for cid in self._pending:
                self._answer(cid, self._reason())

    def _check(self) -> None:
        if self._ended:
            raise self._reason()

    def _reason(self) -> Exception:
        return self._failure or DisconnectedError("The connection was closed.")

    async def _converse(self) -> float | None:
        """Run one connection until it ends. Returns how many seconds the server asked to wait, if
        it did.
        """
        try:
            async with open_websocket(
                self._url,
                additional_headers=self._headers | await self._authorization(),
                compression=None,
                max_size=MOST_BYTES,
                open_timeout=OPEN_SECONDS,
                # The protocol has its own `ping`.
                ping_interval=None,
                close_timeout=1,
            ) as connection:
                _keep_alive(connection)
                await self._talk(connection)
        except websockets.InvalidStatus as refused:
            response = refused.response
            self._trouble = f"the server answers {response.status_code} {response.reason_phrase}"
            # A proxy that has just started may not know its routes yet, and the chat may not know
            # the new key that signed a token yet.
            passing = (401, 404) if callable(self._token) else (404,)
            back_soon = response.status_code in passing and self._welcomed.is_set()
            if response.status_code == 401 and isinstance(self._token, Renewable):
                self._replace_token(self._token)
                back_soon = True
            if response.status_code < 500 and response.status_code != 429 and not back_soon:
                raise DisconnectedError(f"{self._url}: {self._trouble}") from None
            asked = response.headers.get("Retry-After", "")
            return float(asked) * random.uniform(1, 2) if asked.isdecimal() else None
        except websockets.ConnectionClosed as closed:
            return self._closed(closed)
        except (OSError, TimeoutError, websockets.InvalidHandshake) as error:
            self._trouble = str(error) or "no answer"
        return None

    def _closed(self, closed: websockets.ConnectionClosed) -> float | None:
        if closed.rcvd is None:
            self._trouble = "the connection broke"
            if closed.sent is not None and closed.sent.code == CloseCode.TOO_BIG:
                raise DisconnectedError(f"{self._url}: a frame has more than {MOST_BYTES} bytes")
            return self._asked_to_wait
        code, reason = closed.rcvd.code, closed.rcvd.reason
        self._trouble = f"closed by the server: {code} {reason}".rstrip()
        if code == CloseCode.TOKEN_ENDED and callable(self._token):
            if isinstance(self._token, Renewable):
                self._replace_token(self._token)
            return 0.0
        if code in _FATAL or 4000 <= code < 5000:
            raise DisconnectedError(f"{self._url}: {self._trouble}")
        asked = re.search(r"retry_after=(\d+(?:\.\d+)?)", reason)
        return float(asked[1]) if asked else self._asked_to_wait

    async def _talk(self, connection: ClientConnection) -> None:
        """Raises `websockets.ConnectionClosed` when the connection ends for any reason."""
        self._outgoing = asyncio.Queue()
        self._asked_to_wait = None
        # Reading must not wait for writing: the server may stop reading until its frames are read.
        writing = asyncio.create_task(self._write(connection))
        self._outgoing.put_nowait(self._hello)
        try:
            while True:
                self._hear(await self._receive(connection))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DisconnectedError(f"The server does not keep to the protocol: {error}") from None
        finally:
            self.connected = False
            for room in self._rooms.values():
                room.lose()
            for cid, pending in self._pending.items():
                if pending.sent and isinstance(pending.frame, _ONCE):
                    broke = DisconnectedError("the connection broke: it may count, or not")
                    self._answer(cid, broke)
                pending.sent = False
            self._renew_no_more()
            writing.cancel()
            await asyncio.wait([writing])

    async def _receive(self, connection: ClientConnection) -> bytes:
        """Raises `TimeoutError` if the server sends nothing for too long."""
        if self.connected:
            recent = asyncio.get_running_loop().time() - self._heard_at < ACTIVE_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SECONDS[0 if recent else 1]):
                    return await connection.recv(decode=False)
            self._say(Ping())
        async with asyncio.timeout(ANSWER_SECONDS if self.connected else OPEN_SECONDS):
            return await connection.recv(decode=False)

    async def _write(self, connection: ClientConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await connection.send(_encoder.encode(await self._outgoing.get()), text=True)

    def _say(self, frame: ClientFrame) -> None:
        if self.connected:
            self._outgoing.put_nowait(frame)

    async def _send_text(self, room: str, text: str, cid: str | None) -> str:
        return await self.send(room, text, cid=cid)

    def _leave(self, name: str) -> bool:
        if self._rooms.pop(name, None) is None:
            return False
        self._say(Leave(name))
        return True

    def _hear(self, data: bytes) -> None:
        frame = _decode(data)
        if not isinstance(frame, Pong):
            self._heard_at = asyncio.get_running_loop().time()
        match frame:
            case Message() as message:
                if room := self._rooms.get(message.room):
                    room.take(message)
            case protocol.Deleted(name, identity, position):
                if room := self._rooms.get(name):
                    room.revise(Deleted(name, identity), position)
            case protocol.Edited(name, identity, text, edited, position):
                if room := self._rooms.get(name):
                    room.revise(Edited(name, identity, text, edited), position)
            case Ack() | SanctionList() | MemberList() | RoomList() as answer:
                self._answer(answer.cid, answer)
            case DirectRoom() as opened:
                self._tell_openings(opened)
            case Progress(name, position):
                if room := self._rooms.get(name):
                    room.reach(position)
            case Bye() as bye:
                self._asked_to_wait = bye.retry_after
            case Presence() as presence:
                if room := self._rooms.get(presence.room):
                    room.see(presence)
            case IsTyping() as typing:
                if room := self._rooms.get(typing.room):
                    room.tell(typing)
            case Page() as page:
                if room := self._rooms.get(page.room):
                    room.answer_earlier(page)
            case Joined() as joined:
                if room := self._rooms.get(joined.room):
                    room.enter(joined)
                    for pending in self._pending.values():
                        if pending.room == room.name:
                            self._send(pending)
            case Access(name, read_only):
                if room := self._rooms.get(name):
                    room.read_only = read_only
            case Error() as error:
                self._refused(error)
            case Welcome() as welcome:
                self._welcome(welcome)
                self._token_counts()
                self._renew_later(welcome.until)
            case Renewed(until):
                self._token_counts()
                self._renew_later(until)

    def _welcome(self, welcome: Welcome) -> None:
        if welcome.protocol != protocol.VERSION:
            raise DisconnectedError(
                f"{self._url} speaks protocol {welcome.protocol}, and this client"
                f" {protocol.VERSION}: take the client that belongs to the server"
            )
        self.user, self.author = welcome.user, welcome.author
        self.replica, self.limits = welcome.replica, welcome.limits
        self.revisions = welcome.revisions
        self._welcomed_at = asyncio.get_running_loop().time()
        self.connected = True
        self._welcomed.set()
        for room in self._rooms.values():
            room.tell(Back(welcome.replica))
            room.join()
        for pending in self._pending.values():
            if self._can_send(pending):
                self._send(pending)
        self._tell_openings(None)

    # The token.

    async def _authorization(self) -> dict[str, str]:
        if self._token is None:
            return {}
        return {"Authorization": f"Bearer {await self._fresh_token()}"}

    async def _fresh_token(self) -> str:
        if not callable(self._token):
            return self._token or ""
        token = self._token()
        self._given = await token if inspect.isawaitable(token) else token
        if self._replacing:
            self._replacing, self._replaced_at = False, asyncio.get_running_loop().time()
        return self._given

    def _token_counts(self) -> None:
        self._replacing = self._new_refused = False
        self._replaced_at = None

    def _replace_token(self, source: Renewable) -> None:
        """The server refuses the token: take another for the next try. A new one is tried for
        `NEW_SECONDS`. Raises `DisconnectedError` if it was refused for so long, or if there is
        none.
        """
        now = asyncio.get_running_loop().time()
        if self._replaced_at is not None and now - self._replaced_at < NEW_SECONDS:
            self._new_refused = True
            return
        if self._new_refused:
            raise DisconnectedError(f"{self._url}: {self._trouble}, also with a new token")
        if not source.refuse(self._given):
            raise DisconnectedError(f"{self._url}: {self._trouble}")
        self._replacing = True

    def _renew_later(self, until: int) -> None:
        """Renew the token before `until`, its expiry according to the server, in milliseconds; 0:
        never.
        """
        self._renew_no_more()
        if until and callable(self._token):
            delay = max(RENEW_SECONDS, RENEW_SHARE * (until / 1000 - time.time()))
            loop = asyncio.get_running_loop()
            self._renewal = loop.call_later(delay, self._renew, until)

    def _renew_no_more(self) -> None:
        for waiting in (self._renewal, self._renewing):
            if waiting is not None:
                waiting.cancel()
        self._renewal = self._renewing = None

    def _renew(self, until: int) -> None:
        async def renew() -> None:
            try:
                self._say(Auth(await self._fresh_token()))
            except (OSError, DisconnectedError) as error:
                log.warning("cannot get a new token: %s", error)
            # If the server does not answer `renewed`, try again before the old token expires.
            self._renewing = None
            self._renew_later(until)

        self._renewing = asyncio.create_task(renew())

    def _can_send(self, pending: _Pending) -> bool:
        if pending.room is None:
            return self.connected
        return pending.room in self._rooms and self._rooms[pending.room].is_in

    def _send(self, pending: _Pending) -> None:
        if not pending.sent:
            pending.sent = True
            self._say(pending.frame)

    def _answer(self, cid: str, answer: Answer | Exception) -> None:
        pending = self._pending.get(cid)
        if pending is None or pending.answer.done():
            return
        if isinstance(answer, Exception):
            pending.answer.set_exception(answer)
        else:
            pending.answer.set_result(answer)

    def _refused(self, error: Error) -> None:
        refused = RefusedError(error.code, error.message)
        room = self._rooms.get(error.room or "")
        if not self.connected and error.code not in _FOR_NOW:
            raise refused
        pending = self._pending.get(error.cid or "")
        if pending is not None and isinstance(pending.frame, _ONCE):
            self._answer(pending.frame.cid, refused)
        elif error.code in _FOR_NOW:
            if error.cid is None:
                self._ask_again_later(error.room)
            else:
                _later(functools.partial(self._send_again, error.cid), error.retry_after)
        elif error.cid is not None:
            self._answer(error.cid, refused)
        elif (
            error.code is ErrorCode.BAD_ROOM
            and room is not None
            and not room.is_in
            and room.name in self._new_member_of
        ):
            self._ask_again_later(room.name)
        elif room is not None and room.refuse_earlier(refused):
            pass
        elif room is not None:
            # The room could not be joined, or somebody else owns the name there.
            del self._rooms[room.name]
            room.end(refused)
            for cid, waiting in self._pending.items():
                if waiting.room == room.name:
                    self._answer(cid, refused)
        elif error.code == ErrorCode.BAD_TOKEN and isinstance(self._token, Renewable):
            log.warning("the server refused a token: %s", error.message)
            # The connection goes on for as long as the token before it counts.
            with contextlib.suppress(DisconnectedError):
                self._replace_token(self._token)
        elif error.code != ErrorCode.BAD_FRAME:
            # A server of an earlier release does not know `ping` and answers with this error.
            log.warning("the server refused a frame: %s", error.message)

    def _ask_again_later(self, name: str | None) -> None:
        """Repeat the request once, even if it is refused several times meanwhile."""
        if name not in self._refused_for_now:
            self._refused_for_now.add(name)
            _later(functools.partial(self._ask_again, name))

    def _ask_again(self, name: str | None) -> None:
        """`name`: the room of the refused frame; None for `hello` or another frame without a
        room.
        """
        self._refused_for_now.discard(name)
        if not self.connected:
            self._outgoing.put_nowait(self._hello)
        elif room := self._rooms.get(name or ""):
            room.ask_again()

    def _send_again(self, cid: str) -> None:
        pending = self._pending.get(cid)
        if pending is None:
            return
        room = self._rooms.get(pending.room or "")
        if room is None:
            self._answer(cid, RefusedError(ErrorCode.NOT_JOINED, "You left the room."))
        elif room.is_in:
            pending.sent = False
            self._send(pending)


def _acknowledged(answer: Answer) -> Ack:
    assert isinstance(answer, Ack)
    return answer


def _cid() -> str:
    return uuid.uuid4().hex


def _decode(data: bytes) -> ServerFrame | None:
    """Decode a server frame; None if this client does not know its type yet."""
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError:
        if _type_decoder.decode(data).type not in _TYPES:
            return None
        raise


def _keep_alive(connection: ClientConnection) -> None:
    """Let the kernel check whether the other side is alive, if it supports that: see
    `KEEPALIVE`.
    """
    connected: socket.socket = connection.transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    for name, value in zip(names, KEEPALIVE, strict=True):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _later(act: Callable[[], None], seconds: float = 0) -> None:
    """In so many seconds; 0: it is not known when."""
    asyncio.get_running_loop().call_later(seconds or random.uniform(*AGAIN_SECONDS), act)
