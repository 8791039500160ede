"""Encoding and decoding of records, without I/O. docs/log-format.md describes the format."""

from __future__ import annotations

import enum
from collections import Counter
from typing import Annotated, Literal

import msgspec

from chat import bounds
from chat.relay.base import Entry, Record, Revision, author_by_name, partition_of
from chat.relay.kafka.batches import RecordBatch, read

# The overhead of Kafka's format in addition to a record's value, including its key.
OVERHEAD_BYTES = 256


class Value(msgspec.Struct, frozen=True, gc=False):
    """The value of a record that is read. Others may write to the topic, so all bounds are checked.

    Version 1 has no kind, and no author if an old release wrote it.
    """

    v: Literal[1, 2]
    room: Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.ROOM}\Z")]
    user: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.USER_BYTES)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.TEXT_BYTES)]
    cid: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.CID_LENGTH)]
    author: Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.AUTHOR}\Z")] | None = None
    kind: str | None = None


class RevisionValue(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The value of a record that deletes a message (`delete`) or replaces its text (`edit`): of the
    message at offset `of`, which the log stored at `time`. Both ways: it is written like this, too.
    """

    v: Literal[2]
    kind: Literal["delete", "edit"]
    room: Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.ROOM}\Z")]
    author: Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.AUTHOR}\Z")]
    user: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.USER_BYTES)]
    cid: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.CID_LENGTH)]
    of: Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
    time: Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
    text: Annotated[str, msgspec.Meta(max_length=bounds.TEXT_BYTES)] = ""
    moderator: bool = False


class Header(msgspec.Struct, frozen=True, gc=False):
    """The fields that every version has."""

    v: int
    kind: str | None = None


class Written(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The value of a record that is written: version 1, which the previous release can read,
    too.
    """

    v: int
    room: str
    user: str
    text: str
    cid: str
    author: str = ""


class Skipped(enum.Enum):
    """Why a record is not shown."""

    # No chat wrote it.
    FOREIGN = enum.auto()
    # A later release wrote it: another version or kind.
    UNKNOWN = enum.auto()


_decoder = msgspec.json.Decoder(Value)
_revision_decoder = msgspec.json.Decoder(RevisionValue)
_header_decoder = msgspec.json.Decoder(Header)
_encoder = msgspec.json.Encoder()
# msgspec raises `UnicodeDecodeError` if the bytes of a string are not UTF-8.
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode(record: Record) -> bytes:
    if isinstance(record, Revision):
        return _encoder.encode(
            RevisionValue(
                2,
                "edit" if record.text else "delete",
                record.room,
                record.author,
                record.user,
                record.cid,
                record.offset,
                record.time,
                record.text,
                record.moderator,
            )
        )
    return _encoder.encode(
        Written(1, record.room, record.user, record.text, record.cid, record.author)
    )


def decode(value: bytes) -> Record | Skipped:
    """Decode a record's value, which may be any bytes."""
    try:
        read = _decoder.decode(value)
    except NOT_JSON:
        return _decode_other(value)
    author = read.author
    if read.v == 1:
        if author is None:
            author = author_by_name(read.user)
    elif read.kind != "text":
        return _decode_other(value)
    elif author is None:
        return Skipped.FOREIGN
    return Record(read.room, read.user, read.text, read.cid, author)


def entries(
    batch: RecordBatch, start: int, partition: int, partitions: int
) -> tuple[list[Entry], Counter[Skipped]]:
    """The messages in a batch from offset `start` on, and the number of skipped records."""
    records = read(batch, start)
    found = []
    skipped: Counter[Skipped] = Counter()
    if records.unreadable:
        skipped[Skipped.FOREIGN] = records.unreadable
    for offset, value in records.values:
        record = decode(value)
        if record is Skipped.UNKNOWN:
            skipped[Skipped.UNKNOWN] += 1
        # A room has one partition. In another partition, the record is not from a chat.
        elif (
            record is Skipped.FOREIGN
            or partition_of(record.room, partitions) != partition
            # Nobody has seen a message that comes later.
            or (isinstance(record, Revision) and record.offset >= offset)
        ):
            skipped[Skipped.FOREIGN] += 1
        else:
            found.append(Entry(offset, batch.time, record))
    return found, skipped


def _decode_other(value: bytes) -> Revision | Skipped:
    """Decode a record that is no message."""
    try:
        header = _header_decoder.decode(value)
    except NOT_JSON:
        return Skipped.FOREIGN
    if header.v == 2 and header.kind in ("delete", "edit"):
        return _decode_revision(value)
    if header.v > 2 or (header.v == 2 and header.kind not in (None, "text")):
        return Skipped.UNKNOWN
    return Skipped.FOREIGN


def _decode_revision(value: bytes) -> Revision | Skipped:
    try:
        read = _revision_decoder.decode(value)
    except NOT_JSON:
        return Skipped.FOREIGN
    deletes = read.kind == "delete"
    # An edit has a text, and nobody edits messages of others.
    if deletes == bool(read.text) or (read.moderator and not deletes):
        return Skipped.FOREIGN
    return Revision(
        read.room,
        read.user,
        read.text,
        read.cid,
        read.author,
        read.of,
        read.time,
        read.moderator,
    )
