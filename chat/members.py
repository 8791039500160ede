"""Private rooms: people make them, and invite others. Only members may use one.

A direct room is a private room of two people. Either of them opens it, and nobody else can ever get
in: its name is a hash of both authors, so two replicas that open it at the same moment choose the
same name. Authors are public, so the hash has a secret. The first replica that needs the secret
puts it into the register; of several, the first counts. A direct room has no owners. Who leaves it
may open it again. While one of them blocks the other, nobody opens it or writes in it. A block
without a room is a record of a room without members.

All replicas agree on them (`chat.agreed`). A record of the register has the whole state of a room,
and a version. Whoever changes a room writes the next version of the state that they know. Of a
room's records, the highest version counts; of two with the same version, the first in the
register's order. So of two changes at the same moment, one counts and the other does not: its
replica tries again with the new state, if the change may still be made. An invitation for three
never lets four in, and whoever was removed changes nothing any more.

Each record has a key of its own, because a register may forget all but the last value of a key, and
the last of two records is the one that does not count. Records that do not count are removed later.
That changes nothing: what counts depends on the highest version alone. A room that has ended keeps
its last record for a day, so that a record on its way cannot bring it back.

Invitations are tokens. The register has a hash of each. Nobody can guess a token, nor the name of a
room, which the chat chooses.

Each member has the name under which they came. It is for people: nothing is decided by it. Records
of earlier releases have none, and one that gets too large loses its longest names.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import itertools
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from chat import bounds, protocol
from chat.agreed import Agreed, Applied, Place, decode
from chat.limits import Budgets
from chat.protocol import ErrorCode, Invitation, MemberList, RefusedError, RoomList
from chat.relay.base import UnavailableError
from chat.relay.register import Kept, Register
from chat.rights import Rights, is_private

# Maximum number of rooms, and of their members and invitations together. Each of these takes some
# 500 bytes, or up to 800 if names are as long as they may be.
MOST_ROOMS = 10_000
MOST_PLACES = 100_000
# Maximum number of rooms that a person is in. Those that they ended within `ENDED_SECONDS` count,
# too, so that nobody fills the register by making rooms and ending them.
MOST_OF_ONE = 50
MOST_INVITATIONS = 20
# The same for direct rooms, of which each takes 2.3 to 2.8 kB. A person's are those that they are
# in, and those that they opened.
MOST_DIRECT = 20_000
MOST_DIRECT_OF_ONE = 500
# Of all these, blocks without a room: they last, so they must leave places for rooms. And how many
# others a person blocks, with a room or without.
MOST_BLOCKS = 5_000
MOST_BLOCKS_OF_ONE = 100
# A record has at most some 11 kB, besides names.
MOST_BYTES = 16_384
# How many changes a person may try on this replica: per second for long (one in a minute), and at
# once. Each writes a whole record, so they decide how fast the topic grows until it is compacted.
# A budget of each room would be worse: an owner could use it up, and the others not remove them.
RATE = 1 / 60
BURST = 100
# The same for rooms that they make: one in five minutes.
MAKE_RATE = 1 / 300
MAKE_BURST = 20
# The same for direct rooms that they open, and people without a room whom they block: one in three
# minutes.
OPEN_RATE = 1 / 180
OPEN_BURST = 20
# How often a change is tried while others change the same room through other replicas.
ATTEMPTS = 10
# How long the record of a room is kept that has ended. No record takes nearly as long to be stored.
ENDED_SECONDS = 86_400
# Records that are removed after a change.
SWEPT = 20
_SECRET_BYTES = 24

_Author = Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.AUTHOR}\Z")]
_Name = Annotated[str, msgspec.Meta(max_length=bounds.USER_BYTES)]
_People = Annotated[list[_Author], msgspec.Meta(max_length=bounds.PRIVATE_MEMBERS)]


class Invited(msgspec.Struct, frozen=True):
    """An open invitation. `id`: the hash of its token. `by`: who made it. `until`: when it ends, in
    seconds since the epoch. `left`: how many may still use it.
    """

    id: _Author
    by: _Author
    until: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    left: Annotated[int, msgspec.Meta(ge=1, le=bounds.PRIVATE_MEMBERS)]


class Role(enum.Enum):
    OWNER = enum.auto()
    MEMBER = enum.auto()
    # May not write: alone in a direct room, or one of its two blocks the other.
    READER = enum.auto()


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record of the register. Others may write to the topic, so all bounds are checked.

    `id` tells records of the same version apart. `by`: who made the change. `members` are those who
    are no owners, the one who has been in the room for longest first. `pair`: who opened a direct
    room, and the other one; empty for other rooms. `blocked`: those of them who block the other.
    `names`: of the owners and then of the members, in their order; empty where it is not known.
    """

    v: Literal[1]
    room: Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.PRIVATE_ROOM}\Z")]
    version: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    by: _Author
    owners: _People
    members: _People
    invitations: Annotated[list[Invited], msgspec.Meta(max_length=MOST_INVITATIONS)]
    pair: Annotated[list[_Author], msgspec.Meta(max_length=2)] = []
    blocked: Annotated[list[_Author], msgspec.Meta(max_length=2)] = []
    names: list[_Name] = []

    def __post_init__(self) -> None:
        if self.names and len(self.names) != len(self.owners) + len(self.members):
            raise ValueError("each name is that of an owner or a member")
        if not {*self.blocked} <= {*self.pair}:
            raise ValueError("only the two of a direct room block each other")
        if self.pair and (
            len(self.pair) != 2
            or self.owners
            or self.invitations
            or not {*self.members} <= {*self.pair}
        ):
            raise ValueError("a direct room has no owners, and no other members than its two")

    @property
    def key(self) -> str:
        return f"{self.room}:{self.version}:{self.id}"

    @property
    def is_direct(self) -> bool:
        return bool(self.pair)

    def other(self, author: str) -> str:
        """Of a direct room."""
        return self.pair[self.pair[0] == author]

    @property
    def named(self) -> dict[str, str]:
        """The names of owners and members that are known, by author."""
        people = zip((*self.owners, *self.members), self.names, strict=False)
        return {author: protocol.harmless_user(name) for author, name in people if name}

    def with_people(self, owners: list[str], members: list[str], named: Mapping[str, str]) -> State:
        """With these owners and members instead, and those of the names that are theirs."""
        names = [named.get(author, "") for author in (*owners, *members)]
        names = names if any(names) else []
        return replace(self, owners=owners, members=members, names=names)

    @property
    def roles(self) -> dict[str, Role]:
        """Of all who may read. Nobody: the room has ended."""
        if self.is_direct:
            writes = len(self.members) == 2 and not self.blocked
            return dict.fromkeys(self.members, Role.MEMBER if writes else Role.READER)
        if not self.owners:
            return {}
        return dict.fromkeys(self.members, Role.MEMBER) | dict.fromkeys(self.owners, Role.OWNER)


