"""Rooms: who is in one, what was said last, and how a client that was away catches up.

A room never talks to Kafka or to a socket. It is fed by the hub in log order, and that order is the
only truth: nothing here sorts, and nothing is shown to a member before the log has given it a
position. All that a room decides (what is a repeat, what is history) follows from the records of
the window alone, so every replica decides alike, whenever it was started.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, Protocol, Self

import msgspec
from msgspec import UNSET

from chat.protocol import (
    CloseCode,
    Deleted,
    Edited,
    Message,
    Position,
    RefusedError,
    ServerFrame,
    encode,
)
from chat.relay.base import Entry, Record, Revision
from chat.rights import Rights
from chat.times import Times
from chat.websocket.frames import text_frame

# Prefix of `Person.key` if its names are not held after its owner has left. Other replicas
# recognise it by this prefix, because a claim in signals has no other field. One of 16 million
# other keys also begins with it.
PASSING = "000000"


class Person(NamedTuple):
    """Somebody under a name. Connections with the same key are the same person.

    `key` and `author` are digests, for the client's secret is nobody's business: other replicas are
    told `key` and everybody `author`, and neither gives away the other.
    """

    user: str
    key: str
    author: str

    @classmethod
    def without_key(cls, user: str) -> Self:
        """Somebody who cannot prove to be the same person on another connection."""
        return cls(user, PASSING + secrets.token_hex(5), secrets.token_hex(16))

    @classmethod
    def of(cls, user: str, secret: str, *, hold: bool = True) -> Self:
        """`hold`: whether the name stays theirs for a while after they left."""
        key = hashlib.blake2b(secret.encode(), digest_size=8, person=b"chat key").hexdigest()
        author = hashlib.blake2b(secret.encode(), digest_size=16, person=b"chat author")
        if not hold:
            key = PASSING + key[len(PASSING) :]
        return cls(user, key, author.hexdigest())

    @classmethod
    def known(cls, user: str, issuer: str, subject: str) -> Self:
        """Whom an issuer of tokens knows by this subject: the same person on all connections."""
        # An issuer's name has no NUL, so no two pairs are written alike. Nor is one like a key:
        # these have neither.
        who = f"{issuer}\0{subject}".encode()
        key = hashlib.blake2b(who, digest_size=8, person=b"chat subj key").hexdigest()
        author = hashlib.blake2b(who, digest_size=16, person=b"chat subject")
        return cls(user, key, author.hexdigest())


class Outlet(Protocol):
    """Takes whole WebSocket frames for somebody, and must not raise."""

    def push(self, frames: bytes) -> None:
        """Write them together with all that is pushed in this turn of the event loop, or until the
        outlets are uncorked.
        """

    def write(self, frames: bytes) -> None:
        """Write them now, behind what was pushed: cheaper, if nothing else is to follow."""

    def hold(self) -> None:
        """Something else is to follow: push even what is written."""

    def offer(self, frames: bytes) -> bool:
        """Push what may be left out (presence, typing), unless too much waits for the client
        already; whether it was taken.
        """


class Outlets(Protocol):
    """All outlets together."""

    def cork(self) -> None:
        """Hold back what is pushed from now on, until `uncork` writes it."""

    def uncork(self) -> None: ...


class Member(Protocol):
    """Someone in the room; must not raise."""

    @property
    def person(self) -> Person: ...

    @property
    def connection(self) -> Outlet: ...

    @property
    def address(self) -> str:
        """Whom what is done for this member is charged to."""

    @property
    def rights(self) -> Rights:
        """What the member may do now."""

    @property
    def waiting_bytes(self) -> int:
        """Memory that exists only because the member waits for one message."""

    def put_out(self, room: str, why: RefusedError) -> None:
        """The member has been taken out of the room."""

    def review(self, room: str) -> None:
        """What the member may do in the room may have changed."""

    def close(self, code: CloseCode, reason: str) -> None: ...


def frame_of(frame: ServerFrame) -> bytes:
    """As an outlet takes it."""
    return text_frame(encode(frame))


# What a message is known by in its room: its author, and the author's id for it.
Key = tuple[str, str]

# What is kept takes so much in addition to its strings, in bytes: a message (`StoredMessage`), what
# the window knows of a record (`First`), and a room of which it knows any. (A message also has the
# name of its room, which is counted as if it were long.)
_MESSAGE_BYTES = 340
_KNOWN_BYTES = 432
ROOM_BYTES = 1400
# An encoded message that is larger than it was counted, by this factor, is not kept.
_MISCOUNTED = 1.15


def key_of(record: Record) -> Key:
    return record.author, record.cid


class First(msgspec.Struct, frozen=True, gc=False):
    """Where a message was first, when the log took it (milliseconds since the epoch), and a hash of
    its text: the same author's other text under the same cid is another message. (Python's own
    hash, which nobody outside this process can aim at.)
    """

    offset: int
    time: int
    text: int


def size_of(record: Record) -> int:
    """What it takes to keep a record, in bytes, also when it is encoded."""
    text = record.text
    # Where not all is ASCII, its UTF-8 may be larger.
    size = sys.getsizeof(text) if text.isascii() else max(sys.getsizeof(text), 3 * len(text))
    return _MESSAGE_BYTES + size + sys.getsizeof(record.user)


def size_known(key: Key) -> int:
    """What it takes to know that a record was there, in bytes."""
    return _KNOWN_BYTES + sys.getsizeof(key[1])


class EditedRecord(Record, frozen=True, gc=False):
    """A message with the text of a later record, which the log stored at `edited`."""

    edited: int = 0


_message_decoder = msgspec.json.Decoder(Message)


class StoredMessage(msgspec.Struct, gc=False):
    """A message of a room's history. It is encoded once, and not before somebody is to see it."""

    offset: int
    epoch: str
    partition: int
    time: int
    _content: Entry | bytes

    @property
    def position(self) -> Position:
        """Its id."""
        return Position(self.epoch, self.partition, self.offset, self.time)

    @property
    def size(self) -> int:
        """What it takes in memory, in bytes."""
        content = self._content
        if isinstance(content, bytes):
            return _MESSAGE_BYTES + sys.getsizeof(content)
        return size_of(content.record) + size_known(key_of(content.record))

    @property
    def payload(self) -> bytes:
        content = self._content
        if isinstance(content, bytes):
            return content
        record = content.record
        # Of a copy: who encodes a text leaves its UTF-8 in it.
        text = record.text if record.text.isascii() else record.text[:-1] + record.text[-1:]
        message = Message(
            record.room,
            str(self.position),
            record.user,
            text,
            self.time,
            record.cid,
            record.author,
            record.edited if isinstance(record, EditedRecord) else UNSET,
        )
        # A copy, because the encoder leaves up to a third of what it gives unused.
        payload = bytes(memoryview(encode(message)))
        if len(payload) <= _MISCOUNTED * size_of(record):
            self._content = payload
        return payload

    @property
    def record(self) -> Record:
        content = self._content
        if not isinstance(content, bytes):
            return content.record
        message = _message_decoder.decode(content)
        record = message.room, message.user, message.text, message.cid, message.author
        if message.edited is UNSET:
            return Record(*record)
        return EditedRecord(*record, message.edited)

    def edited_by(self, revision: Entry) -> StoredMessage:
        """The message with the text of this later record."""
        record = self.record
        edited = EditedRecord(
            record.room,
            record.user,
            revision.record.text,
            record.cid,
            record.author,
            revision.ts,
        )
        entry = Entry(self.offset, self.time, edited)
        return StoredMessage(self.offset, self.epoch, self.partition, self.time, entry)


