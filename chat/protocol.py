"""Protocol 1: the frames of clients and server, and their validation.

JSON objects, one per WebSocket text message, told apart by their `type`. docs/protocol.md is the
reader's version; the two change together. Unknown fields are ignored, here by msgspec, so that
either side may learn new ones first. Nothing in this module knows a socket or a log.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from typing import Annotated, NamedTuple

import msgspec
import regex
from msgspec import UNSET, UnsetType

from chat.bounds import (
    AUTHOR,
    CID_LENGTH,
    INVITATION_SECONDS,
    PRIVATE_MEMBERS,
    ROOM,
    SANCTION_SECONDS,
    USER_BYTES,
    USER_GRAPHEMES,
)

VERSION = 1


class Position(NamedTuple):
    """A place in the log: the point just after the record at `offset` (-1: before the first).

    `time` is when the log took that record, in milliseconds since the epoch; 0 where it is not
    known, as in positions that earlier releases wrote. A log that lost its end gives the offset to
    another record, at another time.

    A message's id is the position just after that message. Clients see an opaque string.
    """

    epoch: str
    partition: int
    offset: int
    time: int = 0

    def __str__(self) -> str:
        place = f"{self.epoch}:{self.partition}:{self.offset}"
        return f"{place}:{self.time}" if self.time > 0 else place

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Read what a client handed back; None if this service never wrote it."""
        match = _POSITION.fullmatch(text)
        return cls(match[1], int(match[2]), int(match[3]), int(match[4] or 0)) if match else None


_POSITION = re.compile(
    r"([A-Za-z0-9_-]{1,64}):([0-9]{1,9}):(-1|[0-9]{1,18})(?::([0-9]{1,18}))?", re.ASCII
)


class ErrorCode(enum.StrEnum):
    """Why a frame was refused. Clients may switch on it; later releases may have more codes."""

    BAD_FRAME = "bad_frame"
    HELLO_REQUIRED = "hello_required"
    NOT_JOINED = "not_joined"
    BAD_ROOM = "bad_room"
    BAD_USER = "bad_user"
    BAD_TEXT = "bad_text"
    BAD_CID = "bad_cid"
    CID_USED = "cid_used"
    BAD_POSITION = "bad_position"
    NAME_TAKEN = "name_taken"
    TOO_LONG = "too_long"
    TOO_MANY_ROOMS = "too_many_rooms"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    BAD_TOKEN = "bad_token"
    READ_ONLY = "read_only"
    NO_MESSAGE = "no_message"
    BAD_AUTHOR = "bad_author"
    NOT_MODERATOR = "not_moderator"
    NO_INVITATION = "no_invitation"
    FULL = "full"

    @classmethod
    def _missing_(cls, value: object) -> ErrorCode:
        """A code of a later release: an error like the others, and equal to none of them."""
        code = str.__new__(cls, value)
        code._name_ = code._value_ = str(value)
        return code


class CloseCode(enum.IntEnum):
    """Why a connection was closed (RFC 6455 section 7.4.1 and IANA's registry)."""

    PROTOCOL_ERROR = 1002
    NOT_TEXT = 1003
    NOT_UTF8 = 1007
    POLICY = 1008
    TOO_BIG = 1009
    RESTART = 1012
    TRY_LATER = 1013
    # Of the chat's own.
    TOKEN_ENDED = 4401
    REVOKED = 4403


