"""Revisions: which messages of a partition were deleted or edited, as far as the log was read.

A revision is a record of the log, later than its message. Whether a message was revised therefore
depends only on the log after it. A replica knows all revisions from the point on where it began to
read. Whoever wants older messages first lets it learn those before, back to the messages
(`Archive`). So nothing is kept beside the log, and a replica that starts reads no more than before.

A revision counts if the author of the message made it, or a moderator. Whether the log is right
about that is for Kafka's access control: authors are no secrets.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

import msgspec

from chat.relay.base import Entry, Revision

# Revisions that a replica knows in all partitions. Each takes some 300 bytes.
MOST = 50_000
# In the place of an author, for a moderator.
_MODERATOR = ""


class TooManyError(Exception):
    """There are more revisions than may be known."""


class Revised(msgspec.Struct, frozen=True, gc=False):
    """The last revision of a message: its own offset, and whether the message is deleted."""

    at: int
    deleted: bool


# The offset of a message, when the log stored it, and the author for whom it is revised if it is
# theirs.
Target = tuple[int, int, str]


class Revisions:
    """Those of one partition whose offset is `since` or later: at most `most`."""

    def __init__(self, since: int, most: int) -> None:
        self.since = since
        self._most = most
        self._count = 0
        # How often all were forgotten.
        self.forgotten = 0
        # By room, in the order of their own offsets.
        self._rooms: dict[str, dict[Target, Revised]] = {}

    def add(self, entry: Entry) -> bool:
        """The log delivered a revision. Returns whether it changes anything."""
        if self._count >= self._most:
            # Forget all before this one. Who needs them learns them from the log.
            self._rooms.clear()
            self._count = 0
            self.since = entry.offset
            self.forgotten += 1
        target, revised = _read(entry)
        room = self._rooms.setdefault(entry.record.room, {})
        for who in (target, (*target[:2], _MODERATOR)):
            if (known := room.get(who)) is not None and known.deleted:
                return False
        self._count += room.pop(target, None) is None
        room[target] = revised
        return True

    def learn(self, since: int, entries: Iterable[Entry]) -> None:
        """Add those of the log from offset `since` on, up to what is known already.

        Raises `TooManyError`.
        """
        if since >= self.since:
            return
        older: dict[str, dict[Target, Revised]] = {}
        count = self._count
        for entry in entries:
            if not since <= entry.offset < self.since:
                continue
            target, revised = _read(entry)
            room = older.setdefault(entry.record.room, {})
            if target in room and room[target].deleted:
                continue
            count += room.pop(target, None) is None
            room[target] = revised
        if count > self._most:
            raise TooManyError
        for name, room in older.items():
            newer = self._rooms.get(name, {})
            for target in room.keys() & newer.keys():
                if room[target].deleted and not newer[target].deleted:
                    newer[target] = msgspec.structs.replace(newer[target], deleted=True)
                del room[target]
                count -= 1
            self._rooms[name] = room | newer
        self._count = count
        self.since = since

    def of(self, room: str, offset: int, time: int, author: str) -> Revised | None:
        """The last revision of a message, as far as is known."""
        revisions = self._rooms.get(room)
        if revisions is None:
            return None
        last = None
        for who in (author, _MODERATOR):
            revised = revisions.get((offset, time, who))
            if revised is not None and (last is None or revised.deleted):
                last = revised
        return last

    def after(self, room: str, offset: int) -> list[tuple[Target, Revised]]:
        """What was revised in a room after `offset`, newest first."""
        revisions = self._rooms.get(room, {})
        return list(takewhile(lambda item: item[1].at > offset, reversed(revisions.items())))


def _read(entry: Entry) -> tuple[Target, Revised]:
    revision = entry.record
    assert isinstance(revision, Revision)
    author = _MODERATOR if revision.moderator else revision.author
    target = (revision.offset, revision.time, author)
    return target, Revised(entry.offset, not revision.text)
