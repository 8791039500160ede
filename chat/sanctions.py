"""Sanctions: moderators mute people in a room, or ban them from it or from the whole chat, for a
time.

All replicas agree on them (`chat.agreed`), and each knows all of them. Of a person in a room, only
the last one in the register's order counts, which may be the end of the one before.

`rights` takes from a person's rights, which are those of their groups, what a sanction forbids. So
every way to a room that asks for rights obeys, at once. Whoever may moderate a room is not touched
by sanctions there: moderators cannot lock each other out.

A ban from the whole chat is one of the room `EVERYWHERE`, which is the name of none. No token of
its person counts until it ends (`Rights.banned_until`). Those who may make such bans are not
touched by them. They have places of their own: moderators of rooms could fill those of all rooms.

Private rooms have none: an owner removes a member instead (`chat.members`). Everybody may own such
rooms, and could fill the table, which is bounded, so that bans of other rooms would be forgotten.

Nothing here depends on whether there is such a person: an author is a hash, and nobody has a list.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from chat import bounds, protocol
from chat.agreed import Agreed, Applied, Place, decode
from chat.limits import Budgets
from chat.protocol import EVERYWHERE, ErrorCode, RefusedError, SanctionList
from chat.relay.register import Kept, Register
from chat.rights import Rights, is_private

log = logging.getLogger("chat.sanctions")

# Maximum number of sanctions in all rooms, and in one room, or from the whole chat. More are
# refused. Each takes some 400 bytes.
MOST = 20_000
MOST_IN_ROOM = 1000
# Beyond so many bans from the whole chat, some are forgotten. Replicas that each accept one more at
# the same moment come nowhere near it.
MOST_EVERYWHERE = 2 * MOST_IN_ROOM
# A record is some 190 bytes.
MOST_BYTES = 1024
# How many a moderator may make on this replica: per second for long, and at once.
RATE = 1
BURST = 100
# A replica's clock may be so far ahead of the log's, in seconds.
_AHEAD = 600
# Of those that end at the same moment, so many are removed in one turn of the event loop, which
# takes some 4 ms.
ENDS_IN_A_TURN = 1000
# The timer for the next end waits at most so long: the clock may be set meanwhile.
LONGEST_WAIT = 60.0

What = Literal["mute", "ban"]


class Sanction(msgspec.Struct, frozen=True, gc=False):
    """A record of the register. Others may write to the topic, so all bounds are checked.

    `until`: seconds since the epoch; 0: from now on there is none. `by`: the moderator's author.
    """

    v: Literal[1]
    room: Annotated[str, msgspec.Meta(pattern=rf"\A(?:{bounds.ROOM}|\*)\Z")]
    author: Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.AUTHOR}\Z")]
    what: What
    until: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    by: Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.AUTHOR}\Z")]


class _Known(msgspec.Struct, frozen=True, gc=False):
    what: What
    until: int


_decoder = msgspec.json.Decoder(Sanction)
_encoder = msgspec.json.Encoder()


class Sanctions(Agreed["_Table"]):
    """`clock`: seconds since the epoch."""

    what = "sanctions of moderators"

    def __init__(self, register: Register, clock: Callable[[], float] = time.time) -> None:
        super().__init__(register)
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._budgets = Budgets(RATE, BURST)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await super().stop()

    def __len__(self) -> int:
        return len(self._table)

    def of(self, room: str, author: str) -> _Known | None:
        """What counts now."""
        known = self._table.get(room, author)
        return known if known is not None and self._clock() < known.until else None

    def rights(self, author: str, rights: Rights) -> Rights:
        """The rights of this author: `rights` of their groups, less what sanctions forbid."""
        return _Sanctioned(self, author, rights)

    def listed(self, room: str, cid: str) -> SanctionList:
        """All that count there now, for those who may moderate it."""
        muted: dict[str, int] = {}
        banned: dict[str, int] = {}
        for author, known in self._table.people(room).items():
            if self._clock() < known.until:
                (muted if known.what == "mute" else banned)[author] = known.until * 1000
        return SanctionList(cid, room, muted, banned)

    def seconds(self, known: _Known) -> int:
        """For how many more seconds it counts."""
        return math.ceil(known.until - self._clock())

    async def put(self, what: What, room: str, author: str, seconds: int, by: str) -> None:
        """Mute or ban somebody for so long; 0: end what there is. Returns once this replica obeys.

        Raises `RefusedError`.
        """
        if is_private(room):
            raise RefusedError(
                ErrorCode.BAD_FRAME,
                "Nobody can be muted or banned in a private room: `remove` the member instead.",
            )
        if not self._budgets.of(by).take():
            raise RefusedError(
                ErrorCode.RATE_LIMITED, f"Too fast: mute and ban at most {RATE} per second."
            )
        if seconds and (full := self._table.full(room, author)):
            raise RefusedError(ErrorCode.RATE_LIMITED, f"{full}: lift some first.")
        until = math.ceil(self._clock() + seconds) if seconds else 0
        end = f" until {_shown(until)}" if until else ""
        said = f"{what if until else 'lifted'}: {author} in {room}{end}"
        value = _encoder.encode(Sanction(1, room, author, what, until, by))
        try:
            await self._store(f"{room}:{author}", value)
        except RefusedError as refused:
            log.info("%s, by %s: %s", said, by, refused.message)
            raise
        log.info("%s, by %s", said, by)

    def _new(self) -> _Table:
        return _Table()

    def _apply(self, table: _Table, one: Kept) -> Applied:
        # Empty is how Kafka deletes a key. That ends no sanction: nothing says whose it was.
        if not one.value:
            return Applied(())
        now = self._clock()
        read = _decode(one.ts or now * 1000, one.value)
        return Applied((), foreign=True) if read is None else Applied(table.put(read, now))

    def _differences(self, before: _Table, after: _Table) -> Iterable[Place]:
        return before.differences(after)

    def _expire(self) -> None:
        self._timer = None
        # If there are more, the timer is set again at once. They count no more, timer or not.
        self._tell(self._table.expire(self._clock(), ENDS_IN_A_TURN))

    def _tell(self, changed: Iterable[Place]) -> None:
        """Set the only timer, for the next end, and tell what is different now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        end = self._table.next_end
        if end is not None:
            wait = min(max(end - self._clock(), 0), LONGEST_WAIT)
            self._timer = asyncio.get_running_loop().call_later(wait, self._expire)
        super()._tell(changed)