class Secret(msgspec.Struct, frozen=True):
    """A record of the register: what the names of direct rooms are hashed with. The first counts,
    and is never removed.
    """

    v: Literal[1]
    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    secret: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]

    @property
    def key(self) -> str:
        return f"secret:{self.id}"


# The next state of a room; None: nothing is to change. Raises `RefusedError`.
Change = Callable[[State | None], State | None]
_decoder = msgspec.json.Decoder(State)
_secret_decoder = msgspec.json.Decoder(Secret)
_encoder = msgspec.json.Encoder()
_WRITERS = (Role.OWNER, Role.MEMBER)
_KEY = re.compile(rf"({bounds.PRIVATE_ROOM}):[0-9]{{1,16}}:[0-9a-f]{{16}}".encode())


class Watcher(Protocol):
    """Somebody who is connected."""

    def opened(self, room: str, author: str, name: str) -> None:
        """Their direct room with this author is open now. `name`: theirs; empty: not known."""


class Members(Agreed["_Table"]):
    """`clock`: seconds since the epoch."""

    what = "members of private rooms"

    def __init__(self, register: Register, clock: Callable[[], float] = time.time) -> None:
        super().__init__(register)
        self._clock = clock
        self._budgets = Budgets(RATE, BURST)
        self._makers = Budgets(MAKE_RATE, MAKE_BURST)
        self._openers = Budgets(OPEN_RATE, OPEN_BURST)
        # Those who are connected, by their authors.
        self._watchers: dict[str, set[Watcher]] = {}
        # One change of a room at a time, on this replica.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._sweeping: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        await super().stop()

    def count(self, *, direct: bool) -> int:
        """How many rooms take a place: direct ones, or the others. Those that ended within
        `ENDED_SECONDS` do, and blocks without a room.
        """
        return self._table.rooms(self._ended_before, direct=direct)

    @property
    def blocks(self) -> int:
        """How many of these are blocks without a room."""
        return self._table.blocks

    def rights(self, author: str, rights: Rights) -> Rights:
        return _MemberRights(self, author, rights)

    def role(self, room: str, author: str) -> Role | None:
        """None: they are no member."""
        return self._table.roles(room).get(author)

    def partner(self, room: str, author: str) -> str:
        """The other one of a direct room that somebody is in; empty for other rooms."""
        state = self._table.get(room)
        if state is None or not state.is_direct or author not in state.members:
            return ""
        return state.other(author)

    def _name(self, room: str, author: str) -> str:
        state = self._table.get(room)
        return state.named.get(author, "") if state is not None else ""

    def watch(self, author: str, watcher: Watcher) -> None:
        """Tell somebody of their direct rooms, until `unwatch`."""
        self._watchers.setdefault(author, set()).add(watcher)

    def unwatch(self, author: str, watcher: Watcher) -> None:
        watchers = self._watchers[author]
        watchers.discard(watcher)
        if not watchers:
            del self._watchers[author]

    # What people ask for. All of it raises `RefusedError`; `unavailable`: it may count, or not.
    # `name`: that of `by`, who comes into the room; empty: it is not known.

    def rooms(self, author: str) -> list[str]:
        """The private rooms that somebody is in."""
        return sorted(room for room in self._table.of(author) if author in self._table.roles(room))

    def listed(self, author: str, cid: str) -> RoomList:
        """The same, as the person is told it."""
        rooms = self.rooms(author)
        partners = {room: self.partner(room, author) for room in rooms}
        return RoomList(
            cid,
            rooms,
            [room for room in rooms if self.role(room, author) is Role.OWNER],
            {room: partner for room, partner in partners.items() if partner},
            sorted(self._table.blocked(author)),
            {
                partner: name
                for room, partner in partners.items()
                if partner and (name := self._name(room, partner))
            },
        )

    def show(self, room: str, by: str, cid: str) -> MemberList:
        """Who may use a room of theirs. Invitations are for owners."""
        state = _of_member(self._table.get(room), by)
        answer = MemberList(cid, room, state.owners, state.members, state.named)
        if by in state.owners:
            answer.invitations = [
                Invitation(one.id, one.by, 1000 * one.until, one.left) for one in self._open(state)
            ]
        return answer

    async def make(self, by: str, name: str = "") -> str:
        """Make a room. Returns its name."""
        self._charge(by)
        self._require_place(by)
        if self._table.full(self._ended_before, direct=False):
            raise _full("There are as many private rooms here as there may be")
        if not self._makers.of(by).take():
            raise RefusedError(
                ErrorCode.RATE_LIMITED,
                f"Too fast: make one private room in {1 / MAKE_RATE:.0f} seconds.",
            )
        room = f"private-{secrets.token_hex(16)}"

        def change(_: State | None) -> State:
            return State(1, room, 1, _id(), by, [], [], []).with_people([by], [], {by: name})

        await self._change(room, change)
        return room

    async def open(self, other: str, by: str, name: str = "") -> str:
        """Open the direct room with another person, unless both are in it. Returns its name."""
        room = self._table.direct_room(other, by)
        if self.role(room, by) is Role.MEMBER:
            return room
        self._charge(by)
        self._charge_opener(by)
        room = await self._direct_room(other, by)

        def change(state: State | None) -> State | None:
            if state is not None and by in state.blocked:
                raise RefusedError(ErrorCode.BAD_AUTHOR, "You block this person: end that first.")
            if state is not None and other in state.blocked:
                raise protocol.not_available()
            if state is not None and len(state.members) == 2:
                return None
            self._require_direct(room, by)
            if self._has_enough(room, other):
                raise protocol.not_available()
            pair = state.pair if state is not None and state.members else [by, other]
            version = state.version + 1 if state else 1
            named = (state.named if state else {}) | {by: name}
            opened = State(1, room, version, _id(), by, [], [], [], pair)
            return opened.with_people([], [by, other], named)

        await self._change(room, change)
        return room

    async def block(self, other: str, by: str, *, blocked: bool) -> None:
        """Let nobody write in the direct room with another person, nor open it; or end that."""
        self._charge(by)
        room = await self._direct_room(other, by)
        if blocked and self._table.get(room) is None:
            self._charge_opener(by)

        def change(state: State | None) -> State | None:
            if (state is not None and by in state.blocked) is blocked:
                return None
            if state is not None and not blocked:
                new = self._next(state, by)
                return replace(new, blocked=[one for one in new.blocked if one != by])
            self._require_block(by)
            self._require_direct(room, by)
            if state is None:
                if self._table.blocks >= MOST_BLOCKS:
                    raise _full("As many people without a direct room are blocked here as may be")
                return State(1, room, 1, _id(), by, [], [], [], [by, other], [by])
            new = self._next(state, by)
            # A room that has ended is kept for who blocks now, not for who had opened it.
            pair = new.pair if new.members or new.blocked else [by, other]
            return replace(new, pair=pair, blocked=[*new.blocked, by])

        await self._change(room, change)

    async def invite(self, room: str, by: str, seconds: int, uses: int) -> tuple[str, str]:
        """Let so many people in. Returns the invitation's id, and its token."""
        self._charge(by)
        token = f"{room}.{secrets.token_urlsafe(_SECRET_BYTES)}"
        until = int(self._clock()) + seconds
        invitation = Invited(_hash(token), by, until, uses)

        def change(state: State | None) -> State:
            new = self._next(_of_owner(state, by), by)
            if len(new.invitations) >= MOST_INVITATIONS:
                raise _full(f"{room} has {MOST_INVITATIONS} invitations: revoke one")
            self._require_places()
            return replace(new, invitations=[*new.invitations, invitation])

        await self._change(room, change)
        return invitation.id, token

    async def accept(self, token: str, by: str, name: str = "") -> str:
        """Become a member. Returns the name of the room. Who is one uses up no invitation."""
        self._charge(by)
        room, identity = token.rpartition(".")[0], _hash(token)

        def change(state: State | None) -> State | None:
            if state is None:
                raise protocol.no_invitation()
            if by in state.owners or by in state.members:
                return None
            new = self._next(state, by)
            used = [one for one in new.invitations if one.id == identity]
            if not used:
                raise protocol.no_invitation()
            self._require_place(by)
            self._require_places()
            if len(new.owners) + len(new.members) >= bounds.PRIVATE_MEMBERS:
                raise _full(f"The room has {bounds.PRIVATE_MEMBERS} members")
            left = [replace(one, left=one.left - 1) for one in used if one.left > 1]
            others = [one for one in new.invitations if one not in used]
            came = new.with_people(new.owners, [*new.members, by], new.named | {by: name})
            return replace(came, invitations=others + left)

        await self._change(room, change)
        return room

    async def revoke(self, room: str, invitation: str, by: str) -> None:
        """Take an invitation back, if it is open."""
        self._charge(by)

        def change(state: State | None) -> State | None:
            new = self._next(_of_owner(state, by), by)
            left = [one for one in new.invitations if one.id != invitation]
            return replace(new, invitations=left) if len(left) < len(new.invitations) else None

        await self._change(room, change)

    async def remove(self, room: str, author: str, by: str) -> None:
        """Leave a room, or as an owner, remove somebody, if they are a member. They may know open
        invitations, so all of these are taken back.

        When the last owner leaves, the one who has been a member for longest becomes owner. When
        the last member leaves, the room has ended. In a direct room, the other one may still read.
        """
        self._charge(by)

        def change(state: State | None) -> State | None:
            before = _of_member(state, by) if author == by else _of_owner(state, by)
            if author not in before.owners and author not in before.members:
                return None
            new = self._next(before, by)
            owners = [one for one in new.owners if one != author]
            members = [one for one in new.members if one != author]
            if not owners and not new.is_direct:
                owners, members = members[:1], members[1:]
            kept = new.invitations if author == by and owners else []
            return replace(new.with_people(owners, members, new.named), invitations=kept)

        await self._change(room, change)

    async def promote(self, room: str, author: str, by: str) -> None:
        """Make a member an owner."""
        self._charge(by)

        def change(state: State | None) -> State | None:
            before = _of_owner(state, by)
            if author in before.owners:
                return None
            if author not in before.members:
                raise RefusedError(ErrorCode.BAD_AUTHOR, f"This author is no member of {room}.")
            new = self._next(before, by)
            members = [one for one in new.members if one != author]
            return new.with_people([*new.owners, author], members, new.named)

        await self._change(room, change)

    async def _direct_room(self, one: str, other: str) -> str:
        """The name of the direct room of two authors."""
        if not self._table.secret:
            self._require_present()
            secret = Secret(1, _id(), secrets.token_hex(16))
            await self._store(secret.key, _encoder.encode(secret))
        return self._table.direct_room(one, other)

    async def _change(self, room: str, change: Change) -> None:
        lock = self._locks.get(room)
        if lock is None:
            lock = self._locks[room] = asyncio.Lock()
        async with lock:
            for _ in range(ATTEMPTS):
                self._require_present()
                new = change(self._table.get(room))
                if new is None:
                    return
                new = _fitting(new)
                counts = await self._store(new.key, _encoder.encode(new))
                # While everything was read again, nothing told what counted at that time.
                if counts or self._table.get(room) == new:
                    self._sweep(room)
                    return
        raise RefusedError(ErrorCode.UNAVAILABLE, "Others change this room, too: try again.")

    def _require_present(self) -> None:
        """What is known may be old, so nothing can be said about a change, not even that there is
        nothing to do.
        """
        if self.away:
            raise RefusedError(
                ErrorCode.UNAVAILABLE, "Kafka does not say what counts now: try again."
            )

    def _next(self, state: State, by: str) -> State:
        """The next version, without invitations that are over."""
        return replace(
            state, version=state.version + 1, id=_id(), by=by, invitations=self._open(state)
        )

    def _open(self, state: State) -> Sequence[Invited]:
        now = self._clock()
        return [one for one in state.invitations if one.until > now]

    @property
    def _ended_before(self) -> float:
        """Rooms that ended before this time count no more, also while their records are there."""
        return self._clock() - ENDED_SECONDS

    def _charge(self, by: str) -> None:
        if not self._budgets.of(by).take():
            raise RefusedError(
                ErrorCode.RATE_LIMITED,
                f"Too fast: change private rooms once in {1 / RATE:.0f} seconds.",
            )

    def _charge_opener(self, by: str) -> None:
        if not self._openers.of(by).take():
            raise RefusedError(
                ErrorCode.RATE_LIMITED,
                "Too fast: open one direct room, or block one person without a room, in"
                f" {1 / OPEN_RATE:.0f} seconds.",
            )

    def _require_place(self, author: str) -> None:
        if self._table.count(author, self._ended_before, direct=False) >= MOST_OF_ONE:
            raise RefusedError(
                ErrorCode.TOO_MANY_ROOMS,
                f"You are in {MOST_OF_ONE} private rooms, with those that you ended today: leave"
                " one that others are in.",
            )

    def _require_direct(self, room: str, author: str) -> None:
        if self._has_enough(room, author):
            raise RefusedError(
                ErrorCode.TOO_MANY_ROOMS,
                f"You have {MOST_DIRECT_OF_ONE} direct rooms: those that you are in, those that you"
                " opened and the others are in, those that you ended today, and those of people"
                " whom you block. Leave some.",
            )
        if self._table.get(room) is None and self._table.full(self._ended_before, direct=True):
            raise _full("There are as many direct rooms here as there may be")

    def _require_block(self, author: str) -> None:
        if sum(1 for _ in self._table.blocked(author)) >= MOST_BLOCKS_OF_ONE:
            raise RefusedError(
                ErrorCode.TOO_MANY_ROOMS,
                f"You block {MOST_BLOCKS_OF_ONE} people: end that for some.",
            )

    def _has_enough(self, room: str, author: str) -> bool:
        """Whether a direct room would be one too many for them."""
        table = self._table
        if room in table.of(author):
            return False
        return table.count(author, self._ended_before, direct=True) >= MOST_DIRECT_OF_ONE

    def _require_places(self) -> None:
        if self._table.places >= MOST_PLACES:
            raise _full("Private rooms have as many members and invitations as there may be")

    # Records that do not count.

    def _sweep(self, room: str) -> None:
        """Remove some, first those of this room."""
        if self._sweeping is None or self._sweeping.done():
            keys = list(itertools.islice(self._table.spare(room, self._ended_before), SWEPT))
            if keys:
                self._sweeping = asyncio.create_task(self._remove(keys))

    async def _remove(self, keys: Iterable[str]) -> None:
        try:
            for key in keys:
                await self._register.remove(key)
        except UnavailableError:
            # A later change removes them.
            return

    # What the register delivers.

    def _new(self) -> _Table:
        return _Table()

    def _apply(self, table: _Table, one: Kept) -> Applied:
        if not one.value:
            return Applied(table.remove(one.key))
        if one.key.startswith(b"secret:"):
            secret = decode(_secret_decoder, one.value, MOST_BYTES)
            if secret is None or secret.key.encode() != one.key:
                return Applied((), foreign=True)
            return Applied((), counts=table.learn(secret))
        state = decode(_decoder, one.value, MOST_BYTES)
        if state is None or state.key.encode() != one.key or not table.accepts(state):
            # After compaction, it is all that is left of its key. So it ends what had the key.
            return Applied(table.remove(one.key), foreign=True)
        changed = table.put(state, one.ts / 1000 or self._clock())
        return Applied(changed, counts=table is self._table and table.get(state.room) is state)

    def _tell(self, changed: Iterable[Place]) -> None:
        changed = tuple(changed)
        super()._tell(changed)
        for room, author in changed:
            partner = self.partner(room, author)
            if partner and self.role(room, author) is Role.MEMBER:
                for watcher in tuple(self._watchers.get(author, ())):
                    watcher.opened(room, partner, self._name(room, partner))

    def _differences(self, before: _Table, after: _Table) -> Iterable[Place]:
        return before.differences(after)


