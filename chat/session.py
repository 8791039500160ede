"""A session: one connected client as the server sees it. Who it is, which rooms it is in, what it
may do, and what waits to be sent to it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msgspec import UNSET, Raw

from chat import protocol, rights
from chat.audit import Audit
from chat.auth.identity import BannedError, Identity, TokenError, UnverifiableError
from chat.auth.leases import SIGNED_OUT, Leases, OtherPersonError
from chat.hub import Hub
from chat.limits import TokenBucket
from chat.members import Members
from chat.metrics import Metrics
from chat.protocol import (
    EVERYWHERE,
    Access,
    Ack,
    CloseCode,
    DirectRoom,
    Error,
    ErrorCode,
    Left,
    Limits,
    MemberList,
    Page,
    Progress,
    RefusedError,
    RoomList,
    Welcome,
)
from chat.room import Person, frame_of
from chat.sanctions import Sanctions, What
from chat.websocket.connection import Connection

log = logging.getLogger("chat.session")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Replica:
    """What all sessions of a replica have in common. `on_gone` is told each that has ended."""

    name: str
    hub: Hub
    metrics: Metrics
    limits: Limits
    leases: Leases | None
    sanctions: Sanctions | None
    members: Members | None
    audit: Audit | None
    on_gone: Callable[[Session], None]


class Session:
    """A connection that speaks the protocol. Its rooms know it as a `Member`."""

    __slots__ = (
        "_bucket",
        "_closed",
        "_identity",
        "_person",
        "_positions",
        "_replica",
        "_rooms",
        "_shared",
        "address",
        "connection",
        "issued",
        "number",
        "rights",
        "session",
        "until",
    )

    # A connection is limited as such.
    waiting_bytes = 0

    def __init__(
        self,
        connection: Connection,
        replica: Replica,
        *,
        address: str,
        shared: TokenBucket | None,
        identity: Identity | None,
    ) -> None:
        # Identifies the client in the log, which must not contain names.
        self.number = next(_numbers)
        self.connection = connection
        self.address = address
        self._replica = replica
        self._person: Person | None = None
        # From its token, until it says hello; from then on, when the token ends, when it was
        # issued, and in which session.
        self._identity = identity
        self.until = 0.0
        self.issued = 0
        self.session = ""
        self.rights = identity.rights if identity else rights.ALL
        # Its rooms: a few, which take less memory in a tuple than in a dict. And the position of
        # each when it was last found to read slowly, if it was.
        self._rooms: tuple[str, ...] = ()
        self._positions: dict[str, str] | None = None
        self._closed = False
        self._bucket = TokenBucket(replica.limits.rate, replica.limits.burst)
        # Shared by all clients of its address.
        self._shared = shared

    def receive(self, text: str) -> Awaitable[None] | None:
        """Act on a frame. The next one must wait for what is returned, if anything."""
        if self._closed:
            return None
        try:
            if not self._bucket.take():
                raise RefusedError(
                    ErrorCode.RATE_LIMITED,
                    f"Too fast: send at most {self._replica.limits.rate} frames per second.",
                )
            if self._shared is not None and not self._shared.take():
                raise RefusedError(
                    ErrorCode.RATE_LIMITED, "Too fast: many frames come from your address."
                )
            match protocol.decode(text):
                case protocol.Send() as send:
                    self._send(send)
                case protocol.Hello() as hello:
                    self._hello(hello)
                case protocol.Join() as join:
                    return self._join(join, text)
                case protocol.Delete() as delete:
                    return self._revise(delete, text)
                case protocol.Edit() as edit:
                    return self._revise(edit, text)
                case protocol.Report() as report:
                    return self._report(report, text)
                case protocol.Mute() as mute:
                    return self._sanction(mute, "mute", text)
                case protocol.Ban() as ban:
                    return self._sanction(ban, "ban", text)
                case protocol.ListSanctions() as asked:
                    self._list_sanctions(asked)
                case (
                    protocol.Make()
                    | protocol.Direct()
                    | protocol.Block()
                    | protocol.Invite()
                    | protocol.Accept()
                    | protocol.Revoke()
                    | protocol.Remove()
                    | protocol.Promote()
                    | protocol.ListMembers()
                    | protocol.ListRooms()
                ) as private:
                    return self._change_private(private, text)
                case protocol.Leave() as leave:
                    self._leave(leave)
                case protocol.Typing() as typing:
                    self._typing(typing)
                case protocol.History() as history:
                    return self._history(history, text)
                case protocol.Auth() as auth:
                    return self._renew(auth, text)
                case protocol.Ping():
                    self._require_user()
                    self._say(protocol.Pong())
        except RefusedError as refused:
            self._refuse(refused, text)
        return None

    @property
    def person(self) -> Person:
        assert self._person is not None, "nobody joins a room without a name"
        return self._person

    def put_out(self, room: str, why: RefusedError, until: int = 0) -> None:
        """`until`: when a ban ends, in milliseconds since the epoch."""
        self._forget(room)
        self._replica.metrics.refusals.labels(why.code).inc()
        self._say(Error(why.code, why.message, room=room, until=until))
        self._say(Left(room))

    def extend(self, identity: Identity) -> None:
        """Go on with this token: what its person may not do any more ends now."""
        self._take(identity)
        before, self.rights = self.rights, identity.rights
        for room in self._rooms:
            could = before.may_write(room), before.may_moderate(room)
            if self._access(room) != could or not self.rights.may_read(room):
                self.review(room)

    def review(self, room: str) -> None:
        until = self.rights.sanctioned_until(room)
        if not self.rights.may_read(room):
            self._replica.hub.leave(self, room)
            self.put_out(room, protocol.no_room(), until)
            return
        may_write, may_moderate = self._access(room)
        self._say(
            Access(
                room,
                read_only=not may_write,
                moderator=may_moderate or UNSET,
                until=until or UNSET,
            )
        )

    def opened(self, room: str, author: str, name: str) -> None:
        """The direct room with another person is open."""
        if not self._closed:
            self._say(DirectRoom(room, author, name))

    def _take(self, identity: Identity) -> None:
        self.until, self.issued, self.session = identity.until, identity.issued, identity.session

    def revoke(self, reason: str) -> None:
        self.close(CloseCode.REVOKED, reason)

    def close(self, code: CloseCode, reason: str) -> None:
        """Say goodbye: what waits is still sent, then the code and the reason."""
        self._close(code, reason)

    def send_away(self, reason: str, retry_after: float) -> None:
        """Ask the client to come back after so many seconds: this replica goes."""
        bye = protocol.Bye(reason, round(retry_after, 2))
        self._close(
            CloseCode.RESTART,
            f"{reason}; retry_after={retry_after:.2f}",
            frame_of(bye),
        )

    def _close(self, code: CloseCode, reason: str, last: bytes = b"") -> None:
        if self._closed:
            return
        self._leave_all()
        self._replica.metrics.closes.labels(int(code)).inc()
        log.debug("closed: %d %s", code, reason, extra={"client": self.number})
        self.connection.close(code, reason, last)

    # What the connection tells.

    def silent(self) -> None:
        self.close(CloseCode.POLICY, "say hello in time")

    def slow(self) -> None:
        self._positions = self._replica.hub.positions(self._rooms)

    def overflow(self) -> None:
        # What waits is dropped, so all that the client gets is what was sent before. A room whose
        # `joined` waits has no position yet.
        positions = [
            frame_of(Progress(room, position)) for room, position in (self._positions or {}).items()
        ]
        self._close(
            CloseCode.TRY_LATER,
            "too slow: join again with the last position",
            b"".join(positions),
        )

    def beat(self) -> None:
        if self._replica.leases is not None and self._replica.leases.has_ended(self):
            self.close(CloseCode.TOKEN_ENDED, "your token has ended: connect again with a new one")

    def gone(self) -> None:
        log.debug("gone", extra={"client": self.number})
        self._leave_all()
        if self._replica.members is not None and self._person is not None:
            self._replica.members.unwatch(self._person.author, self)
        self._replica.on_gone(self)

    def _leave_all(self) -> None:
        self._closed = True
        for room in self._rooms:
            self._replica.hub.leave(self, room)
        self._rooms = ()

    def _hello(self, hello: protocol.Hello) -> None:
        if self._person is not None:
            raise RefusedError(ErrorCode.BAD_FRAME, "Hello was said already.")
        identity, self._identity = self._identity, None
        if (
            identity is not None
            and self._replica.leases is not None
            and self._replica.leases.is_revoked(identity)
        ):
            self.revoke(SIGNED_OUT)
            return
        if banned_until := self.rights.banned_until():
            self.revoke(str(BannedError(banned_until)))
            return
        person = identity.person if identity else self._introduced(hello)
        self._person = person
        self.connection.accept()
        welcome = Welcome(
            protocol.VERSION, person.user, self._replica.name, self._replica.limits, person.author
        )
        if identity is not None and self._replica.leases is not None:
            self._take(identity)
            welcome.until = identity.until_ms
            welcome.connection = self._replica.leases.id_of(self)
        welcome.revisions = self._replica.hub.revisions
        welcome.sanctions = self._replica.sanctions is not None
        welcome.moderator = self._replica.sanctions is not None and self.rights.may_ban()
        if self._replica.audit is not None:
            welcome.reports = True
            welcome.audit = (
                self._replica.audit.room if self.rights.may_read(self._replica.audit.room) else ""
            )
        if self._replica.members is not None:
            welcome.private = True
            self._replica.members.watch(person.author, self)
        self._say(welcome)

    @staticmethod
    def _introduced(hello: protocol.Hello) -> Person:
        """Who somebody is that no token tells of."""
        user = protocol.check_user(hello.user)
        if hello.key is None:
            return Person.without_key(user)
        return Person.of(user, hello.key, hold=hello.hold)

    async def _join(self, join: protocol.Join, text: str) -> None:
        try:
            self._require_user()
            room = self.rights.check_read(join.room)
            if room not in self._rooms and len(self._rooms) >= self._replica.limits.rooms:
                raise RefusedError(
                    ErrorCode.TOO_MANY_ROOMS,
                    f"You are in {len(self._rooms)} rooms: leave one before you join another.",
                )
            room = await self._replica.hub.join(self, room, join.since)
        except RefusedError as refused:
            self._refuse(refused, text)
            return
        if self._closed:
            # The client disconnected meanwhile, and has left its other rooms.
            self._replica.hub.leave(self, room)
            return
        if room not in self._rooms:
            self._rooms = (*self._rooms, room)
        log.debug("joined", extra={"client": self.number, "room": room})

    def _leave(self, leave: protocol.Leave) -> None:
        self._require_user()
        room = self._require_joined(leave.room)
        self._forget(room)
        self._replica.hub.leave(self, room)
        self._say(Left(room))

    def _forget(self, room: str) -> None:
        self._rooms = tuple(one for one in self._rooms if one != room)
        if self._positions is not None:
            self._positions.pop(room, None)

    def _send(self, send: protocol.Send) -> None:
        self._require_user()
        room = self._require_joined(send.room)
        cid = protocol.check_cid(send.cid)
        text = protocol.check_text(send.text, self._replica.limits)
        self._replica.hub.send(self, room, text, cid)

    async def _revise(self, revision: protocol.Delete | protocol.Edit, text: str) -> None:
        try:
            self._require_user()
            if not self._replica.hub.revisions:
                raise RefusedError(
                    ErrorCode.BAD_FRAME, "Messages cannot be deleted or edited here."
                )
            room = self._require_joined(revision.room)
            cid = protocol.check_cid(revision.cid)
            said = ""
            if isinstance(revision, protocol.Edit):
                self.rights.check_write(room)
                said = protocol.check_text(revision.text, self._replica.limits)
            # What owners delete in private rooms is nobody's business outside.
            if self._replica.audit is None or rights.is_private(room):
                await self._replica.hub.revise(self, room, revision.id, said, cid)
            else:
                await self._replica.audit.revise(self, room, revision.id, said, cid)
        except RefusedError as refused:
            self._refuse(refused, text)

    async def _report(self, report: protocol.Report, text: str) -> None:
        try:
            self._require_user()
            if self._replica.audit is None:
                raise RefusedError(ErrorCode.BAD_FRAME, "Nobody reads reports here.")
            room = self._require_joined(report.room)
            cid = protocol.check_cid(report.cid)
            reason = protocol.check_text(report.reason, self._replica.limits)
            await self._replica.audit.report(self, room, report.id, reason, cid)
        except RefusedError as refused:
            self._refuse(refused, text)
        else:
            self._say(Ack(cid, report.id))

    async def _sanction(self, frame: protocol.Mute | protocol.Ban, what: What, text: str) -> None:
        try:
            self._require_user()
            sanctions = self._require_sanctions()
            room = frame.room
            if what == "mute":
                # Nobody can be muted everywhere.
                self._require_joined(room)
            self._require_moderator(room)
            cid = protocol.check_cid(frame.cid)
            author = self._check_other(frame.author)
            await sanctions.put(what, room, author, frame.seconds, self.person.author)
            if self._replica.audit is not None:
                self._replica.audit.sanctioned(what, room, author, frame.seconds, self.person)
        except RefusedError as refused:
            self._refuse(refused, text)
        else:
            self._say(Ack(cid, author))

    def _list_sanctions(self, asked: protocol.ListSanctions) -> None:
        self._require_user()
        sanctions = self._require_sanctions()
        self._require_moderator(asked.room)
        self._say(sanctions.listed(asked.room, protocol.check_cid(asked.cid)))

    def _require_sanctions(self) -> Sanctions:
        if self._replica.sanctions is None:
            raise RefusedError(ErrorCode.BAD_FRAME, "Nobody can be muted or banned here.")
        return self._replica.sanctions

    def _require_moderator(self, room: str) -> None:
        """Of a room that the client is in, or of the whole chat."""
        if room == EVERYWHERE:
            may = self.rights.may_ban()
        else:
            may = self.rights.may_moderate(self._require_joined(room))
        if not may:
            raise protocol.not_moderator(room)

    def _check_other(self, author: str) -> str:
        if protocol.check_author(author) == self.person.author:
            raise RefusedError(ErrorCode.BAD_AUTHOR, "This author is you: name another one.")
        return author

    async def _change_private(self, frame: protocol.PrivateFrame, text: str) -> None:
        try:
            self._require_user()
            if self._replica.members is None:
                raise RefusedError(ErrorCode.BAD_FRAME, "There are no private rooms here.")
            protocol.check_cid(frame.cid)
            answer = await self._changed(frame, self._replica.members)
        except RefusedError as refused:
            self._refuse(refused, text)
        else:
            self._say(answer)

    async def _changed(
        self, frame: protocol.PrivateFrame, members: Members
    ) -> Ack | MemberList | RoomList:
        """The answer, once this replica obeys. Raises `RefusedError`."""
        me, name = self.person.author, self.person.user
        match frame:
            case protocol.Make(cid):
                return Ack(cid, await members.make(me, name))
            case protocol.Direct(author, cid):
                return Ack(cid, await members.open(self._check_other(author), me, name))
            case protocol.Block(author, blocked, cid):
                await members.block(self._check_other(author), me, blocked=blocked)
                return Ack(cid, author)
            case protocol.Invite(room, seconds, uses, cid):
                invitation, token = await members.invite(room, me, seconds, uses)
                return Ack(cid, invitation, token)
            case protocol.Accept(token, cid):
                return Ack(cid, await members.accept(token, me, name))
            case protocol.Revoke(room, invitation, cid):
                await members.revoke(room, invitation, me)
                return Ack(cid, invitation)
            case protocol.Remove(room, author, cid):
                await members.remove(room, protocol.check_author(author), me)
                return Ack(cid, author)
            case protocol.Promote(room, author, cid):
                await members.promote(room, protocol.check_author(author), me)
                return Ack(cid, author)
            case protocol.ListMembers(room, cid):
                return members.show(room, me, cid)
            case protocol.ListRooms(cid):
                return members.listed(me, cid)

    def _access(self, room: str) -> tuple[bool, bool]:
        return self.rights.may_write(room), self.rights.may_moderate(room)

    def _typing(self, typing: protocol.Typing) -> None:
        self._require_user()
        room = self._require_joined(typing.room)
        # Nobody waits for an answer, so who may not write gets none.
        if self.rights.may_write(room):
            self._replica.hub.typing(self, room)

    async def _history(self, history: protocol.History, text: str) -> None:
        try:
            self._require_user()
            room = self._require_joined(history.room)
            page = await self._replica.hub.before(room, history.before, history.limit, self.address)
            # Another token may have come meanwhile, of somebody who may not read this any more.
            self._require_joined(room)
        except RefusedError as refused:
            self._refuse(refused, text)
            return
        messages = [Raw(message.payload) for message in page.messages]
        self._say(Page(room, history.before, str(page.position), page.more, messages))

    async def _renew(self, auth: protocol.Auth, text: str) -> None:
        try:
            self._require_user()
            if self._replica.leases is None:
                raise RefusedError(ErrorCode.BAD_FRAME, "This chat asks for no tokens.")
            identity = await self._replica.leases.renew(self, auth.token)
        except TokenError as error:
            refused = RefusedError(ErrorCode.BAD_TOKEN, f"The token does not count: {error}.")
            self._refuse(refused, text)
        except OtherPersonError:
            refused = RefusedError(ErrorCode.BAD_TOKEN, "The token is somebody else's.")
            self._refuse(refused, text)
        except UnverifiableError as error:
            refused = RefusedError(ErrorCode.UNAVAILABLE, f"Try again: {error}.")
            self._refuse(refused, text)
        except RefusedError as refused_now:
            self._refuse(refused_now, text)
        else:
            self._say(protocol.Renewed(identity.until_ms))

    def _require_user(self) -> None:
        if self._person is None:
            raise RefusedError(ErrorCode.HELLO_REQUIRED, "Say hello first.")

    def _require_joined(self, name: str) -> str:
        if name not in self._rooms:
            room = self.rights.check_read(name)
            raise RefusedError(ErrorCode.NOT_JOINED, f"You are not in {room}: join it first.")
        return name

    def _refuse(self, refused: RefusedError, text: str) -> None:
        self._replica.metrics.refusals.labels(refused.code).inc()
        subject = protocol.subject_of(text)
        log.debug("refused: %s", refused.code, extra={"client": self.number, "room": subject.room})
        self._say(
            Error(refused.code, refused.message, subject.cid, subject.room, refused.retry_after)
        )

    def _say(self, frame: protocol.ServerFrame) -> None:
        self.connection.push(frame_of(frame))
