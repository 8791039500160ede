"""An identity provider for tests: keys made on the spot, tokens signed with them, and a real HTTP
server that tells the public ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets

AUDIENCE = "chat"
Key = RSAKey | ECKey | OKPKey | OctKey
# What an address answers with, or something else that it does.
Answer = bytes | Callable[[], Awaitable[bytes]]


def ec_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})


def jwks(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def signed(claims: dict[str, Any], key: Key, **header: Any) -> str:
    """A token; what is None in its header is left out."""
    head = {"alg": "ES256", "kid": key.kid} | header
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(head, claims, key, algorithms=[head["alg"]])


class Provider:
    """Listens on a port of its own until `close`; `asked` has the path of each request."""

    def __init__(self) -> None:
        self.key: Key = ec_key("first")
        self.asked: list[str] = []
        self._replying: set[asyncio.Future[None]] = set()
        self._server = HTTPServer(self._answer)
        sockets = bind_sockets(0, "127.0.0.1")
        self._server.add_sockets(sockets)
        self.issuer = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        discovery = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        self.answers: dict[str, Answer] = {
            "/.well-known/openid-configuration": json.dumps(discovery).encode(),
            "/keys": jwks(self.key),
        }

    def environment(self, **more: str) -> dict[str, str]:
        """Of a replica that asks for tokens of this provider."""
        issuers = [{"issuer": self.issuer, "audience": AUDIENCE, **more}]
        return {"CHAT_AUTH": "required", "CHAT_AUTH_ISSUERS": json.dumps(issuers)}

    def claims(self, user: str = "ada", **more: Any) -> dict[str, Any]:
        """Of somebody with this name; a claim that is None is left out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": f"subject of {user}",
            "preferred_username": user,
            "iat": now,
            "exp": now + 300,
        }
        return {name: value for name, value in (claims | more).items() if value is not None}

    def token(
        self,
        user: str = "ada",
        *,
        key: Key | None = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        return signed(self.claims(user, **claims), key or self.key, **(header or {}))

    def headers(self, user: str = "ada", **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(user, **claims)}"}

    async def close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()

    def _answer(self, request: HTTPServerRequest) -> None:
        self.asked.append(request.path)
        replying = asyncio.ensure_future(self._reply(request))
        self._replying.add(replying)
        replying.add_done_callback(self._replying.discard)

    async def _reply(self, request: HTTPServerRequest) -> None:
        answer = self.answers.get(request.path)
        body = answer if isinstance(answer, bytes | None) else await answer()
        status = 200 if body is not None else 404
        start = ResponseStartLine("HTTP/1.1", status, "")
        headers = HTTPHeaders({"Content-Length": str(len(body or b""))})
        assert request.connection is not None
        with contextlib.suppress(StreamClosedError):
            await request.connection.write_headers(start, headers, body or b"")
            request.connection.finish()