class RefusedError(Exception):
    """A frame is refused; the connection stays open."""

    def __init__(self, code: ErrorCode, message: str, retry_after: int = 0) -> None:
        """`retry_after`: in how many seconds it may be repeated, if that is known."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after


def name_taken(room: str, user: str) -> RefusedError:
    return RefusedError(
        ErrorCode.NAME_TAKEN,
        f"Somebody else in {room} is called {user}: come with another name.",
    )


def no_room() -> RefusedError:
    """Also for a room that somebody may not read: it is not told from one that cannot be."""
    return RefusedError(
        ErrorCode.BAD_ROOM,
        "There is no such room, or it is not for you. A room is named by 1 to 64 of these: A-Z a-z"
        " 0-9 - _ .",
    )


def read_only(room: str, seconds: int = 0) -> RefusedError:
    """`seconds`: for how long yet, for somebody whom a moderator has muted there."""
    muted = f" A moderator has muted you for another {seconds} s." if seconds else ""
    return RefusedError(ErrorCode.READ_ONLY, f"You may read {room}, but not write in it.{muted}")


def not_moderator(room: str) -> RefusedError:
    return RefusedError(ErrorCode.NOT_MODERATOR, f"You are not a moderator of {room}.")


def no_invitation() -> RefusedError:
    """Also for one that is used up, over or revoked: nothing tells whether there was one."""
    return RefusedError(
        ErrorCode.NO_INVITATION, "There is no such invitation, or not any more: ask for a new one."
    )


def not_available() -> RefusedError:
    """Nothing tells why: somebody may not want to be written to."""
    return RefusedError(ErrorCode.BAD_AUTHOR, "This person is not available.")


def no_message() -> RefusedError:
    """Also for a message of somebody else: nothing tells whether there is one."""
    return RefusedError(ErrorCode.NO_MESSAGE, "There is no such message, or it is not yours.")


def cid_used(cid: str) -> RefusedError:
    return RefusedError(
        ErrorCode.CID_USED,
        f"You said something else under cid {cid} here: say this under another one.",
    )


# In place of a room, in what moderators say: the whole chat. No room has this name.
EVERYWHERE = "*"

# Frames from the client.


class Hello(msgspec.Struct, tag_field="type", tag="hello"):
    """All fields are ignored where the server requires tokens: those say who somebody is."""

    user: str
    # The client's secret: whoever reconnects with it is the same person, and keeps the name.
    key: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{16,64}\Z")] | None = None
    # Whether the name is held for a while after they left. False if the client discards the key
    # then.
    hold: bool = True


class Join(msgspec.Struct, tag_field="type", tag="join"):
    room: str
    since: str | None = None


class Leave(msgspec.Struct, tag_field="type", tag="leave"):
    room: str


class Send(msgspec.Struct, tag_field="type", tag="send"):
    room: str
    text: str
    cid: str


class Delete(msgspec.Struct, tag_field="type", tag="delete"):
    """`id`: the message that is deleted; `cid`: the client's own id for doing so."""

    room: str
    id: str
    cid: str


class Edit(msgspec.Struct, tag_field="type", tag="edit"):
    """The same, for another text of the message."""

    room: str
    id: str
    text: str
    cid: str


class Report(msgspec.Struct, tag_field="type", tag="report"):
    """Tells those who read the audit room of a message; `id`: the message."""

    room: str
    id: str
    reason: str
    cid: str


class Mute(msgspec.Struct, tag_field="type", tag="mute"):
    """`author`: who may not write in the room for so many seconds; 0: end what was before."""

    room: str
    author: str
    seconds: Annotated[int, msgspec.Meta(ge=0, le=SANCTION_SECONDS)]
    cid: str


class Ban(msgspec.Struct, tag_field="type", tag="ban"):
    """The same, for somebody who may not see the room either. `room`: `EVERYWHERE` is the whole
    chat.
    """

    room: str
    author: str
    seconds: Annotated[int, msgspec.Meta(ge=0, le=SANCTION_SECONDS)]
    cid: str


class ListSanctions(msgspec.Struct, tag_field="type", tag="sanctions"):
    """Asks who is muted or banned in a room, or banned from the whole chat (`EVERYWHERE`)."""

    room: str
    cid: str


class Make(msgspec.Struct, tag_field="type", tag="make"):
    """Makes a private room; the server chooses its name."""

    cid: str


