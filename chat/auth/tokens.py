"""Verifies tokens (JWT, RFC 7519 and 8725): what a provider has signed, and nothing else, says who
somebody is.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from chat import protocol
from chat.agreed import Agreed, Follower
from chat.auth.identity import (
    TOLERANCE,
    BannedError,
    Identity,
    Logout,
    TokenError,
    UnverifiableError,
    session_of,
)
from chat.auth.issuers import Issuer
from chat.auth.keys import Fetch, KeySource, UnknownKeyError
from chat.auth.revocations import Revocations
from chat.limits import TokenBucket
from chat.protocol import RefusedError
from chat.rights import Rules
from chat.room import Person

log = logging.getLogger("chat.auth")

# More than a request's headers may have by default.
MOST_BYTES = 16_384
# Of what a provider sends, a header has an algorithm, a key's id, a type, and perhaps the key's
# certificate's digest.
MOST_HEADER_BYTES = 2048
# A provider signs other tokens for the same audience, such as those that end sessions (logout+jwt).
_TYPES = ("jwt", "at+jwt", "application/at+jwt")
_LOGOUT_TYPES = ("jwt", "logout+jwt", "application/logout+jwt")
# What a token that ends sessions says has happened.
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
# Of refused tokens, at once: anybody may send them.
MOST_LINES = 20
# Of what others wrote, so much is logged.
_SHOWN = 100


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    typ: str = "JWT"


class _Signed(msgspec.Struct, kw_only=True):
    """The claims that every token must have."""

    iss: str
    aud: str | list[str]
    exp: float
    nbf: float = 0
    iat: float


class _Claims(_Signed, kw_only=True):
    sub: str


class _LogoutClaims(_Signed, kw_only=True):
    """See OpenID Connect Back-Channel Logout 1.0, section 2.4."""

    jti: str
    events: dict[str, Any]
    sub: str = ""
    sid: str = ""
    nonce: Any = msgspec.UNSET


_header_decoder = msgspec.json.Decoder(_Header)
_claims_decoder = msgspec.json.Decoder(_Claims)
_logout_decoder = msgspec.json.Decoder(_LogoutClaims)
_all_claims_decoder = msgspec.json.Decoder(dict[str, Any])


C = TypeVar("C", bound=_Signed)


class _Registry(jws.JWSRegistry):
    max_header_length = MOST_HEADER_BYTES


class TokenVerifier:
    """Verifies tokens of `issuers`, signed by one of `algorithms`. `rules` say what their people
    may do, and each of `agreed` what becomes of that; `revocations` say which tokens count no more.
    `clock`: seconds since the epoch.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        algorithms: Collection[str],
        fetch: Fetch,
        rules: Rules,
        revocations: Revocations,
        clock: Callable[[], float] = time.time,
        *,
        agreed: Sequence[Agreed[Any]] = (),
        log_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuers = {one.issuer: (one, KeySource(one, fetch)) for one in issuers}
        self._algorithms = algorithms
        self._rules = rules
        self._revocations = revocations
        self._agreed = agreed
        self._registry = _Registry(algorithms=algorithms, strict_check_header=False)
        self._clock = clock
        # One a second for long, which is 10 MB a day.
        self._lines = TokenBucket(1, MOST_LINES, log_clock)
        self._unlogged = 0

    async def run(self) -> None:
        """Keep the keys of all issuers fresh, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _, keys in self._issuers.values():
                tasks.create_task(keys.keep_fresh())

    async def verify(self, token: str) -> Identity:
        """Who it is. Raises `TokenError` and `UnverifiableError`."""
        try:
            return await self._verify(token)
        except TokenError as error:
            self._log(error)
            raise

    async def verify_logout(self, token: str) -> Logout:
        """What has ended. Raises `TokenError` and `UnverifiableError`.

        The same token may come again until it ends: what it revokes was issued before it was.
        """
        try:
            return await self._verify_logout(token)
        except TokenError as error:
            self._log(error)
            raise

    def _log(self, error: TokenError) -> None:
        if not self._lines.take():
            self._unlogged += 1
            return
        others = f" ({self._unlogged} others were not logged)" if self._unlogged else ""
        self._unlogged = 0
        log.info("refused a token: %s%s", error, others)

    async def _verify(self, token: str) -> Identity:
        issuer, claims, payload = await self._read(token, _TYPES, _claims_decoder)
        if not claims.sub:
            raise TokenError("its subject is empty")
        try:
            all_claims = _all_claims_decoder.decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise TokenError("it has a claim that cannot be read") from None
        if "events" in all_claims:
            raise TokenError("it says what has happened (events), and signs nobody in")
        person = Person.known(_user(issuer, all_claims), claims.iss, claims.sub)
        sid = all_claims.get("sid")
        session = session_of(claims.iss, sid) if sid and isinstance(sid, str) else ""
        rights = self._rules.rights(_groups(issuer, all_claims))
        for one in self._agreed:
            rights = one.rights(person.author, rights)
        if banned_until := rights.banned_until():
            raise BannedError(banned_until)
        until = min(claims.exp, claims.iat + self._revocations.seconds)
        identity = Identity(person, until, rights, int(claims.iat), session)
        if self._revocations.cover(identity):
            raise TokenError("it was revoked: sign in again")
        return identity

    async def _verify_logout(self, token: str) -> Logout:
        issuer, claims, _ = await self._read(token, _LOGOUT_TYPES, _logout_decoder)
        if not isinstance(claims.events.get(_LOGOUT_EVENT), dict):
            raise TokenError(f"its events have no {_LOGOUT_EVENT}")
        if claims.nonce is not msgspec.UNSET:
            raise TokenError("it has a nonce, which is for tokens that sign in")
        if not claims.jti:
            raise TokenError("its jti is empty")
        if not claims.sub and not claims.sid:
            raise TokenError("it has neither sub nor sid")
        session = session_of(claims.iss, claims.sid) if claims.sid else ""
        author = Person.known("", claims.iss, claims.sub).author if claims.sub else ""
        return Logout(issuer.issuer, author, session, int(claims.iat))

    async def _read(
        self, token: str, types: Collection[str], decoder: msgspec.json.Decoder[C]
    ) -> tuple[Issuer, C, bytes]:
        """Whose it is, and what it says. Raises `TokenError` and `UnverifiableError`."""
        if len(token) > MOST_BYTES:
            raise TokenError(f"it has {len(token)} bytes: at most {MOST_BYTES} can be")
        parts = token.split(".")
        if len(parts) != 3:
            raise TokenError("it is no JWT: three parts, separated by dots")
        try:
            header = _header_decoder.decode(_decoded(parts[0]))
            payload = _decoded(parts[1])
            claims = decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise TokenError(f"it is no JWT: {error}") from None
        except (ValueError, RecursionError):
            raise TokenError("it is no JWT: its parts are JSON objects in Base64url") from None
        if header.alg not in self._algorithms:
            raise TokenError(f"algorithm {header.alg[:_SHOWN]!r} is not allowed")
        if header.typ.lower() not in types:
            use = "signs somebody in" if types is _TYPES else "ends a session"
            raise TokenError(f"type {header.typ[:_SHOWN]!r} is none that {use}")
        if claims.iss not in self._issuers:
            raise TokenError(f"issuer {claims.iss[:_SHOWN]!r} is none of CHAT_AUTH_ISSUERS")
        issuer, keys = self._issuers[claims.iss]
        # Before the signature, which costs more, and before the provider is asked for keys.
        self._check(claims, issuer)
        try:
            key = await keys.find(header.kid)
        except UnknownKeyError:
            shown = "no key" if header.kid is None else f"key {header.kid[:_SHOWN]!r}"
            raise TokenError(f"it names {shown}, and {claims.iss} has none such") from None
        if key.get("alg") not in (None, header.alg):
            raise TokenError(f"key {key.kid!r} is for algorithm {key.get('alg')}, not {header.alg}")
        try:
            jws.deserialize_compact(token, key, registry=self._registry)
        except JoseError as error:
            raise TokenError(f"its signature does not count ({error.error})") from None
        except (ValueError, TypeError, RecursionError):
            raise TokenError("its signature cannot be read") from None
        needed: tuple[Follower, ...] = (self._revocations, *self._agreed)
        for follower in needed:
            if not follower.caught_up:
                raise UnverifiableError(f"the {follower.what} are not read yet")
        return issuer, claims, payload

    def _check(self, claims: _Signed, issuer: Issuer) -> None:
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if {issuer.audience, *issuer.audiences}.isdisjoint(audiences):
            shown = ", ".join(audiences)[:_SHOWN]
            raise TokenError(f"audience {shown!r} is not {issuer.audience!r}")
        now = self._clock()
        if now >= claims.exp + TOLERANCE:
            raise TokenError(f"it ended {now - claims.exp:.0f} s ago")
        if now < claims.nbf - TOLERANCE:
            raise TokenError(f"it begins in {claims.nbf - now:.0f} s: compare the clocks")
        if now < claims.iat - TOLERANCE:
            raise TokenError(f"it was issued in {claims.iat - now:.0f} s: compare the clocks")
        if claims.iat < (floor := self._revocations.floor + 1):
            raise TokenError(
                f"it was issued {now - claims.iat:.0f} s ago, and what was revoked is known for the"
                f" last {now - floor:.0f} s (CHAT_AUTH_TOKEN_SECONDS)"
            )


def _user(issuer: Issuer, claims: dict[str, Any]) -> str:
    """The name to show. Raises `TokenError`."""
    name = claims.get(issuer.name_claim)
    if not isinstance(name, str):
        raise TokenError(f"it has no claim {issuer.name_claim!r}, which has the name to show")
    try:
        return protocol.check_user(protocol.fitting_user(name))
    except RefusedError:
        raise TokenError(f"its claim {issuer.name_claim!r} has nothing to show") from None


def _groups(issuer: Issuer, claims: dict[str, Any]) -> frozenset[str]:
    """Of which groups somebody is. Raises `TokenError`."""
    # Providers leave the claim out, or say null, for somebody who is in none.
    groups = claims.get(issuer.groups_claim) if issuer.groups_claim else None
    if groups is None:
        return frozenset()
    if isinstance(groups, str):
        groups = [groups]
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise TokenError(f"its claim {issuer.groups_claim!r} is no list of names")
    return frozenset(issuer.groups_prefix + group for group in groups)


def _decoded(part: str) -> bytes:
    """Raises `ValueError`."""
    try:
        return urlsafe_b64decode(part.encode("ascii") + b"=" * (-len(part) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from None