class _Record(NamedTuple):
    """`stored`: when it was, in seconds since the epoch."""

    state: State
    stored: float


class _Table:
    """What the register holds: the last value of each key, in order. All else follows from that."""

    def __init__(self) -> None:
        # Empty until it is known.
        self.secret = ""
        self._records: dict[str, dict[str, _Record]] = {}
        # Of each room, the one that counts.
        self._counting: dict[str, _Record] = {}
        # The members of each room that has any.
        self._roles: dict[str, dict[str, Role]] = {}
        # The rooms of each person, also those that they ended, and direct ones that they opened, or
        # whose other person they block.
        self._of: dict[str, set[str]] = {}
        # Rooms that have other records than the one that counts; and those that have none, and
        # have ended, the first of them first.
        self._crowded: dict[str, None] = {}
        self._ended: dict[str, None] = {}
        # Members and open invitations of all rooms but direct ones.
        self.places = 0
        # How many rooms have a record that counts, by whether they are direct; and of direct ones,
        # how many are blocks without a room.
        self._rooms = Counter[bool]()
        self.blocks = 0

    def full(self, before: float, *, direct: bool) -> bool:
        """Without rooms that ended before this time."""
        if not direct and self.places >= MOST_PLACES:
            return True
        # Looking at each takes milliseconds, so only if there may be too many.
        most = _most(direct)
        return self._rooms[direct] >= most and self.rooms(before, direct=direct) >= most

    def rooms(self, before: float, *, direct: bool) -> int:
        """How many there are, without those that ended before this time."""
        return self._lasting(self._counting, before, direct=direct)

    def count(self, author: str, before: float, *, direct: bool) -> int:
        """How many rooms a person is in, or ended, but not before this time; and of direct ones,
        opened, or may not be opened because of them.
        """
        return self._lasting(self.of(author), before, direct=direct)

    def _lasting(self, rooms: Iterable[str], before: float, *, direct: bool) -> int:
        return sum(
            self._counting[room].state.is_direct is direct
            and (self._lasts(room) or self._counting[room].stored >= before)
            for room in rooms
        )

    def _lasts(self, room: str) -> bool:
        """Whether it has not ended, or is kept for a block."""
        return room in self._roles or bool(self._counting[room].state.blocked)

    def learn(self, secret: Secret) -> bool:
        """Returns whether it counts."""
        self.secret = self.secret or secret.secret
        return self.secret == secret.secret

    def direct_room(self, one: str, other: str) -> str:
        """The name of the direct room of two authors; empty while there is no secret."""
        if not self.secret:
            return ""
        digest = hashlib.blake2b(
            "".join(sorted((one, other))).encode(),
            digest_size=16,
            key=bytes.fromhex(self.secret),
            person=b"chat direct",
        )
        return f"private-{digest.hexdigest()}"

    def accepts(self, state: State) -> bool:
        """Whether a record has the right name, and is not of a room too many. Replicas that make
        some at the same moment may make a few more than there may be; whoever else may write, any
        number.
        """
        direct = state.is_direct
        if direct and state.room != self.direct_room(*state.pair):
            return False
        return state.room in self._counting or self._rooms[direct] < 2 * _most(direct)

    def get(self, room: str) -> State | None:
        record = self._counting.get(room)
        return record.state if record is not None else None

    def roles(self, room: str) -> Mapping[str, Role]:
        return self._roles.get(room, {})

    def of(self, author: str) -> set[str]:
        return self._of.get(author, set())

    def blocked(self, author: str) -> Iterator[str]:
        """Whom somebody blocks."""
        for room in self.of(author):
            state = self._counting[room].state
            if author in state.blocked:
                yield state.other(author)

    def put(self, state: State, stored: float) -> list[Place]:
        """Returns those whose rights may have changed."""
        records = self._records.setdefault(state.room, {})
        # As in the register, a key that is put again goes to the end.
        records.pop(state.key, None)
        records[state.key] = _Record(state, stored)
        return self._settle(state.room)

    def remove(self, key: bytes) -> list[Place]:
        """The same."""
        found = _KEY.fullmatch(key)
        room = found[1].decode() if found else ""
        if self._records.get(room, {}).pop(key.decode(errors="replace"), None) is None:
            return []
        return self._settle(room)

    def spare(self, first: str, before: float) -> Iterator[str]:
        """Keys of records that do not count, those of room `first` before others; and of rooms that
        ended before this time, once they have no other record.
        """
        crowded = [first] if first in self._crowded else []
        for room in itertools.chain(crowded, (one for one in self._crowded if one != first)):
            counting = self._counting[room]
            yield from (key for key, one in self._records[room].items() if one is not counting)
        for room in self._ended:
            counting = self._counting[room]
            if counting.stored >= before:
                return
            yield counting.state.key

    def differences(self, other: _Table) -> list[Place]:
        places: list[Place] = []
        for room in self._roles.keys() | other._roles.keys():
            places += _changed(room, self.roles(room), other.roles(room))
        return places

    def _settle(self, room: str) -> list[Place]:
        """Find out which record counts now. Returns those whose rights may have changed."""
        records = self._records[room]
        before = self._counting.pop(room, None)
        roles_before = self._roles.pop(room, {})
        if before is not None:
            self._count(before.state, roles_before, -1)
        roles: dict[str, Role] = {}
        if records:
            # The first of those with the highest version.
            record = max(records.values(), key=lambda one: one.state.version)
            state = record.state
            self._counting[room] = record
            if roles := state.roles:
                self._roles[room] = roles
            self._count(state, roles, 1)
        else:
            del self._records[room]
        self._crowded.pop(room, None)
        self._ended.pop(room, None)
        if len(records) > 1:
            self._crowded[room] = None
        elif records and not self._lasts(room):
            self._ended[room] = None
        return _changed(room, roles_before, roles)

    def _count(self, state: State, roles: Mapping[str, Role], sign: int) -> None:
        self._rooms[state.is_direct] += sign
        self.blocks += sign * bool(state.blocked and not roles)
        if not state.is_direct:
            self.places += sign * (len(roles) + len(state.invitations))
        for author in {*(roles or [state.by]), *state.pair[:1], *state.blocked}:
            rooms = self._of.setdefault(author, set())
            if sign > 0:
                rooms.add(state.room)
            else:
                rooms.discard(state.room)
                if not rooms:
                    del self._of[author]


