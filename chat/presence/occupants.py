"""What is known of a room's people: who holds which name, and what its members are told of it."""

from __future__ import annotations

from typing import NamedTuple

from chat import protocol
from chat.presence.names import skeleton

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

    __slots__ = ("_names", "_typed", "changed", "due", "named", "room")

    def __init__(self, room: str) -> None:
        self.room = room
        # By the name's skeleton; most have one holder, a person on two replicas has two.
        self._names: dict[str, tuple[Holder, ...]] = {}
        # Who came or went since members were told, and not before when they are told again.
        self.changed: set[str] = set()
        self.due = 0.0
        # Whether members have a list to which changes can be told.
        self.named = True
        # When typing was last passed on.
        self._typed: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._names)

    def holders(self, user: str) -> tuple[Holder, ...]:
        """Who holds the name, or one that looks like it; who has the best right comes first."""
        return self._names.get(skeleton(user), ())

    def put(self, holder: Holder) -> tuple[Holder, ...]:
        """One more holds the name; returns all who do."""
        before = self.holders(holder.user)
        after = tuple(sorted((*before, holder))) if before else (holder,)
        self._replace(holder.user, before, after)
        return after

    def remove(self, user: str, replica: str) -> None:
        before = self.holders(user)
        after = tuple(
            holder for holder in before if (holder.user, holder.replica) != (user, replica)
        )
        self._replace(user, before, after)

    def whole(self, shown: int) -> protocol.Presence:
        """Everyone, as far as they are to be named: not if they are more than `shown`."""
        count = len(self)
        if count > shown:
            # Whoever is told this has no list to which changes could be told.
            self.named = False
            return protocol.Presence(self.room, count)
        return protocol.Presence(
            self.room, count, sorted(holders[0].user for holders in self._names.values())
        )

    def changes(self, shown: int, now: float) -> protocol.Presence:
        """What changed since this was asked last."""
        count = len(self)
        changed, self.changed = self.changed, set()
        listed, self.named = self.named, count <= shown
        self.due = now + count / TOLD_PER_SECOND
        if count and not (listed and self.named):
            return self.whole(shown)
        present = {user for user in changed if self._is_shown(user)}
        return protocol.Presence(
            self.room, count, joined=sorted(present), left=sorted(changed - present)
        )

    def types(self, user: str, seconds: float, now: float) -> bool:
        """Somebody types; whether it is worth telling: not within `seconds` of the last time."""
        if now - self._typed.get(user, -seconds) < seconds:
            return False
        self._typed[user] = now
        return True

    def _is_shown(self, user: str) -> bool:
        holders = self.holders(user)
        return bool(holders) and holders[0].user == user

    def _replace(self, user: str, before: tuple[Holder, ...], after: tuple[Holder, ...]) -> None:
        if after:
            self._names[skeleton(user)] = after
        else:
            del self._names[skeleton(user)]
        shown = [holders[0].user for holders in (before, after) if holders]
        if len(shown) == 1 or shown[0] != shown[1]:
            self.changed.update(shown)
        if not any(holder.user == user for holder in after):
            self._typed.pop(user, None)