class Direct(msgspec.Struct, tag_field="type", tag="direct"):
    """Opens the direct room with another person, unless it is open."""

    author: str
    cid: str


class Block(msgspec.Struct, tag_field="type", tag="block"):
    """Lets another person write no direct messages to one, and the other way round; or ends that
    (`blocked`: false).
    """

    author: str
    blocked: bool
    cid: str


class Invite(msgspec.Struct, tag_field="type", tag="invite"):
    """Lets so many people into a private room (`uses`), within so many seconds."""

    room: str
    seconds: Annotated[int, msgspec.Meta(ge=1, le=INVITATION_SECONDS)]
    uses: Annotated[int, msgspec.Meta(ge=1, le=PRIVATE_MEMBERS)]
    cid: str


class Accept(msgspec.Struct, tag_field="type", tag="accept"):
    """Uses an invitation."""

    token: str
    cid: str


class Revoke(msgspec.Struct, tag_field="type", tag="revoke"):
    """Ends an invitation; `invitation`: its id."""

    room: str
    invitation: str
    cid: str


class Remove(msgspec.Struct, tag_field="type", tag="remove"):
    """Removes a member from a private room; their own author: they leave it for good."""

    room: str
    author: str
    cid: str


class Promote(msgspec.Struct, tag_field="type", tag="promote"):
    """Makes a member an owner."""

    room: str
    author: str
    cid: str


class ListMembers(msgspec.Struct, tag_field="type", tag="members"):
    """Asks who may use a private room."""

    room: str
    cid: str


class ListRooms(msgspec.Struct, tag_field="type", tag="rooms"):
    """Asks for the private rooms that one is a member of."""

    cid: str


class Typing(msgspec.Struct, tag_field="type", tag="typing"):
    room: str


class History(msgspec.Struct, tag_field="type", tag="history"):
    room: str
    before: str
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    """Asks for a sign of life. A page does not see the pings of WebSocket itself."""


class Auth(msgspec.Struct, tag_field="type", tag="auth"):
    """Goes on with another token of the same person, where the server requires tokens."""

    token: str


# About private rooms; answered under their `cid`.
PrivateFrame = (
    Make | Direct | Block | Invite | Accept | Revoke | Remove | Promote | ListMembers | ListRooms
)
ClientFrame = (
    Hello
    | Join
    | Leave
    | Send
    | Delete
    | Edit
    | Report
    | Mute
    | Ban
    | ListSanctions
    | Make
    | Direct
    | Block
    | Invite
    | Accept
    | Revoke
    | Remove
    | Promote
    | ListMembers
    | ListRooms
    | Typing
    | History
    | Ping
    | Auth
)


# Frames from the server.


class Limits(msgspec.Struct, frozen=True):
    """What a client may do; part of `welcome`, so that nobody finds out by being refused."""

    frame_bytes: int
    text_bytes: int
    text_graphemes: int
    rooms: int
    rate: int
    burst: int
    history: int


class Welcome(msgspec.Struct, tag_field="type", tag="welcome", omit_defaults=True):
    protocol: int
    user: str
    replica: str
    limits: Limits
    # The author of this client's messages (`Message.author`).
    author: str = ""
    # Where the server requires tokens: when this one ends, in milliseconds since the epoch, and the
    # connection's id, by which it can be renewed over HTTP.
    until: int = 0
    connection: str = ""
    # Whether messages can be deleted and edited here.
    revisions: bool = False
    # Whether moderators can mute and ban people here.
    sanctions: bool = False
    # Whether this person may ban others from the whole chat.
    moderator: bool = False
    # Whether people can make private rooms here.
    private: bool = False
    # Whether somebody reads what people report here.
    reports: bool = False
    # The room where this person may read it.
    audit: str = ""


