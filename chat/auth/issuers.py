"""The identity providers whose tokens count, as `CHAT_AUTH_ISSUERS` names them.

Only a provider's signature makes a token. So its keys come from a file of this machine, or over
HTTPS; plain HTTP is for providers on the same machine, as in tests.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

MOST_ISSUERS = 20


class Issuer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`issuer` and `audience` are what a token's `iss` and `aud` must say; `audiences` are others
    that count as well, such as the client of terminals. `jwks` is where the
    public keys are: an absolute path, or an address; empty: the provider's discovery document
    tells. `name_claim`: the claim that has the name to show. `groups_claim`: the claim that has the
    groups which `CHAT_ROOMS` names, after `groups_prefix`; empty: its people are in none.
    """

    issuer: str
    audience: str
    jwks: str = ""
    name_claim: str = "preferred_username"
    groups_claim: str = ""
    groups_prefix: str = ""
    audiences: tuple[str, ...] = ()

    @property
    def file(self) -> Path | None:
        """Where the keys are on this machine, if they are."""
        return Path(self.jwks) if self.jwks.startswith("/") else None

    @property
    def discovery(self) -> str:
        """The address of the discovery document (OpenID Connect Discovery 1.0, section 4)."""
        return f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


_decoder = msgspec.json.Decoder(list[Issuer])


def parse(text: str) -> tuple[Issuer, ...]:
    """Read the setting. Raises `ValueError` with the remedy."""
    try:
        issuers = _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(
            'give a list in JSON, such as [{"issuer": "https://id.example.org", "audience":'
            f' "chat"}}] ({error})'
        ) from None
    if len(issuers) > MOST_ISSUERS:
        raise ValueError(f"give at most {MOST_ISSUERS} issuers")
    known = set()
    for issuer in issuers:
        _check(issuer)
        # A token names its issuer, and nothing else would choose between two entries of that name.
        if issuer.issuer in known:
            raise ValueError(f"name issuer {issuer.issuer!r} once")
        known.add(issuer.issuer)
    return tuple(issuers)


def _check(issuer: Issuer) -> None:
    for field in ("issuer", "audience", "name_claim"):
        if not getattr(issuer, field):
            raise ValueError(f"{issuer.issuer!r}: {field} is empty: give one")
    if "" in issuer.audiences:
        raise ValueError(f"{issuer.issuer!r}: one of audiences is empty: give them names")
    if issuer.groups_prefix and not issuer.groups_claim:
        raise ValueError(f"{issuer.issuer!r}: give groups_claim with groups_prefix, or neither")
    if issuer.file is None:
        # What is not fetched may be any name that tokens have.
        require_safe(issuer.jwks or issuer.issuer)
        return
    # Imported here: it takes 11 MB of memory, which replicas without tokens save.
    from chat.auth import keys

    try:
        keys.read_file(issuer.file)
    except keys.KeysError as error:
        raise ValueError(f"{issuer.jwks}: {error}") from None


def require_safe(url: str) -> None:
    """Raise `ValueError` unless nobody between here and the server of `url` can change what it
    says.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise ValueError(f"{url!r}: give an address such as https://id.example.org") from None
    if not host or parts.scheme not in ("https", "http") or parts.username is not None:
        raise ValueError(f"{url!r}: give an address such as https://id.example.org")
    if parts.scheme == "http" and not _is_here(host):
        raise ValueError(
            f"{url!r}: give an https address: keys that others can change prove nothing"
        )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
