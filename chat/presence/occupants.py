"""What is known of a room's people: who holds which name, and what its members are told of it."""

from __future__ import annotations

from typing import NamedTuple

from chat import protocol
from chat.presence.names import looks_of

# Changes of one room are told to so many members a second: the more there are, the rarer. It is
# what keeps a storm of joins from costing its square.
TOLD_PER_SECOND = 2000


class Holder(NamedTuple):
    """Who holds a name, and where. The first of several, in this order, has the better right."""

    since: int
    key: str
    user: str
    replica: str


class Occupants:
    """All the people of one room, on whatever replica.

    Whatever changes who is shown under a name is remembered for the members.
    """

    __slots__ = ("_holders", "_shown", "_typed", "changed", "due", "named", "room")

    def __init__(self, room: str) -> None:
        self.room = room
        # By what the name looks like; most have one holder, a person on two replicas has two.
        self._holders: dict[str, tuple[Holder, ...]] = {}
        # The names that members are told of: of several that look alike, the one with the best
        # right to it.
        self._shown: set[str] = set()
        # Who came or went since members were told, and not before when they are told again.
        self.changed: set[str] = set()
        self.due = 0.0
        # Whether members have a list to which changes can be told.
        self.named = True
        # When typing was last passed on.
        self._typed: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._shown)

    def holders(self, user: str) -> tuple[Holder, ...]:
        """Who holds the name, or one that looks like it; who has the best right comes first."""
        looks = looks_of(user)
        if len(looks) == 1:
            return self._holders.get(looks[0], ())
        return tuple(sorted({one for look in looks for one in self._holders.get(look, ())}))

    def put(self, holder: Holder) -> tuple[Holder, ...]:
        """One more holds the name; returns all who do."""
        for look in looks_of(holder.user):
            self._holders[look] = tuple(sorted((*self._holders.get(look, ()), holder)))
        holders = self.holders(holder.user)
        self._show({one.user for one in holders})
        return holders

    def remove(self, user: str, replica: str) -> Holder:
        holders = self.holders(user)
        (gone,) = (one for one in holders if (one.user, one.replica) == (user, replica))
        alike = {holder.user for holder in holders}
        for look in looks_of(user):
            left = tuple(
                holder
                for holder in self._holders[look]
                if (holder.user, holder.replica) != (user, replica)
            )
            if left:
                self._holders[look] = left
            else:
                del self._holders[look]
        self._show(alike)
        if not any(holder.user == user for holder in self.holders(user)):
            self._typed.pop(user, None)
        return gone

    def whole(self, shown: int) -> protocol.Presence:
        """Everyone, as far as they are to be named: not if they are more than `shown`."""
        count = len(self)
        if count > shown:
            # Whoever is told this has no list to which changes could be told.
            self.named = False
            return protocol.Presence(self.room, count)
        return protocol.Presence(self.room, count, sorted(self._shown))

    def changes(self, shown: int, now: float) -> protocol.Presence:
        """What changed since this was asked last."""
        count = len(self)
        changed, self.changed = self.changed, set()
        listed, self.named = self.named, count <= shown
        self.due = now + count / TOLD_PER_SECOND
        if count and not (listed and self.named):
            return self.whole(shown)
        present = changed & self._shown
        return protocol.Presence(
            self.room, count, joined=sorted(present), left=sorted(changed - present)
        )

    def types(self, user: str, seconds: float, now: float) -> bool:
        """Somebody types; whether it is worth telling: not within `seconds` of the last time."""
        if now - self._typed.get(user, -seconds) < seconds:
            return False
        self._typed[user] = now
        return True

    def _show(self, users: set[str]) -> None:
        """See which of these are to be shown now, and remember for the members what changed."""
        shown = {user for user in users if self._is_best(user)}
        self.changed |= shown ^ (users & self._shown)
        self._shown -= users
        self._shown |= shown

    def _is_best(self, user: str) -> bool:
        holders = self.holders(user)
        return bool(holders) and holders[0].user == user
