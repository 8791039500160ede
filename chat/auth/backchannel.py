"""A provider says that somebody has signed out there, or was signed out (OpenID Connect
Back-Channel Logout 1.0).

Whoever reaches this port may ask. Only a token that the provider has signed ends anything. It
comes from the provider's server, so no browser needs an answer here, and none gets one that its
page may read.
"""

from __future__ import annotations

from collections.abc import Awaitable
from urllib.parse import parse_qs

import msgspec
from tornado.web import stream_request_body

from chat.auth.bearer import RETRY_SECONDS
from chat.auth.identity import TokenError, UnverifiableError, Verifier
from chat.auth.revocations import Revocations
from chat.headers import PublicHandler
from chat.relay.base import UnavailableError

# Of a form with a token of maximum size.
MOST_BYTES = 24_576


class Failure(msgspec.Struct):
    """Why nothing was done, in the words of RFC 6749, 5.2."""

    error: str
    error_description: str


@stream_request_body
class BackchannelHandler(PublicHandler):
    """Takes `logout_token` in a form."""

    def initialize(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self._body = b""

    def prepare(self) -> Awaitable[None] | None:
        super().prepare()
        if not self._finished:
            self.charge()
            self.set_header("Cache-Control", "no-store")
            self._connection.set_max_body_size(MOST_BYTES)
        return None

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk

    async def post(self) -> None:
        verifier: Verifier = self.settings["verifier"]
        try:
            await self._revocations.log_out(await verifier.verify_logout(self._token()))
        except TokenError as error:
            self._fail(400, "invalid_request", f"the logout token does not count: {error}")
        except (UnavailableError, UnverifiableError) as error:
            self.set_header("Retry-After", str(RETRY_SECONDS))
            self._fail(503, "temporarily_unavailable", str(error))

    def _token(self) -> str:
        try:
            form = parse_qs(self._body.decode("ascii"), max_num_fields=10)
        except ValueError:
            form = {}
        given = form.get("logout_token", [])
        if len(given) != 1:
            raise TokenError("send one logout_token, as application/x-www-form-urlencoded")
        return given[0]

    def _fail(self, status: int, error: str, why: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(Failure(error, why)))
