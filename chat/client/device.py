"""Signing in for programs that have no browser (OAuth 2.0 Device Authorization Grant, RFC 8628).

The person opens an address on any device, and enters a code there. Meanwhile the program asks the
provider for the tokens, as often as the provider allows. It renews the ID token before its end with
the refresh token. Both stay in memory, unless a file is given for the refresh token.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import ipaddress
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPMessage,
    HTTPResponse,
    HTTPSConnection,
)
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from chat.client.room import DisconnectedError
from chat.protocol import harmless_user

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# To connect, and then again for the whole answer.
HTTP_SECONDS = 10.0
# Of an answer of the provider.
MOST_BYTES = 256 << 10
# RFC 8628, 3.5: by so many seconds the interval grows with each `slow_down`.
SLOWER_SECONDS = 5
MOST_INTERVAL_SECONDS = 60
# However long the provider's code counts, nobody signs in any more.
MOST_WAIT_SECONDS = 3600.0
# From this share of its time on, a token is renewed. `connect` asks when a quarter is left.
RENEW_SHARE = 1 / 3


class _Provider(msgspec.Struct):
    """The discovery document (OpenID Connect Discovery 1.0, RFC 8414)."""

    issuer: str
    token_endpoint: str
    device_authorization_endpoint: str = ""


class _Code(msgspec.Struct):
    device_code: str
    user_code: str
    verification_uri: str
    expires_in: float
    interval: float = 5
    verification_uri_complete: str = ""


class _Tokens(msgspec.Struct):
    id_token: str = ""
    refresh_token: str = ""


class _Refusal(msgspec.Struct):
    """RFC 6749, 5.2."""

    error: str
    error_description: str = ""


class _Claims(msgspec.Struct):
    exp: float
    iat: float


class _Kept(msgspec.Struct):
    issuer: str
    client_id: str
    refresh_token: str


_T = TypeVar("_T")
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _RefusedError(Exception):
    """The provider answers with an error of OAuth's."""

    def __init__(self, refusal: _Refusal) -> None:
        super().__init__(refusal.error_description or refusal.error)
        self.code = refusal.error


