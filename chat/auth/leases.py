"""Connections live longer than tokens. A connection ends with its token, unless another token of
the same person renews it, or when it is revoked.

Nothing here has a timer: a connection asks with each ping whether its token has ended, so that an
idle one costs a number and no more.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Set
from typing import Protocol

from chat.auth.identity import TOLERANCE, BannedError, Identity, Verifier
from chat.auth.revocations import Revocations, Revoked, covers
from chat.rights import Rights
from chat.room import Person

log = logging.getLogger("chat.auth")

# Why a connection is closed.
SIGNED_OUT = "you were signed out"


class OtherPersonError(Exception):
    """The token is of somebody else than the connection."""


class Holder(Protocol):
    """A connection that ends with its token."""

    @property
    def until(self) -> float:
        """When that is, in seconds since the epoch; 0 before it has said hello."""

    @property
    def number(self) -> int:
        """Of no other connection of this process."""

    @property
    def person(self) -> Person: ...

    @property
    def issued(self) -> int:
        """When its token was, as `Identity` has it."""

    @property
    def session(self) -> str:
        """As `Identity` has it."""

    def extend(self, identity: Identity) -> None:
        """Go on with this token, and with what its person may do now."""

    @property
    def rights(self) -> Rights:
        """What its person may do now."""

    def revoke(self, reason: str) -> None:
        """End: the token counts no more."""


class Leases:
    """The connections of this replica, which are `holders` by their numbers, and their tokens.
    `clock`: seconds since the epoch.
    """

    def __init__(
        self,
        verifier: Verifier,
        holders: Mapping[int, Holder],
        revocations: Revocations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = verifier
        self._holders = holders
        self._revocations = revocations
        self._clock = clock
        # Other replicas count their connections, too.
        self._replica = secrets.token_hex(4)

    def has_ended(self, holder: Holder) -> bool:
        """Whether its token counts no more."""
        return self._clock() >= holder.until + TOLERANCE

    def is_revoked(self, identity: Identity) -> bool:
        """Whether a token that was verified before has been revoked since."""
        return self._revocations.cover(identity)

    def end(self, revoked: Revoked) -> None:
        """End the connections of these tokens."""
        ended = 0
        for holder in tuple(self._holders.values()):
            if holder.until and covers(
                revoked, holder.person.author, holder.session, holder.issued
            ):
                holder.revoke(SIGNED_OUT)
                ended += 1
        if ended:
            log.info("closed %d connections whose tokens were revoked", ended)

    def ban(self, authors: Set[str]) -> None:
        """End the connections of those of these people who are banned from the whole chat now."""
        ended = 0
        for holder in tuple(self._holders.values()):
            if holder.until and holder.person.author in authors:
                banned_until = holder.rights.banned_until()
                if banned_until:
                    holder.revoke(str(BannedError(banned_until)))
                    ended += 1
        if ended:
            log.info("closed %d connections of people who were banned", ended)

    async def renew(self, holder: Holder, token: str) -> Identity:
        """Go on with another token. Raises `TokenError`, `OtherPersonError` and
        `UnverifiableError`; the connection then goes on with the one that it has.
        """
        identity = await self._verifier.verify(token)
        self.extend(holder, identity)
        return identity

    def extend(self, holder: Holder, identity: Identity) -> None:
        """Go on with another token, which is verified. Raises `OtherPersonError`."""
        if identity.person.author != holder.person.author:
            raise OtherPersonError
        holder.extend(identity)

    def id_of(self, holder: Holder) -> str:
        """By which its client names the connection."""
        return f"{self._replica}-{holder.number}"

    def find(self, connection: str) -> Holder | None:
        """The connection of this id; None if it is not on this replica, or is no more, or has not
        said hello.
        """
        replica, _, number = connection.partition("-")
        if replica != self._replica or not number.isdecimal() or len(number) > 18:
            return None
        holder = self._holders.get(int(number))
        return holder if holder is not None and holder.until else None