# The history of a room in which nothing was said: there are many of these.
_NOTHING: deque[StoredMessage] = deque(maxlen=0)


class Room:
    """One room on this replica: its members here, its history, and the cids it has seen."""

    __slots__ = (
        "_first",
        "_floor",
        "_history",
        "_last",
        "_size",
        "_unseen",
        "epoch",
        "members",
        "name",
        "partition",
        "times",
        "told",
    )

    def __init__(self, name: str, epoch: str, partition: int, history: int, times: Times) -> None:
        self.name = name
        self.epoch = epoch
        self.partition = partition
        self.times = times
        # In the order in which they joined, which is also the order of their sockets in memory:
        # this makes a write a sixth cheaper.
        self.members: dict[Member, Outlet] = {}
        # The position that its members were told last, or at which the first of them came.
        self.told = -1
        self._size = history
        self._history = _NOTHING
        # The history holds every message after this offset (and the window's floor).
        self._floor = -1
        # Each message of the window, and where it was last if it was repeated.
        self._first: dict[Key, First] = {}
        self._last: dict[Key, int] = {}
        # Frames that were posted and not pushed.
        self._unseen: list[bytes] = []

    @property
    def known(self) -> int:
        """How many messages it would recognise if they came again."""
        return len(self._first)

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost with this object."""
        return not self.members and not self._first

    @property
    def newest(self) -> int:
        """The offset of the newest message of the history; -1 if there is none."""
        return self._history[-1].offset if self._history else -1

    @property
    def seen(self) -> int:
        """The offset up to which every member knows that it has seen everything: a message's id is
        a position.
        """
        return max(self.told, self.newest)

    def position(self, offset: int) -> str:
        return str(Position(self.epoch, self.partition, offset, self.times.at(offset)))

    def first(self, key: Key) -> First | None:
        """The message that the window knows by this; None if it does not."""
        return self._first.get(key)

    def post(self, entry: Entry, key: Key) -> bool:
        """Take what the log delivered next, for `show` to push, unless it is a repeat: returns
        whether it is none.
        """
        offset = entry.offset
        if key in self._first:
            self._last[key] = offset
            return False
        self._first[key] = First(offset, entry.ts, hash(entry.record.text))
        message = StoredMessage(offset, self.epoch, self.partition, entry.ts, entry)
        history = self._history
        if history is _NOTHING:
            history = self._history = deque(maxlen=self._size)
        if len(history) == history.maxlen:
            self._floor = history[0].offset
        history.append(message)
        if self.members:
            self._unseen.append(text_frame(message.payload))
        return True

    def disproves(self, revision: Revision) -> bool:
        """Whether a revision is known to be of somebody who may not make it, or of another message
        that the log has lost.
        """
        message = self.find(revision.offset)
        return message is not None and (
            message.time != revision.time
            or not (revision.moderator or message.record.author == revision.author)
        )

    def revise(self, entry: Entry) -> StoredMessage | None:
        """Take a revision that the log delivered next, for `show` to push. Returns the message if
        it has another text now, and is still in memory.
        """
        revision = entry.record
        assert isinstance(revision, Revision)
        message = self.find(revision.offset)
        edited = None
        if message is not None:
            if revision.text:
                edited = message.edited_by(entry)
            self._replace(message, edited)
        if self.members:
            of, position = (
                str(Position(self.epoch, self.partition, offset, time))
                for offset, time in (
                    (revision.offset, revision.time),
                    (entry.offset, entry.ts),
                )
            )
            frame: ServerFrame = Deleted(self.name, of, position)
            if revision.text:
                frame = Edited(self.name, of, revision.text, entry.ts, position)
            self._unseen.append(frame_of(frame))
        return edited

    def _replace(self, message: StoredMessage, other: StoredMessage | None) -> None:
        kept = (other if one is message else one for one in self._history)
        self._history = deque((one for one in kept if one is not None), maxlen=self._size)
        if not self._history:
            self._history = _NOTHING

    def find(self, offset: int) -> StoredMessage | None:
        """The message at `offset`, if it is in memory and not deleted."""
        return next((one for one in self._history if one.offset == offset), None)

    def show(self, *, alone: bool) -> None:
        """Send what was posted since the last time: built once, joined once, for all members.

        `alone`: no other room has something to say at this moment.
        """
        if not self._unseen:
            return
        frames = b"".join(self._unseen)
        self._unseen.clear()
        # A member may leave because of what it is sent.
        for connection in tuple(self.members.values()):
            if alone:
                connection.write(frames)
            else:
                connection.push(frames)

    def forget(self, offset: int, key: Key) -> First | None:
        """The record at `offset` has left the window: it is history no more, nor its cid known by
        it. Returns the message, if its cid is known no more at all.

        A repeat keeps a cid known for another window. So whether a record is a repeat depends on
        the window before it, and on nothing older that some replicas read and others did not.
        """
        if self._history and self._history[0].offset <= offset:
            self._drop(offset)
        last = self._last.get(key)
        if last is not None:
            if last != offset:
                return None
            del self._last[key]
        return self._first.pop(key)

    def _drop(self, offset: int) -> None:
        history = self._history
        while history and history[0].offset <= offset:
            history.popleft()
        if not history:
            self._history = _NOTHING

    def shed(self, offset: int) -> None:
        """Drop the message at `offset` and those before it from memory; the log has them. Repeats
        are still recognised.
        """
        self._drop(offset)
        self._floor = max(self._floor, offset)

    def recent(self, count: int, size: int) -> list[StoredMessage]:
        """The last messages, oldest first: at most `count`, and `size` bytes unless one alone has
        more.
        """
        found: list[StoredMessage] = []
        for message in islice(reversed(self._history), count):
            size -= len(message.payload)
            if found and size < 0:
                break
            found.append(message)
        found.reverse()
        return found

    def has_before(self, messages: Sequence[StoredMessage], floor: int) -> bool:
        """Whether something may have been said before these last messages of the history."""
        return len(messages) < len(self._history) or self.reaches(floor) >= 0

    def reaches(self, floor: int) -> int:
        """The offset after which the history has every message. `floor` is where the window begins:
        nothing at or before it is known.
        """
        return max(floor, self._floor)

    def after(self, offset: int) -> list[StoredMessage]:
        """The messages of the history after `offset`, oldest first."""
        return [message for message in self._history if message.offset > offset]

    def missed(self, since: int, floor: int) -> list[StoredMessage] | None:
        """What was said after offset `since`, oldest first; None if the history does not reach back
        so far.
        """
        if since < self.reaches(floor):
            return None
        return self.after(since)
