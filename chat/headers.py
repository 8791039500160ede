"""What every HTTP answer says, whatever it is about."""

from __future__ import annotations

from typing import Any

from tornado.web import RequestHandler


class SecurityHeaders(RequestHandler):
    def set_default_headers(self) -> None:
        self.set_header("Server", "chat")
        self.set_header(
            "Content-Security-Policy",
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {self._reason}\n")