class SignIn:
    """A source of tokens for `connect`, once `begin` has returned.

    `issuer`: the provider. `client_id`: the client that is registered there for terminals, and its
    `secret`, if it has one. `keep`: a file for the refresh token, which only its owner may read.
    `show` is given what the person is to read, a line at a time. Raises `ValueError` for an issuer
    or a file that cannot be used.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        *,
        show: Callable[[str], None],
        scope: str = "openid profile",
        secret: str = "",
        keep: Path | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        _require_safe(issuer)
        self._issuer = issuer
        self._client = {"client_id": client_id} | ({"client_secret": secret} if secret else {})
        self._scope = scope
        self._keep = keep
        self._refresh_token = self._read_kept()
        self._show = show
        self._sleep = sleep
        self._clock = clock
        self._wall = wall
        self._provider: _Provider
        self._token = ""
        # For how many seconds the token counts, and since when, by both clocks.
        self._life = 0.0
        self._since = (0.0, 0.0)
        self._renewing = asyncio.Lock()
        self._renewal: asyncio.Task[OSError | _RefusedError | None] | None = None

    async def begin(self) -> None:
        """Sign in: with what was kept, or with the person's help. Raises `DisconnectedError`."""
        try:
            await self._discover()
            if self._refresh_token:
                with contextlib.suppress(_RefusedError):
                    await self._renew()
                    return
            await self._ask()
        except (OSError, _RefusedError) as error:
            raise DisconnectedError(f"signing in at {self._issuer}: {_line(error)}") from None

    async def __call__(self) -> str:
        """A token that counts for a while. Raises `DisconnectedError` if it takes a person to get
        one, and `OSError` if it may be had later.
        """
        async with self._renewing:
            if self._left() > RENEW_SHARE * self._life:
                return self._token
            try:
                if self._refresh_token:
                    await self._renew()
            except _RefusedError as refused:
                self._refresh_token = ""
                self._show(f"The provider renews your sign-in no more: {_line(refused)}.")
            except OSError:
                if self._left() <= 0:
                    raise
            if self._left() <= 0:
                raise DisconnectedError("your sign-in has ended: start again")
            return self._token

    def refuse(self, token: str) -> bool:
        """The chat refuses this token, whatever it says: the next one is new. Returns whether there
        can be one.
        """
        if token == self._token:
            self._life = 0.0
        return bool(self._refresh_token)

    def _left(self) -> float:
        """For how many seconds the token still counts. On Linux, the monotonic clock stands still
        while the machine sleeps; the other one may be set back.
        """
        clock, wall = self._since
        return self._life - max(self._clock() - clock, self._wall() - wall)

    async def _discover(self) -> None:
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        provider = await self._fetch(url, None, _Provider)
        # Otherwise the tokens would be somebody else's (OpenID Connect Discovery 1.0, 4.3).
        if provider.issuer != self._issuer:
            raise OSError(f"its discovery document is of {provider.issuer}")
        if not provider.device_authorization_endpoint:
            raise OSError("it has no device flow: let its administrator switch that on")
        for url in (provider.token_endpoint, provider.device_authorization_endpoint):
            try:
                _require_safe(url, https=urlsplit(self._issuer).scheme == "https")
            except ValueError as error:
                raise OSError(str(error)) from None
        self._provider = provider

    async def _ask(self) -> None:
        """Show the code, and wait until somebody has entered it."""
        asked = self._client | {"scope": self._scope}
        code = await self._fetch(self._provider.device_authorization_endpoint, asked, _Code)
        self._show(
            f"To sign in, open {_line(code.verification_uri)} on any device and enter the code"
        )
        self._show(f"    {_line(code.user_code)}")
        if code.verification_uri_complete:
            self._show(f"or open {_line(code.verification_uri_complete)}")
        until = self._clock() + min(code.expires_in, MOST_WAIT_SECONDS)
        interval = min(max(code.interval, 1), MOST_INTERVAL_SECONDS)
        asked = self._client | {"grant_type": GRANT, "device_code": code.device_code}
        while self._clock() < until:
            await self._sleep(interval)
            try:
                self._take(await self._fetch(self._provider.token_endpoint, asked, _Tokens))
            except _RefusedError as refused:
                if refused.code == "slow_down":
                    interval += SLOWER_SECONDS
                elif refused.code != "authorization_pending":
                    raise
            except OSError:
                # RFC 8628, 3.5: ask more rarely then.
                interval = min(2 * interval, MOST_INTERVAL_SECONDS)
            else:
                return
        raise OSError("nobody has entered the code in time")

    async def _renew(self) -> None:
        """Whoever stops waiting, the renewal goes on: the provider may refuse the old refresh token
        from now on, and its answer has the new one.
        """
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew_whole())
        if failure := await asyncio.shield(self._renewal):
            raise failure

    async def _renew_whole(self) -> OSError | _RefusedError | None:
        """Returns its failure, as there may be nobody to raise it to."""
        url = self._provider.token_endpoint
        asked = self._client | {"grant_type": "refresh_token", "refresh_token": self._refresh_token}
        answer = asyncio.get_running_loop().run_in_executor(None, _request, url, asked)
        # `asyncio.run` cancels all tasks when the program ends. It waits for the thread anyway.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([answer])
        try:
            self._take(_read(url, asked, await answer, _Tokens))
        except (OSError, _RefusedError) as error:
            return error
        return None

    def _take(self, tokens: _Tokens) -> None:
        # First, as the old one may count no more, whatever else the answer lacks.
        if tokens.refresh_token and tokens.refresh_token != self._refresh_token:
            self._refresh_token = tokens.refresh_token
            self._write_kept()
        try:
            payload = tokens.id_token.split(".")[1]
            claims = msgspec.json.decode(
                base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims
            )
        except (IndexError, ValueError, *_UNREADABLE):
            raise _RefusedError(
                _Refusal("", "it gives no ID token: the scope must have openid")
            ) from None
        # Measured from now on, as clocks may differ.
        self._life = claims.exp - claims.iat
        self._since = (self._clock(), self._wall())
        self._token = tokens.id_token

    # The file.

    def _read_kept(self) -> str:
        """The refresh token that was kept; empty if there is none of this provider and client."""
        if self._keep is None:
            return ""
        try:
            with open(self._keep, "rb", opener=_open_as_it_is) as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(MOST_BYTES)
        except FileNotFoundError:
            if not os.access(self._keep.parent, os.W_OK):
                raise ValueError(
                    f"{self._keep}: give a file in a folder where you may write"
                ) from None
            return ""
        except OSError as error:
            raise ValueError(f"{self._keep}: {error.strerror}") from None
        if mode & 0o077:
            raise ValueError(f"{self._keep}: others may read it: chmod 600 {self._keep}")
        try:
            kept = msgspec.json.decode(content, type=_Kept)
        except _UNREADABLE:
            raise ValueError(f"{self._keep} is no file of chat.client: give another") from None
        mine = (kept.issuer, kept.client_id) == (self._issuer, self._client["client_id"])
        return kept.refresh_token if mine else ""

    def _write_kept(self) -> None:
        if self._keep is None:
            return
        kept = _Kept(self._issuer, self._client["client_id"], self._refresh_token)
        new = self._keep.with_name(f"{self._keep.name}.new")
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(kept))
            new.replace(self._keep)
        except OSError as error:
            # The old one may count no more. The program goes on without.
            self._show(f"{self._keep}: {error.strerror}: sign in again at the next start")

    # The provider.

    async def _fetch(self, url: str, form: dict[str, str] | None, kind: type[_T]) -> _T:
        """Raises `_RefusedError`, and `OSError` for all that may be otherwise later."""
        return _read(url, form, await asyncio.to_thread(_request, url, form), kind)


