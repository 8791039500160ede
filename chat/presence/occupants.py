"""What is known of a room's people: who holds which name, and what its members are told of it."""

from __future__ import annotations

import msgspec

from chat import protocol
from chat.presence.names import looks_of

# Changes of one room are told to so many members a second: the more there are, the rarer. It is
# what keeps a storm of joins from costing its square.
TOLD_PER_SECOND = 2000

# A room and somebody's name in it.
Place = tuple[str, str]


class Holder(msgspec.Struct, frozen=True, order=True, gc=False):
    """Who holds a name, and where. The first of several, in this order, has the better right."""

    since: int
    key: str
    user: str
    replica: str
    room: str

    @property
    def place(self) -> Place:
        return self.room, self.user


class Occupants:
    """All the people of one room, on whatever replica.

    There may be as many of these as people. So it holds nothing that can be found out, and the
    changes that members are still to be told are kept by `Presence`.
    """

    __slots__ = ("_count", "_holders", "due", "named")

    def __init__(self) -> None:
        # By what the name looks like; most have one holder, a person on two replicas has two.
        self._holders: dict[int, tuple[Holder, ...]] = {}
        # How many names members are told of: of several that look alike, it is the one with the
        # best right to it.
        self._count = 0
        # Members are not told of changes before then.
        self.due = 0.0
        # Whether members have a list to which changes can be told.
        self.named = True

    def __len__(self) -> int:
        return self._count

    def holders(self, user: str) -> tuple[Holder, ...]:
        """Who holds the name, or one that looks like it; who has the best right comes first."""
        looks = looks_of(user)
        if len(looks) == 1:
            return self._holders.get(looks[0], ())
        return tuple(sorted({one for look in looks for one in self._holders.get(look, ())}))

    def put(self, holder: Holder) -> set[str]:
        """One more holds the name. Returns the names that are shown now and were not, or the other
        way round.
        """
        alike = {holder.user, *(one.user for one in self.holders(holder.user))}
        shown = self._shown(alike)
        for look in looks_of(holder.user):
            self._holders[look] = tuple(sorted((*self._holders.get(look, ()), holder)))
        return self._changed(alike, shown)

    def remove(self, holder: Holder) -> set[str]:
        """One less; returns what `put` does."""
        alike = {one.user for one in self.holders(holder.user)}
        shown = self._shown(alike)
        for look in looks_of(holder.user):
            left = tuple(one for one in self._holders[look] if one is not holder)
            if left:
                self._holders[look] = left
            else:
                del self._holders[look]
        return self._changed(alike, shown)

    def whole(self, room: str, shown: int) -> protocol.Presence:
        """Everyone, as far as they are to be named: not if they are more than `shown`."""
        count = len(self)
        if count > shown:
            # Whoever is told this has no list to which changes could be told.
            self.named = False
            return protocol.Presence(room, count)
        first = {holders[0].user for holders in self._holders.values()}
        return protocol.Presence(room, count, sorted(self._shown(first)))

    def changes(self, room: str, changed: set[str], shown: int, now: float) -> protocol.Presence:
        """What changed since this was asked last: somebody came or went under each of the names."""
        count = len(self)
        listed, self.named = self.named, count <= shown
        self.due = now + count / TOLD_PER_SECOND
        if count and not (listed and self.named):
            return self.whole(room, shown)
        present = self._shown(changed)
        return protocol.Presence(
            room, count, joined=sorted(present), left=sorted(changed - present)
        )

    def _shown(self, users: set[str]) -> set[str]:
        """Those of the names that members are told of."""
        return {
            user for user in users if (holders := self.holders(user)) and holders[0].user == user
        }

    def _changed(self, users: set[str], shown: set[str]) -> set[str]:
        """Which of the names are `shown` no more, or are now; they are counted."""
        now = self._shown(users)
        self._count += len(now) - len(shown)
        return shown ^ now
