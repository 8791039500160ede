"""HTTP for bots and exports: what was said in a room, a page at a time.

It is the history that clients get over their WebSocket, for programs that do not want one. Pages of
other sites may ask for it where they may connect.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from tornado.httputil import HTTPServerRequest

from chat import rights
from chat.archive import Page
from chat.auth.bearer import BearerHandler
from chat.auth.leases import Leases, OtherPersonError
from chat.auth.revocations import Revocations
from chat.hub import Hub
from chat.limits import Budgets, Shares
from chat.protocol import ErrorCode, RefusedError
from chat.relay.base import UnavailableError

T = TypeVar("T")

# Where `after` begins when nothing is known yet.
OLDEST = "oldest"
RETRY_SECONDS = 1


class Answer(msgspec.Struct):
    """A page of history. The next one is before, or after, `position`."""

    room: str
    position: str
    more: bool
    recovered: bool
    messages: list[msgspec.Raw]


class Failure(msgspec.Struct):
    """Why there is no page."""

    error: str


class SignedIn(msgspec.Struct):
    """Who brought the token, and when it ends, in milliseconds since the epoch."""

    user: str
    author: str
    until: int


class ApiHandler(BearerHandler):
    """Answers in JSON, and those only who may have one: pages of sites that may use the chat, and
    people whom it knows, where it has to know them.
    """

    _work: asyncio.Future[Any] | None = None
    _gone = False

    def prepare(self) -> Awaitable[None] | None:
        super().prepare()
        if self._finished:
            return None
        # The rule that Tornado has for WebSockets.
        refusal = self._check_cross_origin(self.check_trusted_origin)
        if refusal is not None:
            self.fail(403, f"{refusal}: CHAT_ALLOWED_ORIGINS has those that are.")
            return None
        origin = self.request.headers.get("Origin")
        self.set_header("Vary", "Origin, Sec-Fetch-Site")
        if origin is not None:
            self.set_header("Access-Control-Allow-Origin", origin)
        return None if self.verifier is None else self._require_identity()

    async def for_client(self, work: Awaitable[T]) -> T | None:
        """Do work that ends with its client. None: the client has gone, and waits for no answer."""
        self._work = future = asyncio.ensure_future(work)
        if self._gone:
            future.cancel()
        try:
            return await future
        except asyncio.CancelledError:
            if not self._gone:
                raise
            return None

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._gone = True
        if self._work is not None:
            self._work.cancel()

    async def _require_identity(self) -> None:
        # It may wait for keys for seconds, and until then others of its address would cost nothing.
        self.charge()
        refusal = await self.authenticate()
        if refusal is not None:
            self.fail(*refusal)

    def come_again(self, status: int, why: str, seconds: int = RETRY_SECONDS) -> None:
        self.set_header("Retry-After", str(seconds))
        self.fail(status, why)

    def fail(self, status: int, why: str) -> None:
        self.set_status(status)
        self.answer(Failure(why))

    def answer(self, answer: msgspec.Struct) -> None:
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(msgspec.json.encode(answer))


class MessagesHandler(ApiHandler):
    """`address` tells whom a request is charged to, `budgets` how many may come from there, and
    `turns` how many are answered at once. An answer waits for nobody, and the work for it ends with
    its client.
    """

    def initialize(
        self,
        hub: Hub,
        turns: Shares,
        budgets: Budgets,
        address: Callable[[HTTPServerRequest], str],
    ) -> None:
        self._hub = hub
        self._turns = turns
        self._budgets = budgets
        self._address = address

    async def get(self, room: str) -> None:
        address = self._address(self.request)
        if not self._budgets.of(address).take():
            self.come_again(429, "Too many requests come from your address: ask more rarely.")
            return
        if self._turns.has_enough(address):
            self.come_again(429, "Your address reads too much at once: try again in a moment.")
            return
        if self._turns.exhausted:
            self.come_again(503, "Too many read at once: try again in a moment.")
            return
        self._turns.take(address)
        try:
            page = await self.for_client(self._find(room, address))
        except RefusedError as refused:
            if refused.code is ErrorCode.UNAVAILABLE:
                self.come_again(503, refused.message)
            else:
                self.fail(400, refused.message)
            return
        finally:
            self._turns.give_back(address)
        if page is None:
            return
        messages = [msgspec.Raw(message.payload) for message in page.messages]
        self.answer(Answer(room, str(page.position), page.more, page.whole, messages))

    async def _find(self, room: str, address: str) -> Page:
        # Before anything is looked up: the answer for a room that one may not read, and the time
        # that it takes, depend on nothing but its name.
        its = self.identity.rights if self.identity else rights.ALL
        its.check_read(room)
        page = await self._look_up(room, address)
        # It may have waited for seconds, and somebody was banned meanwhile.
        its.check_read(room)
        return page

    async def _look_up(self, room: str, address: str) -> Page:
        asked = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        if unknown := asked.keys() - {"before", "after", "limit"}:
            raise _bad(f"{min(unknown)!r} cannot be asked for: give before, after or limit.")
        limit = None
        if (text := asked.get("limit")) is not None:
            if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
                raise _bad(f"limit={text!r}: give a whole number from 1.")
            limit = int(text)
        if "after" not in asked:
            return await self._hub.before(room, asked.get("before"), limit, address)
        if "before" in asked:
            raise _bad("Give before or after, not both.")
        after = asked["after"]
        return await self._hub.after(room, None if after == OLDEST else after, limit, address)


class SessionHandler(ApiHandler):
    """Tells who somebody is, renews the token of one of their connections, and signs them out: for
    pages, which cannot read the token that a proxy adds to their requests.
    """

    def initialize(self, leases: Leases, revocations: Revocations) -> None:
        self._leases = leases
        self._revocations = revocations

    def get(self) -> None:
        assert self.identity is not None, "others are refused"
        person = self.identity.person
        self.answer(SignedIn(person.user, person.author, self.identity.until_ms))

    def post(self) -> None:
        """`connection`: its id, from `welcome`."""
        assert self.identity is not None, "others are refused"
        connection = self.get_query_argument("connection", "")
        holder = self._leases.find(connection)
        if holder is None:
            self.fail(
                404,
                "This replica has no such connection: it has ended, or is on another replica. Renew"
                " it there (`auth`), or connect again.",
            )
            return
        try:
            self._leases.extend(holder, self.identity)
        except OtherPersonError:
            self.fail(409, "The connection is somebody else's.")
            return
        self.get()

    async def delete(self) -> None:
        """Sign out: the tokens of this session do not count any more, on any replica."""
        assert self.identity is not None, "others are refused"
        try:
            await self._revocations.sign_out(self.identity)
        except UnavailableError as error:
            self.come_again(503, str(error))
            return
        self.set_status(204)
        self.finish()


def _bad(why: str) -> RefusedError:
    return RefusedError(ErrorCode.BAD_FRAME, why)
