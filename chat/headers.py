"""Headers and checks of every HTTP response."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from chat.limits import TokenBucket
from chat.listener import PendingStream
from chat.origins import Sites


class SecurityHeaders(RequestHandler):
    def set_default_headers(self) -> None:
        self.set_header("Server", "chat")
        self.set_header(
            "Content-Security-Policy",
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types chat",
        )
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {self._reason}\n")


class PublicHandler(SecurityHeaders):
    """Serves only our own hosts, and pages of sites that may use the chat, according to the
    application's `sites`. Each request, and each further kilobyte of its head, is charged to its
    address, even if it is refused: when it ends, unless its handler does it before. The
    application's `budget` returns the bucket. A handler with its own `prepare` must call this one
    first.
    """

    _charged = False

    def prepare(self) -> Awaitable[None] | None:
        if self._budget.empty:
            self.set_header("Retry-After", "1")
            self._turn_away(429, "too many requests come from your address: ask more rarely")
            return None
        headers = self.request.headers
        # A program may connect under any host name, but a page's WebSocket has an origin.
        program = "Upgrade" in headers and "Origin" not in headers
        sites: Sites = self.settings["sites"]
        if not sites.knows(self.request.host, local=self._is_local() and not program):
            self._turn_away(421, "this chat does not know that host; CHAT_HOSTS has those it knows")
        elif "Transfer-Encoding" in headers:
            # Each chunk takes Tornado 10 µs, and may have one byte.
            self._close_behind()
            self._turn_away(411, "send the body with its Content-Length, not in chunks")
        return None

    def _turn_away(self, status: int, why: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status}: {why}\n")

    def _close_behind(self) -> None:
        """Close the connection behind the answer. Of the body, what has arrived is dropped."""
        self.set_header("Connection", "close")
        stream = self._connection.stream
        if isinstance(stream, PendingStream):
            stream.discard()

    def charge(self) -> bool:
        """Charge the request now. Whether the budget allows it."""
        self._charged = True
        stream = self._connection.stream
        size = stream.head_size if isinstance(stream, PendingStream) else 0
        return self._budget.take(1 + size // 1024)

    def on_finish(self) -> None:
        if not self._charged and not self.charge():
            # The client's further requests are not read.
            self._connection.close()

    @property
    def _connection(self) -> HTTP1Connection:
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection), "this is HTTP/1"
        return connection

    @functools.cached_property
    def _budget(self) -> TokenBucket:
        budget: Callable[[HTTPServerRequest], TokenBucket] = self.settings["budget"]
        return budget(self.request)

    def _is_local(self) -> bool:
        """Whether the request comes from this machine, and not through a known proxy."""
        peer = self.request.remote_ip or ""
        try:
            return ipaddress.ip_address(peer).is_loopback and not self.settings["is_proxy"](peer)
        except ValueError:
            return False

    def _check_cross_origin(self, _check: Callable[[str], bool]) -> str | None:
        """Tornado's rule, but origins are compared as URLs."""
        headers = self.request.headers
        origin, fetch_site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        sites: Sites = self.settings["sites"]
        if sites.admits(origin, fetch_site, self.request.host):
            return None
        return f"Origin {origin!r} not allowed"
