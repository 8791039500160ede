"""Tokens that count no more, although their time is not over: their person has signed out, here or
at the provider.

A revocation names a person, or a session at the provider, and a time; tokens of it that were issued
until then do not count. All replicas share them through a register, and each knows all of them. So
a token is compared with two entries of a dictionary, and Kafka is not asked.

They are kept for as long as a token may count after it was issued. An older token does not count,
because nobody knows any more whether it was revoked: that is the `floor`. If there are more
revocations than `MOST`, the oldest ones are forgotten, and the floor rises to their time. So what
is forgotten is never allowed again.

A revocation counts when the register delivers it, also on the replica that wrote it. So all
replicas know the same ones, whatever their clocks say, and none of these is written again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from chat import bounds
from chat.agreed import Follower, decode
from chat.auth.identity import TOLERANCE, Identity, Logout
from chat.relay.register import Kept, Register

log = logging.getLogger("chat.auth")

# Maximum number of revocations; each takes some 200 bytes.
MOST = 50_000
# A record is some 70 bytes.
MOST_BYTES = 1024
# Connections are looked through at most so often. It takes milliseconds if there are many.
GATHER_SECONDS = 0.1

# Of persons (`author`) and sessions: tokens issued until this time, in seconds since the epoch, are
# revoked.
Revoked = Mapping[str, int]


class Value(msgspec.Struct, frozen=True, gc=False):
    """A record of the register. Others may write to the topic, so all bounds are checked."""

    v: Literal[1]
    of: Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.AUTHOR}\Z")]
    before: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


_decoder = msgspec.json.Decoder(Value)
_encoder = msgspec.json.Encoder()


def covers(revoked: Revoked, author: str, session: str, issued: int) -> bool:
    """Whether a token of this person and session is revoked. `session` may be empty."""
    return issued <= revoked.get(author, -1) or issued <= revoked.get(session, -1)


class Revocations(Follower):
    """`seconds`: for how long a token may count after it was issued. `clock`: seconds since the
    epoch.
    """

    what = "revocations of tokens"

    def __init__(
        self, register: Register, seconds: int, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(register)
        self.seconds = seconds
        self._clock = clock
        self._known: dict[str, int] = {}
        self._forgotten = -1
        # Of which connections have not been looked through yet.
        self._new: dict[str, int] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._on_revoked: Callable[[Revoked], None]

    async def start(self, on_revoked: Callable[[Revoked], None]) -> None:
        """`on_revoked` is told of new revocations, at most every `GATHER_SECONDS`."""
        self._on_revoked = on_revoked
        await self._register.start(self._take)

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await super().stop()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def floor(self) -> int:
        """Tokens that were issued until this time do not count."""
        return max(int(self._clock()) - self.seconds - TOLERANCE, self._forgotten)

    def cover(self, identity: Identity) -> bool:
        """Whether the token is revoked."""
        return identity.issued <= self._forgotten or covers(
            self._known, identity.person.author, identity.session, identity.issued
        )

    async def sign_out(self, identity: Identity) -> None:
        """Revoke the tokens of this one's session, or if it has none, of its person.

        Raises `UnavailableError`.
        """
        # The provider's clock may be ahead.
        before = max(int(self._clock()), identity.issued)
        await self._revoke(identity.session or identity.person.author, before, "sign-out")

    async def log_out(self, logout: Logout) -> None:
        """Revoke what the provider has ended. The same again changes nothing.

        Raises `UnavailableError`.
        """
        by = f"back-channel logout of {logout.issuer}"
        await self._revoke(logout.session or logout.author, logout.issued, by)

    async def _revoke(self, of: str, before: int, by: str) -> None:
        if before <= self._known.get(of, -1):
            return
        # Compaction keeps the last record of a key, and the last one may be an older revocation.
        await self._put_and_read(f"{of}:{before}", _encoder.encode(Value(1, of, before)))
        log.info("%s: tokens of %s that were issued until %s do not count", by, of, _shown(before))

    def _take(self, values: Sequence[Kept]) -> None:
        now = int(self._clock())
        for ts, value, _ in values:
            # Empty is how Kafka deletes a key.
            if value and (read := decode(_decoder, value, MOST_BYTES)):
                # The clock of the replica that wrote it may be ahead. A time in the future would
                # refuse tokens that are issued later. (By the log's clock, because this one may be
                # behind.)
                self._add(read.of, min(read.before, (ts // 1000 or now) + TOLERANCE))
            elif value:
                self.foreign += 1
            self._answer(value, counts=True)

    def _add(self, of: str, before: int) -> None:
        if before <= max(self._known.get(of, -1), self._forgotten):
            return
        if before <= self.floor:
            # This clock may be ahead, and be set back.
            self._forgotten = before
            return
        self._known[of] = before
        if len(self._known) > MOST:
            self._forget()
        self._new[of] = before
        if self._looking is None:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(GATHER_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        new, self._new = self._new, {}
        self._on_revoked(new)

    def _forget(self) -> None:
        """Forget those that are over, and if they are still many, the oldest ones."""
        floor = self.floor
        over = max((before for before in self._known.values() if before <= floor), default=-1)
        self._forgotten = max(self._forgotten, over)
        self._known = {of: before for of, before in self._known.items() if before > floor}
        # A tenth at once, because looking for the oldest takes a while.
        too_many = len(self._known) - MOST * 9 // 10
        if too_many <= 0:
            return
        self._forgotten = sorted(self._known.values())[too_many - 1]
        self._known = {of: before for of, before in self._known.items() if before > self._forgotten}
        log.warning(
            "more than %d revocations: tokens that were issued until %s do not count, whoever's",
            MOST,
            _shown(self._forgotten),
        )


def _shown(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