class Message(msgspec.Struct, tag_field="type", tag="message"):
    room: str
    id: str
    user: str
    text: str
    ts: int
    cid: str
    # Identifies the writer: the same for all names of one key. Empty from servers that do not send
    # it.
    author: str = ""
    # When its text was replaced, in milliseconds since the epoch.
    edited: int | UnsetType = UNSET


class Joined(msgspec.Struct, tag_field="type", tag="joined"):
    room: str
    position: str
    recovered: bool
    # Encoded `Message` frames: each was encoded once, when the log delivered it.
    messages: list[msgspec.Raw]
    # There may be messages between these and the last one that the client has seen.
    more: bool = False
    # The client may not send here.
    read_only: bool = False
    # The client may delete messages of others, and mute and ban people.
    moderator: bool | UnsetType = UNSET
    # When a moderator's mute of this person ends, in milliseconds since the epoch.
    until: int | UnsetType = UNSET
    # What became of messages before `since`, after it: the ids of those that were deleted, and
    # encoded `Message` frames of those that were edited.
    deleted: list[str] | UnsetType = UNSET
    edited: list[msgspec.Raw] | UnsetType = UNSET


class Access(msgspec.Struct, tag_field="type", tag="access"):
    """What a client may do in a room that it is in may have changed."""

    room: str
    read_only: bool
    moderator: bool | UnsetType = UNSET
    # As in `Joined`.
    until: int | UnsetType = UNSET


class Deleted(msgspec.Struct, tag_field="type", tag="deleted"):
    """A message is gone. `position` is the place in the log just after that."""

    room: str
    id: str
    position: str


class Edited(msgspec.Struct, tag_field="type", tag="edited"):
    """A message has another text, since `edited` (milliseconds since the epoch)."""

    room: str
    id: str
    text: str
    edited: int
    position: str


class Left(msgspec.Struct, tag_field="type", tag="left"):
    room: str


class Ack(msgspec.Struct, tag_field="type", tag="ack"):
    """`id`: what it was about. `token`: of a new invitation; nobody is told it again."""

    cid: str
    id: str
    token: str | UnsetType = UNSET


class SanctionList(msgspec.Struct, tag_field="type", tag="sanctions"):
    """Authors, and until when each is muted or banned, in milliseconds since the epoch."""

    cid: str
    room: str
    muted: dict[str, int]
    banned: dict[str, int]


class Invitation(msgspec.Struct, frozen=True):
    """An open invitation: part of `members`. `by`: the author of who made it. `until`: when it
    ends, in milliseconds since the epoch. `left`: how many may still use it.
    """

    id: str
    by: str
    until: int
    left: int


class MemberList(msgspec.Struct, tag_field="type", tag="members"):
    """Authors. `members` are those who are no owners. `names`: under which they came, as far as it
    is known. Only owners are told `invitations`.
    """

    cid: str
    room: str
    owners: list[str]
    members: list[str]
    names: dict[str, str] = {}
    invitations: list[Invitation] | UnsetType = UNSET


class RoomList(msgspec.Struct, tag_field="type", tag="rooms"):
    """The private rooms that one is a member of; of `owned` ones, an owner. `direct`: which of them
    are direct rooms, and the author of the other person in each. `blocked`: the authors of those
    whom one blocks, also without a room. `names`: by author, under which those of `direct` came, as
    far as it is known.
    """

    cid: str
    rooms: list[str]
    owned: list[str]
    direct: dict[str, str] = {}
    blocked: list[str] = []
    names: dict[str, str] = {}


class DirectRoom(msgspec.Struct, tag_field="type", tag="direct", omit_defaults=True):
    """The direct room with another person is open: this person may join it, and write. `user`: the
    name under which the other one came, if it is known.
    """

    room: str
    author: str
    user: str = ""


class Error(msgspec.Struct, tag_field="type", tag="error", omit_defaults=True):
    code: ErrorCode
    message: str
    cid: str | None = None
    room: str | None = None
    # In how many seconds the frame may be sent again, if the server knows; it would be refused
    # before.
    retry_after: int = 0
    # When a moderator's ban of this person from `room` ends, in milliseconds since the epoch.
    until: int = 0


