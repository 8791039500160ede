"""HTTP for programs that say something now and then: `POST /api/rooms/ROOM/messages`.

Only people whom a token tells may send so. A message has the rules and limits that it has over a
WebSocket, and its `cid` makes a retry harmless. Nothing of a body is read before it is known whose
it is, and whether they may send now.
"""

from __future__ import annotations

import sys
from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from tornado.httputil import HTTPServerRequest
from tornado.routing import PathMatches
from tornado.web import stream_request_body

from chat import protocol
from chat.api import RETRY_SECONDS, ApiHandler
from chat.auth.identity import Identity
from chat.drain import InFlight
from chat.hub import Hub
from chat.limits import Budgets, TokenBucket
from chat.listener import MOST_DISCARDED
from chat.protocol import ErrorCode, Limits, RefusedError
from chat.waiting import Waiting

# All others are 400.
STATUS = {
    ErrorCode.READ_ONLY: 403,
    ErrorCode.NAME_TAKEN: 409,
    ErrorCode.CID_USED: 409,
    ErrorCode.TOO_LONG: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.UNAVAILABLE: 503,
}


class Sending(msgspec.Struct):
    """The body of a request."""

    text: str
    cid: str


class Sent(msgspec.Struct):
    """The log has it, as the message of this id."""

    room: str
    id: str
    cid: str


_decoder = msgspec.json.Decoder(Sending)


class PostTo(PathMatches):
    """Requests with a body. Others to the same path belong to another handler: one that streams
    closes the connection when it refuses a request early.
    """

    def match(self, request: HTTPServerRequest) -> dict[str, object] | None:
        return super().match(request) if request.method == "POST" else None


@stream_request_body
class SendHandler(ApiHandler):
    """`people` says how many messages an author may send over HTTP, and `shared` what all clients
    of the request's address share, if anything. `in_flight` counts requests that have
    arrived and whose token counts.
    """

    def initialize(
        self,
        hub: Hub,
        limits: Limits,
        people: Budgets,
        address: Callable[[HTTPServerRequest], str],
        shared: Callable[[str], TokenBucket | None],
        in_flight: InFlight,
    ) -> None:
        self._hub = hub
        self._limits = limits
        self._people = people
        self._address = address
        self._shared = shared
        self._in_flight = in_flight
        self._body = bytearray()
        # Of what came so far. What is too much of it is not kept.
        self._size = 0
        self._whole = False

    def decode_argument(self, value: bytes, name: str | None = None) -> str:  # noqa: ARG002
        # A room of such a name is none, and is refused as such.
        return value.decode(errors="replace")

    def prepare(self) -> Awaitable[None] | None:
        waiting = super().prepare()
        if self._finished:
            return None
        if self.verifier is None:
            self.fail(403, "Sending is for sites with sign-in: nothing else says who you are.")
            return None
        # `data_received` sets the limit: Tornado's own refusal does not say what it is.
        self._connection.set_max_body_size(sys.maxsize)
        return waiting

    async def _require_identity(self) -> None:
        await super()._require_identity()
        if self.identity is None:
            return
        shared = self._shared(self._address(self.request))
        if not self._people.of(self.identity.person.author).take():
            self.come_again(429, f"Too fast: send at most {self._limits.rate} messages per second.")
        elif shared is not None and not shared.take():
            self.come_again(429, "Too fast: many messages come from your address.")

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self._limits.frame_bytes:
            self._body += chunk
        elif self._size > self._limits.frame_bytes + MOST_DISCARDED:
            self._refuse_size()

    async def post(self, room: str) -> None:
        """Send a message. Sent again with its `cid`, it is the same one."""
        self._whole = True
        if self._size > self._limits.frame_bytes:
            self._refuse_size()
            return
        with self._in_flight.one():
            await self._post(room)

    async def _post(self, room: str) -> None:
        # A body may come long after its head, and the token was revoked in between.
        refusal = await self.authenticate()
        if refusal is not None:
            self.fail(*refusal)
            return
        assert self.identity is not None, "others are refused"
        try:
            # What arrived is sent, also if its client has gone meanwhile. Nothing else of a request
            # is kept for one that has gone, however long the log takes.
            sender, cid = self._send(room, self.identity)
            sent = await self.for_client(sender.id)
        except RefusedError as refused:
            status = STATUS.get(refused.code, 400)
            if status in (429, 503):
                self.come_again(status, refused.message, refused.retry_after or RETRY_SECONDS)
            else:
                self.fail(status, refused.message)
        else:
            if sent is not None:
                self.answer(Sent(room, sent, cid))

    def finish(self, chunk: Any = None) -> Future[None]:
        if not self._whole:
            # Tornado closes it. Nobody should use it again.
            self._close_behind()
        return super().finish(chunk)

    def _refuse_size(self) -> None:
        self.fail(413, f"A request has at most CHAT_FRAME_BYTES={self._limits.frame_bytes} bytes.")

    def _send(self, room: str, identity: Identity) -> tuple[Waiting, str]:
        """Who waits for the message's id, and its cid."""
        # Before anything is looked up, as for history.
        identity.rights.check_read(room)
        try:
            body, self._body = self._body, bytearray()
            sending = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(
                ErrorCode.BAD_FRAME, f'Send {{"text": "...", "cid": "..."}} in JSON ({error}).'
            ) from None
        cid = protocol.check_cid(sending.cid)
        text = protocol.check_text(sending.text, self._limits)
        sender = Waiting(identity.person, identity.rights, self._address(self.request))
        self._hub.send(sender, room, text, cid)
        return sender, cid
