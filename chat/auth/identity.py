"""What a verified token says, and what those who verify tokens promise."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from chat.rights import Rights
from chat.room import Person

# By how much clocks may differ, in seconds.
TOLERANCE = 60


class TokenError(Exception):
    """The token does not count. The text says why, for the log and for who brought it; nothing in
    it says who somebody is.
    """


class BannedError(TokenError):
    """No token of this person counts now. `until`: seconds since the epoch."""

    def __init__(self, until: int) -> None:
        end = datetime.fromtimestamp(until, UTC).isoformat()
        super().__init__(f"you are banned from this chat until {end}")


class UnverifiableError(Exception):
    """Nothing can be said about a token yet; the text says why."""


class KeysUnavailableError(UnverifiableError):
    """The provider has not told its keys yet."""

    def __init__(self) -> None:
        super().__init__("the keys of the token's issuer are not known yet")


class Identity(NamedTuple):
    """Whom a token is of, when it ends, in seconds since the epoch, and what they may do.

    `issued`: when it was, in whole seconds. `session`: a digest of the session at the provider;
    empty if the token names none.
    """

    person: Person
    until: float
    rights: Rights
    issued: int
    session: str

    @property
    def until_ms(self) -> int:
        """The same in milliseconds, as clients are told times."""
        return round(self.until * 1000)


class Logout(NamedTuple):
    """What a provider says has ended: all of a person (`author`), or one session if there is one.
    `issued`: when it said so, in whole seconds since the epoch.
    """

    issuer: str
    author: str
    session: str
    issued: int


def session_of(issuer: str, sid: str) -> str:
    """A digest that no person has. An issuer's name has no NUL."""
    who = f"{issuer}\0{sid}".encode()
    return hashlib.blake2b(who, digest_size=16, person=b"chat session").hexdigest()


class Verifier(Protocol):
    async def run(self) -> None:
        """Do what has to be done again and again, until cancelled."""

    async def verify(self, token: str) -> Identity:
        """Who it is. Raises `TokenError` and `UnverifiableError`."""

    async def verify_logout(self, token: str) -> Logout:
        """What has ended. Raises `TokenError` and `UnverifiableError`."""