def _open_as_it_is(path: str, flags: int) -> int:
    """Follows no link, and waits for no writer of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _read(url: str, form: dict[str, str] | None, answer: tuple[int, bytes], kind: type[_T]) -> _T:
    """The answer to a request. Raises `_RefusedError` and `OSError`."""
    status, body = answer
    if form is not None and 400 <= status < 500:
        with contextlib.suppress(*_UNREADABLE):
            raise _RefusedError(msgspec.json.decode(body, type=_Refusal))
    try:
        if status == 200:
            return msgspec.json.decode(body, type=kind)
    except _UNREADABLE as error:
        raise OSError(f"{url}: {error}") from None
    raise OSError(f"{url} answers {status}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What is sent is for one address, and no other."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002
        fp: IO[bytes],  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: HTTPMessage,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        return None


class _InTime(io.RawIOBase):
    """What a socket receives within `HTTP_SECONDS`. (Its own timeout is for each part of it.)"""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = connection.makefile("rb", buffering=0)
        self._until = time.monotonic() + HTTP_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


class _Answer(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_InTime(sock))


class _Http(urllib.request.HTTPHandler):
    class _Connection(HTTPConnection):
        response_class = _Answer

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._Connection, req)


class _Https(urllib.request.HTTPSHandler):
    class _Connection(HTTPSConnection):
        response_class = _Answer

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._Connection, req)


def _build_opener() -> urllib.request.OpenerDirector:
    """Plain HTTP is for this machine alone (`_require_safe`), so no proxy may read it."""
    proxies = {to: proxy for to, proxy in urllib.request.getproxies().items() if to != "http"}
    return urllib.request.build_opener(
        _Http, _Https, _NoRedirects, urllib.request.ProxyHandler(proxies)
    )


_opener = _build_opener()


def _request(url: str, form: dict[str, str] | None) -> tuple[int, bytes]:
    """The status and the body of the answer. Raises `OSError`, whatever the provider answers."""
    try:
        data = None if form is None else urlencode(form).encode()
        request = urllib.request.Request(url, data, {"Accept": "application/json"})
        try:
            with _opener.open(request, timeout=HTTP_SECONDS) as answer:
                return answer.status, answer.read(MOST_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(MOST_BYTES)
    except urllib.error.URLError as error:
        raise OSError(f"{url}: {error.reason}") from None
    except TimeoutError:
        raise OSError(f"{url}: no whole answer within {HTTP_SECONDS:g} s") from None
    except (HTTPException, ValueError) as error:
        raise OSError(f"{url}: {error!r}") from None


def _require_safe(url: str, *, https: bool = False) -> None:
    """Raises `ValueError` if others could read what is sent there. Plain HTTP is for this machine;
    with `https`, for nobody.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = None, ""
    if parts is None or not host or parts.scheme not in ("https", "http"):
        raise ValueError(f"{url!r} is no address of a provider: give https://HOST/...")
    if parts.scheme == "http" and (https or not is_here(host)):
        raise ValueError(f"{url!r}: give an https address: others could read the tokens")


def is_here(host: str) -> bool:
    """Whether what is sent to this host does not leave the machine."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _line(words: object) -> str:
    """What a provider says, as one line which does nothing to a terminal."""
    return harmless_user(str(words))
