"""HTTP: the page and `/ws` on the public port, health and metrics on the internal port, and the
drain.

Tornado does HTTP and the WebSocket handshake; after it, a connection is `chat.websocket`'s. Limits
are set here where Tornado's are wide (an hour for a request's headers, 100 MB per buffer).
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
import ipaddress
import logging
import mimetypes
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Sequence, Set
from html import escape
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.routing import Rule
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from chat import descriptors
from chat.agreed import Agreed, Follower
from chat.api import MessagesHandler, SessionHandler
from chat.audit import Audit
from chat.auth.backchannel import BackchannelHandler
from chat.auth.bearer import BearerHandler
from chat.auth.identity import Identity, Verifier
from chat.auth.leases import Leases
from chat.auth.revocations import Revocations
from chat.drain import InFlight, send_away
from chat.headers import PublicHandler, SecurityHeaders
from chat.hub import Hub
from chat.limits import Budgets, Shares, TokenBucket, client_address, is_one_of
from chat.listener import Listener, PendingStream
from chat.members import Members
from chat.metrics import Metrics
from chat.origins import Sites
from chat.protocol import EVERYWHERE, Limits
from chat.relay.base import Relay
from chat.relay.register import Register
from chat.rights import Rules
from chat.sanctions import Sanctions
from chat.sending import PostTo, SendHandler
from chat.session import Replica, Session
from chat.settings import Settings
from chat.slow import Slow
from chat.websocket.budget import Allowance
from chat.websocket.connection import LINGER_SECONDS, Connection, Endpoint
from chat.websocket.connection import Limits as ConnectionLimits
from chat.websocket.transport import Handshake
from chat.websocket.wheel import Wheel

log = logging.getLogger("chat")

WEB = Path(__file__).parent / "web"

MESSAGES = r"/api/rooms/([^/]+)/messages"

# From this share of its maximum number of clients on, or of their places in rooms, a replica is not
# ready.
NEARLY_FULL = 0.95


# Maximum number of simultaneous health checks and scrapes.
INTERNAL_PENDING = 32

# Burst of API requests, in seconds of CHAT_API_RATE.
API_BURST = 5

# HTTP requests of one address: per second for long, and at once. A page asks for some 25 files when
# it is loaded first, and a lecture hall may load it in the same minute. New connections may be as
# many, and those of all clients of an address that come back at once.
REQUEST_RATE = 250
REQUEST_BURST = 10_000

# In Accept-Encoding; a quality of 0 refuses it (RFC 9110, 12.5.3).
ACCEPTS_GZIP = re.compile(r"\bgzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))|,|$)", re.IGNORECASE)


# In index.html: the files of the page, but not its manifest, nor icon.png, which that names: their
# addresses stay the same.
NAMED = re.compile(rb'(?<=(?:href|.src)=")(?=[\w.]+\.(?:js|css|svg)")')


class PageFile:
    """A file of the page, compressed once."""

    def __init__(self, name: str, plain: bytes) -> None:
        self.type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self.plain = plain
        # Without a time: all replicas have the same bytes, and so the same ETag.
        self.compressed = gzip.compress(self.plain, mtime=0)


class Page:
    """The files of the page. Its document names them by their version, /VERSION/app.js, and as
    modules import each other by relative addresses, all files of one page are of one version.
    """

    def __init__(self, folder: Path) -> None:
        plain = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        content = b"".join(name.encode() + b"\0" + bytes_ for name, bytes_ in plain.items())
        self.version = hashlib.sha256(content).hexdigest()[:12]
        self._document = plain["index.html"]
        plain["index.html"] = self._versioned(self._document)
        self.files = {name: PageFile(name, bytes_) for name, bytes_ in plain.items()}

    def document_for_sign_in(self, sign_in: str, sign_out: str) -> PageFile:
        """The document where tokens are required. Only there, the page loads sign_in.js."""
        script = (
            '<script src="sign_in.js" type="module" id="sign-in"'
            f' data-in="{escape(sign_in)}" data-out="{escape(sign_out)}"></script>\n  '
        )
        first, app, last = self._document.partition(b'<script src="app.js"')
        return PageFile("index.html", self._versioned(first + script.encode() + app + last))

    def _versioned(self, document: bytes) -> bytes:
        return NAMED.sub(f"{self.version}/".encode(), document)


PAGE = Page(WEB)


class PageHandler(PublicHandler):
    def initialize(self, document: PageFile) -> None:
        self._document = document

    def get(self, version: str | None, name: str) -> None:
        file = PAGE.files[name] if name not in ("", "index.html") else self._document
        self.set_header("Content-Type", file.type)
        # Otherwise ask each time whether it has changed (ETag). That includes another version, for
        # a document of another replica during a rollout: its files are better new than missing.
        always = version == PAGE.version
        self.set_header("Cache-Control", "max-age=31536000, immutable" if always else "no-cache")
        self.set_header("Vary", "Accept-Encoding")
        if ACCEPTS_GZIP.search(self.request.headers.get("Accept-Encoding", "")):
            self.set_header("Content-Encoding", "gzip")
            self.write(file.compressed)
        else:
            self.write(file.plain)

    head = get


class MissingHandler(SecurityHeaders):
    def prepare(self) -> None:
        self.send_error(404)


class MissingPageHandler(PublicHandler):
    def prepare(self) -> None:
        super().prepare()
        if not self._finished:
            self.send_error(404)


class ChatHandler(BearerHandler, WebSocketHandler):
    """The handshake of a client."""

    server: Server

    def initialize(self, server: Server) -> None:
        self.server = server

    def prepare(self) -> Awaitable[None] | None:
        super().prepare()
        if self._finished:
            return None
        if self._has_place() and not self.server.admits(self.request):
            self._refuse_address()
        if self._finished or self.verifier is None:
            return None
        return self._require_identity()

    async def _require_identity(self) -> None:
        refusal = await self.authenticate()
        if refusal is not None:
            self._turn_away(*refusal)
        else:
            # It may have waited for keys.
            self._has_place()

    def _has_place(self) -> bool:
        if self.server.draining:
            self._refuse("Restarting", retry_after=1)
        elif self.server.full:
            self._refuse("Full", retry_after=5)
        elif self.server.has_enough(self.request):
            self._refuse_address()
        return not self._finished

    def _refuse_address(self) -> None:
        self._refuse("Too many connections of your address", retry_after=5, status=429)

    def _refuse(self, reason: str, retry_after: int, status: int = 503) -> None:
        self.set_status(status, reason)
        self.set_header("Retry-After", retry_after)
        self.finish(f"{status}: {reason}\n")

    def on_finish(self) -> None:
        # A client that comes in is charged as a connection.
        if self.get_status() != 101:
            super().on_finish()

    def open(self, *_: str) -> None:
        stream = self.ws_connection.stream if self.ws_connection else None
        if isinstance(stream, PendingStream):
            stream.settled()

    def get_websocket_protocol(self) -> Handshake | None:
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        connect = functools.partial(
            self.server.connect,
            self.request.remote_ip or "",
            self.request.headers.get_list("X-Forwarded-For"),
            self.identity,
        )
        return Handshake(self, connect, fast=self.server.fast)

    def on_message(self, message: str | bytes) -> None:  # noqa: ARG002
        raise AssertionError("frames are read by the connection")


class LiveHandler(SecurityHeaders):
    """The process answers. It does so without Kafka, too: a restart would not bring Kafka back."""

    def get(self) -> None:
        self.finish("ok\n")


class ReadyHandler(SecurityHeaders):
    """Whether new clients should be sent here.

    Not while the history is read, not on the way down, and not when nearly as many are here as may
    be. A log that goes away later does not change it: all replicas would turn unready together, and
    clients lose even what works (being connected, reading what was said). `chat_relay_up` tells,
    and senders are told `unavailable`.
    """

    def initialize(self, server: Server) -> None:
        self.server = server

    def get(self) -> None:
        why_not = self.server.look_ready()
        if why_not:
            self.set_status(503)
        self.finish(f"{why_not or 'ok'}\n")


class MetricsHandler(SecurityHeaders):
    def initialize(self, server: Server) -> None:
        self.server = server

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(self.server.metrics_text())


class Server:
    """One replica: two ports, a hub and a relay. `revocations` has the revoked tokens; it is used
    where tokens are required. `sanctions` has what moderators did to whom, and `members` the
    private rooms; None: there are none.
    """

    def __init__(
        self,
        settings: Settings,
        relay: Relay,
        revocations: Register,
        sanctions: Register | None = None,
        members: Register | None = None,
    ) -> None:
        self._settings = settings
        self.relay = relay
        self.draining = False
        # The last logged reason.
        self._not_ready: str | None = None
        self.fast = settings.transport == "fast"
        self._metrics = Metrics()
        self._wheel = Wheel(on_lag=self._metrics.loop_lag.observe)
        self._endpoint = Endpoint(
            ConnectionLimits(
                message_bytes=settings.frame_bytes,
                reading=Allowance.of_messages(settings.rate, settings.burst, settings.frame_bytes),
                outbox_bytes=settings.outbox_bytes,
                total_bytes=settings.outboxes_bytes,
                accept_seconds=settings.hello,
                ping_seconds=settings.ping,
                pong_seconds=settings.pong,
            ),
            self._wheel,
        )
        rules = Rules(settings.rooms, settings.moderators)
        self._hub = Hub(
            relay,
            self._endpoint,
            self._metrics,
            history=settings.history,
            recent=settings.recent,
            window=settings.window,
            window_bytes=settings.window_bytes,
            page=settings.page,
            page_bytes=settings.page_bytes,
            scan=settings.scan,
            position_seconds=settings.position,
            heartbeat=settings.heartbeat,
            members_shown=settings.members_shown,
            typing_seconds=settings.typing,
            name_hold=settings.name_hold,
            places=settings.places,
            places_elsewhere=settings.places_elsewhere,
            pending_bytes=settings.kafka_in_flight_bytes,
            revisions=settings.revisions,
            slow=Slow(rules) if rules.slowest else None,
        )
        self._limits = Limits(
            frame_bytes=settings.frame_bytes,
            text_bytes=settings.text_bytes,
            text_graphemes=settings.text_graphemes,
            rooms=settings.rooms_per_client,
            rate=settings.rate,
            burst=settings.burst,
            history=settings.page,
        )
        self._places = descriptors.share(descriptors.limit(), settings.clients, settings.pending)
        # By their numbers. (A set of so many takes more memory.)
        self._clients: dict[int, Session] = {}
        self._of_address: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self._budgets = Budgets(settings.address_rate, settings.address_burst)
        self._requests = Budgets(REQUEST_RATE, REQUEST_BURST)
        self._connections = Budgets(REQUEST_RATE, REQUEST_BURST + settings.address_clients)
        self._proxies = [ipaddress.ip_network(network) for network in settings.trusted_proxies]
        self._turns = Shares(settings.api_requests)
        self._sending = InFlight()
        self._revocations = Revocations(revocations, settings.auth_token_seconds)
        self._sanctions = Sanctions(sanctions) if sanctions is not None else None
        self._members = Members(members) if members is not None else None
        audit = Audit(self._hub, settings.audit_room) if settings.audit_room else None
        # In the order in which they decide what somebody may do: a room's owners moderate it.
        agreed = (self._members, self._sanctions)
        self._agreed = [one for one in agreed if one is not None]
        self._verifier = _verifier(settings, rules, self._revocations, self._agreed)
        self._verifying: asyncio.Task[None] | None = None
        self._leases = (
            Leases(self._verifier, self._clients, self._revocations) if self._verifier else None
        )
        self._replica = Replica(
            settings.replica,
            self._hub,
            self._metrics,
            self._limits,
            self._leases,
            self._sanctions,
            self._members,
            audit,
            on_gone=self._gone,
        )
        # Two handlers take request bodies, and set their own limits; a request that is not complete
        # in time is not one.
        request_limits: dict[str, Any] = {
            "idle_connection_timeout": settings.handshake,
            "body_timeout": settings.handshake,
            "max_header_size": settings.header_bytes,
            "max_body_size": 1,
            "max_buffer_size": 2 << 20,
        }
        self._public = HTTPServer(self._application(), **request_limits)
        self._internal = HTTPServer(self._internal_application(), **request_limits)
        self._public_listener = Listener(
            self._public,
            most=self._places.pending,
            each=min(settings.address_pending, max(1, self._places.pending // 2)),
            charged=self._charged,
            admits=lambda address: (
                self._connections.of(address).take() and not self._requests.of(address).empty
            ),
            charges=lambda address: self._requests.of(address).take(),
            on_refused=self._on_refused,
            account=self._endpoint.account,
        )
        self._internal_listener = Listener(
            self._internal,
            most=INTERNAL_PENDING,
            each=INTERNAL_PENDING,
            charged=lambda _: None,
            admits=lambda _: True,
            charges=lambda _: True,
            on_refused=self._on_refused,
            account=self._endpoint.account,
        )
        self.port = 0
        self.internal_port = 0

    def _application(self) -> Application:
        return Application(
            [
                (r"/ws", ChatHandler, {"server": self}),
                Rule(
                    PostTo(MESSAGES),
                    SendHandler,
                    {
                        "hub": self._hub,
                        "limits": self._limits,
                        "people": Budgets(self._settings.rate, self._settings.burst),
                        "address": self._address_of,
                        "shared": self._shared_by,
                        "in_flight": self._sending,
                    },
                ),
                (
                    MESSAGES,
                    MessagesHandler,
                    {
                        "hub": self._hub,
                        "turns": self._turns,
                        "budgets": Budgets(
                            self._settings.api_rate, API_BURST * self._settings.api_rate
                        ),
                        "address": self._address_of,
                    },
                ),
                *self._sign_in_handlers(),
                (
                    rf"/(?:([0-9a-f]{{12}})/)?(|{'|'.join(map(re.escape, PAGE.files))})",
                    PageHandler,
                    {"document": _document(self._settings)},
                ),
            ],
            default_handler_class=MissingPageHandler,
            log_function=_log_request,
            budget=lambda request: self._requests.of(self._address_of(request)),
            sites=Sites(
                self._settings.hosts, self._settings.allowed_origins, own=[socket.gethostname()]
            ),
            is_proxy=self._is_proxy,
            verifier=self._verifier,
        )

    def _sign_in_handlers(self) -> list[Any]:
        if self._leases is None:
            return []
        revocations = {"revocations": self._revocations}
        return [
            (r"/api/session", SessionHandler, {"leases": self._leases} | revocations),
            (r"/api/backchannel-logout", BackchannelHandler, revocations),
        ]

    def _is_proxy(self, peer: str) -> bool:
        return is_one_of(peer, self._proxies)

    def _charged(self, peer: str) -> str | None:
        """To which address its connections are charged; a proxy's are its clients'."""
        return None if self._is_proxy(peer) else client_address(peer, (), self._proxies)

    def _address_of(self, request: HTTPServerRequest) -> str:
        """Whom a request is charged to."""
        forwarded = request.headers.get_list("X-Forwarded-For")
        return client_address(request.remote_ip or "", forwarded, self._proxies)

    def _shared_by(self, address: str) -> TokenBucket | None:
        """What all clients of the address may send together; None: there is no limit."""
        return self._budgets.of(address) if self._settings.address_rate else None

    def _internal_application(self) -> Application:
        return Application(
            [
                (r"/livez", LiveHandler),
                (r"/readyz", ReadyHandler, {"server": self}),
                (r"/metrics", MetricsHandler, {"server": self}),
            ],
            default_handler_class=MissingHandler,
            log_function=_log_request,
        )

    async def start(self) -> None:
        """Listen on both ports and open the log. Raises `OSError` if a port cannot be had."""
        address = self._settings.address
        self.port = self._public_listener.listen(self._settings.port, address)
        self.internal_port = self._internal_listener.listen(self._settings.internal_port, address)
        if self._places.clients < self._settings.clients:
            log.warning(
                "CHAT_CLIENTS=%d: this process may open %d files, enough for %d clients; allow it"
                " more (ulimit -n)",
                self._settings.clients,
                descriptors.limit(),
                self._places.clients,
            )
        self._wheel.start()
        await self._hub.start()
        if self._verifier is not None and self._leases is not None:
            await self._revocations.start(self._leases.end)
            for agreed in self._agreed:
                await agreed.start(self._review)
            self._verifying = asyncio.create_task(self._verifier.run())
            self._verifying.add_done_callback(self._hub.ended)
        log.info(
            "replica %s: page on port %d, health and metrics on port %d",
            self._settings.replica,
            self.port,
            self.internal_port,
        )

    def _review(self, room: str, authors: Set[str]) -> None:
        """What these people may do there, or in the whole chat, may have changed."""
        if room != EVERYWHERE:
            self._hub.review(room, authors)
        elif self._leases is not None:
            self._leases.ban(authors)

    @property
    def _followers(self) -> Sequence[Follower]:
        """What has to be known before anybody is let in."""
        return () if self._leases is None else (self._revocations, *self._agreed)

    @property
    def failed(self) -> asyncio.Future[None]:
        """Done, with what went wrong, once a part of the replica does not work any more."""
        return self._hub.failed

    async def drain(self) -> None:
        """Shut down without losing messages: become not ready, wait, disconnect clients, answer
        those who send over HTTP, flush the log.
        """
        self.draining = True
        log.info("draining: %d clients", len(self._clients))
        await asyncio.sleep(self._settings.drain_delay)
        await send_away(self._clients.values(), self._hub.presence, self._settings.drain)
        await self._all_gone()
        self._public_listener.stop()
        if waiting := await self._sending.answered(self._settings.drain):
            log.warning("requests that send and get no answer: %d; the log is too slow", waiting)
        await self._hub.stop(self._settings.drain)
        if self._verifying is not None:
            self._verifying.cancel()
            for follower in self._followers:
                await follower.stop()
        await self._public.close_all_connections()
        self._wheel.stop()
        self._internal_listener.stop()
        await self._internal.close_all_connections()
        log.info("drained")

    async def _all_gone(self) -> None:
        # A connection whose client does not answer is cut; the rest is for what goes wrong.
        try:
            async with asyncio.timeout(2 * LINGER_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d clients are still here", len(self._clients))

    @property
    def full(self) -> bool:
        return len(self._clients) >= self._places.clients

    def has_enough(self, request: HTTPServerRequest) -> bool:
        """Whether as many clients of its address are here as may be."""
        if self._of_address[self._address_of(request)] < self._settings.address_clients:
            return False
        self._on_refused("address_clients")
        return True

    def admits(self, request: HTTPServerRequest) -> bool:
        """Whether its address may connect once more now. Who connected directly was asked then."""
        if not self._is_proxy(request.remote_ip or ""):
            return True
        if self._connections.of(self._address_of(request)).take():
            return True
        self._on_refused("address_requests")
        return False

    def _on_refused(self, reason: str) -> None:
        self._metrics.refused_connections.labels(reason).inc()

    def connect(self, peer: str, forwarded: list[str], identity: Identity | None) -> Connection:
        """Let a client in that has shaken hands; it gets a session of its own."""
        address = client_address(peer, forwarded, self._proxies)
        connection = Connection(self._endpoint, address)
        session = Session(
            connection,
            self._replica,
            address=address,
            shared=self._shared_by(address),
            identity=identity,
        )
        connection.serve(session)
        self._clients[session.number] = session
        self._of_address[address] += 1
        self._empty.clear()
        self._metrics.clients.set(len(self._clients))
        return connection

    def _gone(self, client: Session) -> None:
        self._clients.pop(client.number, None)
        self._of_address[client.address] -= 1
        if not self._of_address[client.address]:
            del self._of_address[client.address]
        if not self._clients:
            self._empty.set()
        self._metrics.clients.set(len(self._clients))

    def look_ready(self) -> str:
        """The reason why this replica is not ready; empty if it is. Changes are logged."""
        why_not = ""
        if self.draining:
            why_not = "restarting"
        elif self.relay.trouble:
            why_not = self.relay.trouble
        elif not self.relay.caught_up:
            away = self.relay.away
            why_not = "the log is not read yet" + (f": {away}" if away else "")
        elif behind := [one for one in self._followers if not one.caught_up]:
            away = behind[0].away
            why_not = f"the {behind[0].what} are not read yet" + (f": {away}" if away else "")
        elif len(self._clients) >= NEARLY_FULL * self._places.clients:
            why_not = "nearly full"
        elif self._hub.places.taken >= NEARLY_FULL * self._settings.places:
            why_not = "nearly full: its clients are in many rooms (CHAT_PLACES)"
        if why_not != self._not_ready:
            log.info("not ready: %s" if why_not else "ready%s", why_not)
        self._not_ready = why_not
        return why_not

    def metrics_text(self) -> bytes:
        metrics = self._metrics
        metrics.ready.set(not self.look_ready())
        metrics.rooms.set(self._hub.rooms)
        metrics.places.labels("here").set(self._hub.places.taken)
        metrics.places.labels("elsewhere").set(self._hub.presence.elsewhere)
        metrics.drops.value = self._endpoint.dropped
        metrics.over_budget.value = self._endpoint.held_off
        metrics.outbox_bytes.set(self._endpoint.waiting)
        metrics.pending.set(self._public_listener.pending)
        metrics.relay_up.set(self.relay.up)
        metrics.relay_caught_up.set(self.relay.caught_up)
        for partition, records in self.relay.lag.items():
            metrics.relay_lag.labels(partition).set(records)
        metrics.foreign_records.value = self.relay.foreign_records
        metrics.unknown_records.value = self.relay.unknown_records
        metrics.revocations.set(len(self._revocations))
        metrics.foreign_revocations.value = self._revocations.foreign
        if self._sanctions is not None:
            metrics.sanctions.set(len(self._sanctions))
            metrics.foreign_sanctions.value = self._sanctions.foreign
        if self._members is not None:
            metrics.private_rooms.set(self._members.count(direct=False))
            metrics.direct_rooms.set(self._members.count(direct=True))
            metrics.blocks.set(self._members.blocks)
            metrics.foreign_members.value = self._members.foreign
        metrics.replicas.set(self._hub.presence.replicas)
        metrics.foreign_signals.value = self._hub.presence.foreign
        return metrics.text()


def _document(settings: Settings) -> PageFile:
    if settings.auth == "off":
        return PAGE.files["index.html"]
    return PAGE.document_for_sign_in(settings.auth_sign_in_url, settings.auth_sign_out_url)


def _verifier(
    settings: Settings, rules: Rules, revocations: Revocations, agreed: Sequence[Agreed[Any]]
) -> Verifier | None:
    if settings.auth == "off":
        return None
    # Imported here: they take 11 MB of memory, which replicas without tokens save.
    from chat.auth.keys import Fetcher
    from chat.auth.tokens import TokenVerifier

    fetch = Fetcher(settings.auth_ca_file)
    return TokenVerifier(
        settings.auth_issuers,
        settings.auth_algorithms,
        fetch,
        rules,
        revocations,
        agreed=agreed,
    )


def _log_request(handler: RequestHandler) -> None:
    request: HTTPServerRequest = handler.request
    level = (
        logging.ERROR
        if handler.get_status() >= 500 and handler.get_status() != 503
        else logging.DEBUG
    )
    log.log(level, "%s %s %d", request.method, request.path, handler.get_status())
