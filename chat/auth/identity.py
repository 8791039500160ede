"""What a verified token says, and what those who verify tokens promise."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from chat.rights import Rights
from chat.room import Person

# By how much clocks may differ, in seconds.
TOLERANCE = 60


class TokenError(Exception):
    """The token does not count. The text says why, for the log and for who brought it; nothing in
    it says who somebody is.
    """


class KeysUnavailableError(Exception):
    """The provider has not told its keys yet: nothing can be said about a token."""


class Identity(NamedTuple):
    """Whom a token is of, when it ends, in seconds since the epoch, and what they may do."""

    person: Person
    until: float
    rights: Rights

    @property
    def until_ms(self) -> int:
        """The same in milliseconds, as clients are told times."""
        return round(self.until * 1000)


class Verifier(Protocol):
    async def run(self) -> None:
        """Do what has to be done again and again, until cancelled."""

    async def verify(self, token: str) -> Identity:
        """Who it is. Raises `TokenError` and `KeysUnavailableError`."""
