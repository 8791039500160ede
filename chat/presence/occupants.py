"""The people in a room: who holds which name, and which changes members are sent."""

from __future__ import annotations

import msgspec

from chat import protocol
from chat.presence.names import looks_of

# Limit on notifications about changes in one room, in members notified per second. The more
# members, the rarer the notifications. Otherwise the cost of many joins at once would grow with
# their square.
TOLD_PER_SECOND = 2000

# A room, and a person's name in it.
Place = tuple[str, str]


class Holder(msgspec.Struct, frozen=True, order=True, gc=False):
    """A person who holds a name, and where. Of several, the first in sort order has priority."""

    since: int
    key: str
    user: str
    replica: str
    room: str

    @property
    def place(self) -> Place:
        return self.room, self.user


class Occupants:
    """All people in one room, on all replicas.

    There may be as many of these objects as people. So they store nothing that can be derived, and
    `Presence` keeps the changes that members have not been sent yet.
    """

    __slots__ = ("_count", "_holders", "due", "named")

    def __init__(self) -> None:
        # By what the name looks like. Most have one holder; a person on two replicas has two.
        self._holders: dict[int, tuple[Holder, ...]] = {}
        # How many names members see. Of names that look alike, only the one with priority counts.
        self._count = 0
        # Members are sent no changes before this time.
        self.due = 0.0
        # Whether members have a list of names that changes can be applied to.
        self.named = True

    def __len__(self) -> int:
        return self._count

    def holders(self, user: str) -> tuple[Holder, ...]:
        """Return the holders of this name and of names that look like it, the one with priority
        first.
        """
        looks = looks_of(user)
        if len(looks) == 1:
            return self._holders.get(looks[0], ())
        return tuple(sorted({one for look in looks for one in self._holders.get(look, ())}))

    def put(self, holder: Holder) -> set[str]:
        """Add a holder. Return the names that became visible or invisible to members."""
        alike = {holder.user, *(one.user for one in self.holders(holder.user))}
        shown = self._shown(alike)
        for look in looks_of(holder.user):
            self._holders[look] = tuple(sorted((*self._holders.get(look, ()), holder)))
        return self._changed(alike, shown)

    def remove(self, holder: Holder) -> set[str]:
        """Remove a holder. Return the names that became visible or invisible to members."""
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
        """Return the full list of names, or only the count if there are more than `shown`."""
        count = len(self)
        if count > shown:
            # Members who get this have no list that changes could be applied to.
            self.named = False
            return protocol.Presence(room, count)
        first = {holders[0].user for holders in self._holders.values()}
        return protocol.Presence(room, count, sorted(self._shown(first)))

    def changes(self, room: str, changed: set[str], shown: int, now: float) -> protocol.Presence:
        """Return what to send to members, given the names that changed since the last call."""
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
        """Return those of the names that members see."""
        return {
            user for user in users if (holders := self.holders(user)) and holders[0].user == user
        }

    def _changed(self, users: set[str], shown: set[str]) -> set[str]:
        """Compare the visible names with those before (`shown`): update the count, return the
        difference.
        """
        now = self._shown(users)
        self._count += len(now) - len(shown)
        return shown ^ now
