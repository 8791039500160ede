"""Connections live longer than tokens. A connection ends with its token, unless another token of
the same person renews it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Protocol

from chat.auth.identity import TOLERANCE, Identity, Verifier
from chat.room import Person
from chat.websocket.wheel import Timed, Wheel


class OtherPersonError(Exception):
    """The token is of somebody else than the connection."""


class Holder(Timed, Protocol):
    """A connection that ends with its token: at its deadline (`Timed`)."""

    @property
    def number(self) -> int:
        """Of no other connection of this process."""

    @property
    def person(self) -> Person: ...


class Leases:
    """The connections of this replica that have a token. `clock`: seconds since the epoch."""

    def __init__(
        self, verifier: Verifier, wheel: Wheel, clock: Callable[[], float] = time.time
    ) -> None:
        self._verifier = verifier
        self._wheel = wheel
        self._clock = clock
        self._holders: dict[int, Holder] = {}
        # Other replicas count their connections, too.
        self._replica = secrets.token_hex(4)

    def begin(self, holder: Holder, until: float) -> None:
        """`until`: when the token ends, in seconds since the epoch."""
        self._holders[holder.number] = holder
        self._wheel.schedule(holder, max(0, until + TOLERANCE - self._clock()))

    async def renew(self, holder: Holder, token: str) -> Identity:
        """Go on with another token. Raises `TokenError`, `OtherPersonError` and
        `KeysUnavailableError`; the connection then goes on with the one that it has.
        """
        identity = await self._verifier.verify(token)
        self.extend(holder, identity)
        return identity

    def extend(self, holder: Holder, identity: Identity) -> None:
        """Go on with another token, which is verified. Raises `OtherPersonError`."""
        if identity.person.author != holder.person.author:
            raise OtherPersonError
        # It may have ended while its token was verified.
        if holder.number in self._holders:
            self.begin(holder, identity.until)

    def end(self, holder: Holder) -> None:
        """The connection is no more."""
        self._holders.pop(holder.number, None)
        self._wheel.cancel(holder)

    def id_of(self, holder: Holder) -> str:
        """By which its client names the connection."""
        return f"{self._replica}-{holder.number}"

    def find(self, connection: str) -> Holder | None:
        """The connection of this id; None if it is not on this replica, or is no more."""
        replica, _, number = connection.partition("-")
        if replica != self._replica or not number.isdecimal() or len(number) > 18:
            return None
        return self._holders.get(int(number))