class _Table:
    """Sanctions by room and author."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, _Known]] = {}
        self._count = 0
        # A heap of when each ends, and whose it is. Some may have been replaced or removed since.
        self._ends: list[tuple[int, Place]] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Place, _Known]]:
        for room, people in self._rooms.items():
            for author, known in people.items():
                yield (room, author), known

    @property
    def next_end(self) -> int | None:
        while self._ends:
            end, place = self._ends[0]
            known = self.get(*place)
            if known is not None and known.until == end:
                return end
            heapq.heappop(self._ends)
        return None

    def get(self, room: str, author: str) -> _Known | None:
        # Most rooms have none.
        people = self._rooms.get(room)
        return None if people is None else people.get(author)

    def people(self, room: str) -> Mapping[str, _Known]:
        return self._rooms.get(room, {})

    def full(self, room: str, author: str) -> str:
        """Why one more for this person cannot be kept; empty if it can."""
        people = self.people(room)
        if author in people:
            return ""
        if len(people) >= MOST_IN_ROOM:
            where = (
                "banned from the whole chat"
                if room == EVERYWHERE
                else "muted or banned in this room"
            )
            return f"{len(people)} people are {where}"
        counted = self._counted(room)
        if room == EVERYWHERE or counted < MOST:
            return ""
        return f"{counted} people are muted or banned here"

    def put(self, sanction: Sanction, now: float) -> list[Place]:
        """Returns those that have changed."""
        place = sanction.room, sanction.author
        if sanction.until <= now:
            return self._remove(place)
        known = _Known(sanction.what, sanction.until)
        if self.get(*place) == known:
            return []
        people = self._rooms.setdefault(sanction.room, {})
        self._count += sanction.author not in people
        people[sanction.author] = known
        heapq.heappush(self._ends, (known.until, place))
        if len(self._ends) > 2 * MOST:
            self._ends = [(one.until, whose) for whose, one in self]
            heapq.heapify(self._ends)
        return [place, *self._forget(sanction.room, now)]

    def expire(self, now: float, most: int) -> list[Place]:
        """Remove those that have ended, `most` at once. Returns whose they were."""
        ended: list[Place] = []
        while len(ended) < most and (end := self.next_end) is not None and end <= now:
            ended += self._remove(self._ends[0][1])
        return ended

    def differences(self, other: _Table) -> list[Place]:
        places = {place for table in (self, other) for place, _ in table}
        return [place for place in places if self.get(*place) != other.get(*place)]

    def _counted(self, room: str) -> int:
        """Bans from the whole chat are counted apart from those of all rooms."""
        everywhere = len(self.people(EVERYWHERE))
        return everywhere if room == EVERYWHERE else self._count - everywhere

    def _forget(self, room: str, now: float) -> list[Place]:
        """If too many are counted with this room's, forget those that have ended, and if the others
        are too many, those that end first. There can be too many because replicas make some
        at the same moment, and because others may write.
        """
        everywhere = room == EVERYWHERE
        most = MOST_EVERYWHERE if everywhere else MOST
        if self._counted(room) <= most:
            return []
        forgotten = self.expire(now, ENDS_IN_A_TURN)
        # The next turns remove the others that have ended.
        if len(forgotten) == ENDS_IN_A_TURN or self._counted(room) <= most:
            return forgotten
        # A tenth at once, so that the log has one line for all of them.
        too_many = self._counted(room) - most * 9 // 10
        alike = (
            (known.until, place) for place, known in self if (place[0] == EVERYWHERE) == everywhere
        )
        first = heapq.nsmallest(too_many, alike)
        for _, place in first:
            forgotten += self._remove(place)
        log.warning(
            "more than %d %s: the %d that end first are forgotten, until %s",
            most,
            "bans from the whole chat" if everywhere else "sanctions",
            too_many,
            _shown(first[-1][0]),
        )
        return forgotten

    def _remove(self, place: Place) -> list[Place]:
        room, author = place
        people = self._rooms.get(room, {})
        if people.pop(author, None) is None:
            return []
        self._count -= 1
        if not people:
            del self._rooms[room]
        return [place]


class _Sanctioned(Rights):
    """The rights of one person, less what moderators have taken."""

    __slots__ = ("_author", "_rights", "_sanctions")

    def __init__(self, sanctions: Sanctions, author: str, rights: Rights) -> None:
        self._sanctions = sanctions
        self._author = author
        self._rights = rights

    def may_read(self, room: str) -> bool:
        if not self._rights.may_read(room) or self.banned_until():
            return False
        known = self._sanction(room)
        return known is None or known.what != "ban"

    def may_write(self, room: str) -> bool:
        return self._rights.may_write(room) and self._sanction(room) is None

    def may_moderate(self, room: str) -> bool:
        return self._rights.may_moderate(room)

    def may_ban(self) -> bool:
        return self._rights.may_ban()

    def banned_until(self) -> int:
        known = self._sanctions.of(EVERYWHERE, self._author)
        return 0 if known is None or self.may_ban() else known.until

    def check_write(self, room: str) -> None:
        if not self.may_write(room):
            known = self._sanction(room)
            raise protocol.read_only(room, self._sanctions.seconds(known) if known else 0)

    def sanctioned_until(self, room: str) -> int:
        # Who may not read it anyway is told nothing of it.
        known = self._sanction(room) if self._rights.may_read(room) else None
        return known.until * 1000 if known else 0

    def _sanction(self, room: str) -> _Known | None:
        known = self._sanctions.of(room, self._author)
        return None if known is None or self.may_moderate(room) else known


def _decode(ts: float, value: bytes) -> Sanction | None:
    """`ts`: when it was stored, in milliseconds since the epoch."""
    read = decode(_decoder, value, MOST_BYTES)
    if read is None or is_private(read.room):
        return None
    if read.room == EVERYWHERE and read.what != "ban":
        return None
    return None if read.until > ts / 1000 + bounds.SANCTION_SECONDS + _AHEAD else read


def _shown(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