class Progress(msgspec.Struct, tag_field="type", tag="position"):
    room: str
    position: str


class Presence(msgspec.Struct, tag_field="type", tag="presence", omit_defaults=True):
    """Who is in a room: `users` are all, `joined` and `left` the changes since; with none of them
    there are too many to be named.
    """

    room: str
    count: int
    users: list[str] = []
    joined: list[str] = []
    left: list[str] = []


class IsTyping(msgspec.Struct, tag_field="type", tag="typing"):
    room: str
    user: str
    seconds: float


class Page(msgspec.Struct, tag_field="type", tag="history"):
    """All that was said in the room from `position` on and before `before`."""

    room: str
    before: str
    position: str
    more: bool
    messages: list[msgspec.Raw]


class Bye(msgspec.Struct, tag_field="type", tag="bye"):
    reason: str
    retry_after: float


class Pong(msgspec.Struct, tag_field="type", tag="pong"):
    pass


class Renewed(msgspec.Struct, tag_field="type", tag="renewed"):
    """The answer to `auth`: when the new token ends, in milliseconds since the epoch."""

    until: int


ServerFrame = (
    Welcome
    | Joined
    | Access
    | Left
    | Message
    | Deleted
    | Edited
    | Ack
    | SanctionList
    | MemberList
    | RoomList
    | DirectRoom
    | Error
    | Progress
    | Presence
    | IsTyping
    | Page
    | Bye
    | Pong
    | Renewed
)


_decoder: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
_encoder = msgspec.json.Encoder()


class Subject(msgspec.Struct):
    """What a frame is about, as far as it says."""

    cid: str | None = None
    room: str | None = None


