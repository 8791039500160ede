"""The public keys of one identity provider (JWKS, RFC 7517).

They are fetched when the service starts, and again every few minutes, so that a key which the
provider has withdrawn stops to count. A token with an unknown key makes the provider be asked once
more, but not more often than every few seconds, whoever sends such tokens. While the provider does
not answer, or answers with anything else than keys, the last good ones count.
"""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from chat.auth.identity import KeysUnavailableError
from chat.auth.issuers import Issuer, require_safe

log = logging.getLogger("chat.auth")

# Of a document: the largest sets of public providers have some 20 kB.
MOST_BYTES = 256 << 10
MOST_KEYS = 100
# For each of the discovery document and the keys; handshakes may wait for them.
FETCH_SECONDS = 3.0
# Between two times that the provider is asked: by itself, and for unknown keys.
FRESH_SECONDS = 300.0
AGAIN_SECONDS = 10.0
# Shorter RSA keys can be computed from their public half.
RSA_BITS = 2048
CURVES = ("P-256", "P-384", "P-521", "Ed25519")

Key = RSAKey | ECKey | OKPKey
# By `kid`; a key without one has None.
Keys = dict[str | None, Key]
Fetch = Callable[[str], Awaitable[bytes]]


class KeysError(Exception):
    """There are no keys here; the text says why."""


class UnknownKeyError(Exception):
    """The provider has no such key."""


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


_key_set_decoder = msgspec.json.Decoder(_KeySet)
_discovery_decoder = msgspec.json.Decoder(_Discovery)


def read_file(path: Path) -> Keys:
    """Raises `KeysError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise KeysError(f"give a file that can be read ({error.strerror})") from None
    return read(data)


def read(data: bytes) -> Keys:
    """The keys of a JWKS that can verify signatures; others in it are left out, as providers have
    some for encryption. Raises `KeysError`.
    """
    if len(data) > MOST_BYTES:
        raise KeysError(f"it has more than {MOST_BYTES} bytes")
    try:
        given = _key_set_decoder.decode(data).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise KeysError('it is no JWKS: give {"keys": [...]}') from None
    if len(given) > MOST_KEYS:
        raise KeysError(f"it has more than {MOST_KEYS} keys")
    keys: Keys = {}
    for one in given:
        if "d" in one or one.get("kty") == "oct":
            raise KeysError("it has a secret key: give public keys only")
        key = _key(one)
        if key is not None and isinstance(key.kid, str | None):
            keys[key.kid] = key
    if not keys:
        raise KeysError(
            f"none of its {len(given)} keys can verify a signature: give RSA keys of at least"
            f" {RSA_BITS} bits, EC or Ed25519 keys"
        )
    return keys


def _key(given: dict[str, Any]) -> Key | None:
    try:
        if given.get("use", "sig") != "sig" or "verify" not in given.get("key_ops", ["verify"]):
            return None
        with warnings.catch_warnings():
            # It warns of short keys, and those are left out.
            warnings.simplefilter("ignore", SecurityWarning)
            key = JWKRegistry.import_key(given)
        if isinstance(key, RSAKey):
            return key if key.public_key.key_size >= RSA_BITS else None
        if isinstance(key, ECKey | OKPKey) and key.curve_name in CURVES:
            # Made here, so that a point which is none of the curve's is found now.
            return key if key.public_key else None
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return None


class Fetcher:
    """Fetches documents of providers: small, soon, and from nowhere else than asked."""

    def __init__(self, ca_file: str = "") -> None:
        self._ca_file = ca_file or None

    async def __call__(self, url: str) -> bytes:
        """Raises any error of Tornado's client, `OSError` or `ValueError`."""
        client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=MOST_BYTES)
        try:
            fetching = client.fetch(
                url,
                ca_certs=self._ca_file,
                connect_timeout=FETCH_SECONDS,
                request_timeout=FETCH_SECONDS,
                follow_redirects=False,
                decompress_response=False,
            )
            # Tornado logs an error if its future is cancelled; it ends in time by itself.
            response = await asyncio.shield(fetching)
        finally:
            client.close()
        return response.body


class KeySource:
    """The keys of `issuer`, as far as they are known. `clock` counts seconds."""

    def __init__(
        self, issuer: Issuer, fetch: Fetch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys: Keys = {}
        self._asked = -AGAIN_SECONDS
        self._asking: asyncio.Task[None] | None = None
        # The last logged reason why there are none.
        self._trouble = ""

    async def find(self, kid: str | None) -> Key:
        """The key of this id; without an id, the only key. Raises `UnknownKeyError` and
        `KeysUnavailableError`.
        """
        key = self._known(kid)
        if key is None and (self._asking or self._clock() - self._asked >= AGAIN_SECONDS):
            await self.ask()
            key = self._known(kid)
        if key is not None:
            return key
        if not self._keys:
            raise KeysUnavailableError
        raise UnknownKeyError

    async def keep_fresh(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(AGAIN_SECONDS if self._trouble else FRESH_SECONDS)

    async def ask(self) -> None:
        """Ask the provider now; those who ask meanwhile share the answer."""
        if self._asking is None:
            self._asked = self._clock()
            self._asking = asyncio.create_task(self._ask())
        # Whoever waits may go, and the others still wait.
        await asyncio.shield(self._asking)

    def _known(self, kid: str | None) -> Key | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _ask(self) -> None:
        trouble = ""
        try:
            self._keys = await self._load()
        except Exception as error:  # noqa: BLE001 - whatever a foreign server does
            trouble = str(error) or type(error).__name__
        finally:
            self._asking = None
        if trouble and trouble != self._trouble:
            log.warning(
                "keys of %s: %s; %s",
                self._issuer.issuer,
                trouble,
                f"the last {len(self._keys)} keys count" if self._keys else "no token counts",
            )
        elif not trouble and self._trouble:
            log.info("keys of %s: %d keys", self._issuer.issuer, len(self._keys))
        self._trouble = trouble

    async def _load(self) -> Keys:
        if self._issuer.file is not None:
            return read_file(self._issuer.file)
        address = self._issuer.jwks or await self._discover()
        return read(await self._fetch(address))

    async def _discover(self) -> str:
        document = await self._fetch(self._issuer.discovery)
        try:
            found = _discovery_decoder.decode(document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise KeysError(f"{self._issuer.discovery}: no discovery document ({error})") from None
        if found.issuer != self._issuer.issuer:
            raise KeysError(
                f"{self._issuer.discovery} is of issuer {found.issuer[:100]!r}: give that name"
            )
        require_safe(found.jwks_uri)
        return found.jwks_uri
