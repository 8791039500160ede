"""The audit room: reports of people, and what moderators did to others, for those who may read it.

It is an ordinary room (`CHAT_AUDIT_ROOM`), so all ways to read one are ways to read this one. Its
rule lets nobody write or moderate there: all messages in it are the chat's own, and stay.

What moderators do in rooms that are not private is told after it counts. If that fails, a line in
the replica's log says so: the act itself is in the log, or among the sanctions, with who did it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid

from chat import rights
from chat.hub import Hub
from chat.limits import Budgets
from chat.protocol import ErrorCode, Position, RefusedError, no_message
from chat.room import Member, Person, StoredMessage
from chat.waiting import Waiting

log = logging.getLogger("chat.audit")

# How many messages a person may report on this replica: per second for long (one in a minute), and
# at once.
RATE = 1 / 60
BURST = 10
# Of a text that is reported, so many characters are quoted.
MOST_QUOTED = 2000

# No secret, and no issuer and subject, make this author: their digests are personalised otherwise.
AUTHOR = hashlib.blake2b(digest_size=16, person=b"chat audit").hexdigest()
_CHAT = Person("audit", "", AUTHOR)


class Audit:
    """`room`: its name."""

    def __init__(self, hub: Hub, room: str) -> None:
        self._hub = hub
        self.room = room
        self._budgets = Budgets(RATE, BURST)

    async def report(self, member: Member, room: str, of: str, reason: str, cid: str) -> None:
        """Tell of a message (`of` is its id) in a room that `member` is in. Raises `RefusedError`,
        in the same way for a message that is not there and for one that is deleted.
        """
        by = member.person
        if not self._budgets.of(by.author).take():
            raise RefusedError(
                ErrorCode.RATE_LIMITED,
                f"Too fast: report one message in {1 / RATE:.0f} seconds.",
                retry_after=round(1 / RATE),
            )
        position = Position.parse(of)
        if position is None:
            raise no_message()
        # What people are shown just before the place behind it: as it was edited, if it is there.
        behind = str(position._replace(offset=position.offset + 1, time=0))
        page = await self._hub.before(room, behind, 1, member.address)
        # They may have been removed meanwhile.
        member.rights.check_read(room)
        message = page.messages[-1] if page.messages else None
        if message is None or message.offset != position.offset:
            raise no_message()
        if position.time not in (0, message.time):
            raise no_message()
        # Of each person, a cid is another one: the author is the same.
        own = hashlib.blake2b(f"{by.author}\0{cid}".encode(), digest_size=16).hexdigest()
        waiting = Waiting(_CHAT, rights.ALL, member.address)
        lines = [
            "report",
            *_about(room, of, message),
            f"reported by: {_shown(by)}",
            f"reason: {_quoted(reason)}",
            f"text: {_quoted(message.record.text)}",
        ]
        self._hub.tell(waiting, self.room, "\n".join(lines), own)
        await waiting.id

    async def revise(self, member: Member, room: str, of: str, text: str, cid: str) -> None:
        """As the hub does it. A message of somebody else that is deleted is told once it is."""
        by = member.person
        waiting = Waiting(by, member.rights, member.address)
        message = await self._hub.revise(member, room, of, text, cid, waiting)
        if message is None:
            return
        lines = ["delete", *_about(room, of, message), f"deleted by: {_shown(by)}"]

        def answered(deleted: asyncio.Future[str]) -> None:
            if (error := deleted.exception()) is None:
                self._tell(lines, by)
            else:
                log.warning(
                    "the audit room was told of no deletion, which may count nevertheless: %s",
                    error,
                )

        waiting.id.add_done_callback(answered)

    def sanctioned(self, what: str, room: str, author: str, seconds: int, by: Person) -> None:
        """A moderator has muted or banned somebody; no seconds: lifted that."""
        lines = [what, f"room: {room}", f"author: {author}", f"seconds: {seconds}"]
        self._tell([*lines, f"by: {_shown(by)}"], by)

    def _tell(self, lines: list[str], by: Person) -> None:
        waiting = Waiting(_CHAT, rights.ALL, by.author)
        waiting.id.add_done_callback(_log_failure)
        try:
            self._hub.tell(waiting, self.room, "\n".join(lines), uuid.uuid4().hex)
        except RefusedError as refused:
            waiting.id.set_exception(refused)


def _log_failure(told: asyncio.Future[str]) -> None:
    if not told.cancelled() and (error := told.exception()) is not None:
        log.warning("the audit room was not told what a moderator did: %s", error)


def _about(room: str, of: str, message: StoredMessage) -> list[str]:
    record = message.record
    return [f"room: {room}", f"message: {of}", f"author: {record.author} {record.user}"]


def _shown(person: Person) -> str:
    return f"{person.author} {person.user}"


def _quoted(text: str) -> str:
    """No line of it looks like one of ours."""
    cut = text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…"
    return "".join(f"\n> {line}" for line in cut.split("\n"))