_subject_decoder = msgspec.json.Decoder(Subject)
_string_decoder = msgspec.json.Decoder(str)
# In JSON, a quote within a string is escaped: what this finds is a field, in whatever is around it.
_FIELD = {
    name: re.compile(rf'"{name}"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL) for name in ("cid", "room")
}
# Escapes in JSON: a surrogate pair, half of one, or any other.
_ESCAPE = re.compile(
    r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


def decode(text: str) -> ClientFrame:
    """Read one frame of a client; raises `RefusedError` (bad_frame) if it is none."""
    try:
        return _decoder.decode(text)
    except msgspec.MsgspecError as error:
        mended = _mend(text)
        if mended is not None:
            return mended
        raise RefusedError(ErrorCode.BAD_FRAME, f"{error}.") from None
    except RecursionError:
        raise RefusedError(ErrorCode.BAD_FRAME, "JSON is nested too deeply.") from None


def _mend(text: str) -> Send | None:
    """Read a `send` whose text has half a surrogate pair, as strings of JavaScript and Java may:
    each is replaced (U+FFFD). A cid is not changed, for its sender would not know it again.
    """
    mended = _ESCAPE.sub(lambda found: "\\ufffd" if found[2] else found[0], text)
    if mended == text:
        return None
    try:
        frame = _decoder.decode(mended)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return frame if isinstance(frame, Send) and frame.cid == subject_of(text).cid else None


def subject_of(text: str) -> Subject:
    """What a frame that was refused is about, so that its sender knows which it was: as far as it
    can be read, whatever the rest is.
    """
    try:
        subject = _subject_decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        subject = Subject(_field("cid", text), _field("room", text))
    if subject.cid is not None and len(subject.cid) > CID_LENGTH:
        subject.cid = None
    if subject.room is not None and not _ROOM.fullmatch(subject.room):
        subject.room = None
    return subject


def _field(name: str, text: str) -> str | None:
    found = _FIELD[name].search(text)
    try:
        return _string_decoder.decode(found[1]) if found else None
    except msgspec.MsgspecError:
        return None


def encode(frame: ServerFrame) -> bytes:
    return _encoder.encode(frame)


# Validation of names and texts.

_ROOM = re.compile(ROOM)
_AUTHOR = re.compile(AUTHOR)
# Pairs of regional indicators (flags) by themselves: for each, \X counts back to the first of the
# run, so that a text of them took the square of its length.
_GRAPHEME = regex.compile(r"\p{RI}{2}(?=\p{RI})|\X")
# Drawn as an empty place: the empty braille pattern, the empty note head and a filler of Khitan.
EMPTY = "\u2800\U0001d159\U00016fe4"
# Letters, digits, signs: without those that are drawn as nothing (Unicode's ignorable ones, such as
# U+3164).
_INVISIBLE = rf"\p{{Default_Ignorable_Code_Point}}{EMPTY}"
_VISIBLE_IN_USER = regex.compile(rf"[[\p{{L}}\p{{N}}\p{{P}}\p{{S}}]--[{_INVISIBLE}]]", regex.V1)
_VISIBLE_IN_TEXT = regex.compile(rf"[^\s{_INVISIBLE}]")
# Unicode's Stream-Safe Text Format (UAX #15, section 13) has no more, in any language. It bounds
# what putting them into order costs, and how far a character reaches into the lines around it.
ACCENTS = 30
_STACK = regex.compile(rf"\p{{M}}{{{ACCENTS + 1}}}")
_CONTROL = regex.compile(r"\p{Cc}")
# What begins a new line in some place from which people paste: typewriters, slides, terminals,
# Word, and Unicode's own separators. All other control characters have nothing to show.
_LINE_BREAK = regex.compile(r"\r\n|[\r\v\f\x85\u2028\u2029]")
_CONTROL_IN_TEXT = regex.compile(r"[\p{Cc}--[\n\t]]", regex.V1)
# Line separators and everything that steers writing direction: a name stays within itself.
_CONTROL_IN_USER = regex.compile(r"[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]")
# Embeddings, overrides and isolates (UAX #9). An override makes text read otherwise than it is, and
# whatever is not closed reaches into the lines around it ("Trojan Source", CVE-2021-42574).
_DIRECTED = re.compile("[\u202a-\u202e\u2066-\u2069]")
_POP_EMBEDDING = "\u202c"
_ISOLATES = "\u2066\u2067\u2068"
_POP_ISOLATE = "\u2069"
_EMBEDDING_FOR_OVERRIDE = {"\u202d": "\u202a", "\u202e": "\u202b"}


def check_user(user: str) -> str:
    """Return the name normalised (NFC), and without surrounding white space."""
    if _CONTROL_IN_USER.search(user.strip()):
        raise RefusedError(ErrorCode.BAD_USER, "A name has no control characters: leave them out.")
    user = _normalised(user, ErrorCode.BAD_USER).strip()
    if not _VISIBLE_IN_USER.search(user):
        raise RefusedError(
            ErrorCode.BAD_USER, "A name has something to see: give 1 to 32 characters."
        )
    if len(user.encode()) > USER_BYTES or (
        len(user) > USER_GRAPHEMES and graphemes(user) > USER_GRAPHEMES
    ):
        raise RefusedError(ErrorCode.BAD_USER, "The name is too long: give 1 to 32 characters.")
    return user


def check_room(room: str) -> str:
    if not _ROOM.fullmatch(room):
        raise no_room()
    return room


def check_author(author: str) -> str:
    """It may be nobody's."""
    if not _AUTHOR.fullmatch(author):
        raise RefusedError(
            ErrorCode.BAD_AUTHOR, "An author has 32 hexadecimal digits, as messages have it."
        )
    return author


def check_cid(cid: str) -> str:
    if not 1 <= len(cid) <= CID_LENGTH or (not cid.isprintable() and _CONTROL.search(cid)):
        raise RefusedError(
            ErrorCode.BAD_CID, "A cid has 1 to 64 characters, none of them a control character."
        )
    return cid


def check_text(text: str, limits: Limits) -> str:
    """Return the text as it is measured, kept and shown: normalised (NFC), without characters that
    its author cannot have seen, and directed within each of its lines alone.

    Raises `RefusedError` (bad_text, too_long).
    """
    text = _normalised(harmless_text(text), ErrorCode.BAD_TEXT)
    # Bytes first: they bound what counting graphemes can cost.
    size = len(text.encode())
    if size > limits.text_bytes:
        raise RefusedError(
            ErrorCode.TOO_LONG, f"The text has {size} bytes: at most {limits.text_bytes} can go."
        )
    if len(text) > limits.text_graphemes and (count := graphemes(text)) > limits.text_graphemes:
        raise RefusedError(
            ErrorCode.TOO_LONG,
            f"The text has {count} characters: at most {limits.text_graphemes} can go.",
        )
    if not _VISIBLE_IN_TEXT.search(text):
        raise RefusedError(ErrorCode.BAD_TEXT, "There is nothing to see: write something.")
    return text


def harmless_text(text: str) -> str:
    """Without control characters but line breaks (as `\\n`) and tabs, and directed within each line
    alone.
    """
    if text.isascii() and text.isprintable():
        # Most lines have nothing of it.
        return text
    text = _CONTROL_IN_TEXT.sub("", _LINE_BREAK.sub("\n", text))
    if _DIRECTED.search(text):
        text = "\n".join(map(_directed_within, text.split("\n")))
    return text


def harmless_user(user: str) -> str:
    """A name without what no name has: control characters, and those that steer direction."""
    shown: str = _CONTROL_IN_USER.sub("", user)
    return shown


def fitting_user(user: str) -> str:
    """As much of a foreign system's name as `check_user` takes: harmless, and cut to size."""
    characters = _GRAPHEME.findall(harmless_user(user[:USER_BYTES]).strip())
    shown = ""
    for character in characters[:USER_GRAPHEMES]:
        if len((shown + character).encode()) > USER_BYTES:
            break
        shown += character
    return shown


def _directed_within(line: str) -> str:
    """Close what the line leaves open, and drop what closes nothing.

    An override becomes an embedding of its direction. It still keeps a number in order, for which
    address books write it, and turns no letters around.
    """
    parts = []
    # What closes that which is open, the innermost last.
    closers: list[str] = []
    isolates = 0
    end = 0
    for found in _DIRECTED.finditer(line):
        parts.append(line[end : found.start()])
        end = found.end()
        mark = found[0]
        if mark == _POP_EMBEDDING:
            if closers[-1:] == [_POP_EMBEDDING]:
                parts.append(closers.pop())
        elif mark == _POP_ISOLATE:
            # With it end the embeddings within its isolate.
            while isolates and (closer := closers.pop()) == _POP_EMBEDDING:
                parts.append(closer)
            if isolates:
                isolates -= 1
                parts.append(_POP_ISOLATE)
        elif mark in _ISOLATES:
            isolates += 1
            parts.append(mark)
            closers.append(_POP_ISOLATE)
        else:
            parts.append(_EMBEDDING_FOR_OVERRIDE.get(mark, mark))
            closers.append(_POP_EMBEDDING)
    return "".join([*parts, line[end:], *reversed(closers)])


def _normalised(text: str, code: ErrorCode) -> str:
    if text.isascii():
        return text
    # Before, because they bound what to normalise costs; after, because one accent may become two.
    if _STACK.search(text) or _STACK.search(text := unicodedata.normalize("NFC", text)):
        raise RefusedError(
            code, f"A character has more than {ACCENTS} accents: leave some of them out."
        )
    return text


def graphemes(text: str) -> int:
    """How many characters a person would count."""
    return sum(1 for _ in _GRAPHEME.finditer(text))