class _MemberRights(Rights):
    """The rights of one person: those of their groups, and in private rooms, those of a member."""

    __slots__ = ("_author", "_members", "_rights")

    def __init__(self, members: Members, author: str, rights: Rights) -> None:
        self._members = members
        self._author = author
        self._rights = rights

    def may_read(self, room: str) -> bool:
        if is_private(room):
            return self._role(room) is not None
        return self._rights.may_read(room)

    def may_write(self, room: str) -> bool:
        if is_private(room):
            return self._role(room) in _WRITERS
        return self._rights.may_write(room)

    def may_moderate(self, room: str) -> bool:
        if is_private(room):
            return self._role(room) is Role.OWNER
        return self._rights.may_moderate(room)

    def may_ban(self) -> bool:
        return self._rights.may_ban()

    def _role(self, room: str) -> Role | None:
        return self._members.role(room, self._author)


def _most(direct: bool) -> int:
    return MOST_DIRECT if direct else MOST_ROOMS


def _changed(room: str, before: Mapping[str, Role], after: Mapping[str, Role]) -> list[Place]:
    return [
        (room, author)
        for author in before.keys() | after.keys()
        if before.get(author) != after.get(author)
    ]


def _of_member(state: State | None, author: str) -> State:
    """Raises `RefusedError`: also for a room that is not there."""
    if state is None or (author not in state.owners and author not in state.members):
        raise protocol.no_room()
    return state


def _of_owner(state: State | None, author: str) -> State:
    state = _of_member(state, author)
    if author not in state.owners:
        raise protocol.not_moderator(state.room)
    return state


def _fitting(state: State) -> State:
    """Without its longest names, if the record would be too large with them."""
    excess = len(_encoder.encode(state)) - MOST_BYTES
    if excess <= 0:
        return state
    names = list(state.names)
    for at in sorted(range(len(names)), key=lambda at: len(names[at]), reverse=True):
        if excess <= 0:
            break
        excess -= len(_encoder.encode(names[at])) - len('""')
        names[at] = ""
    return replace(state, names=names)


def _id() -> str:
    return secrets.token_hex(8)


def _hash(token: str) -> str:
    digest = hashlib.blake2b(token.encode(), digest_size=16, person=b"chat invitation")
    return digest.hexdigest()


def _full(why: str) -> RefusedError:
    return RefusedError(ErrorCode.FULL, f"{why}.")
