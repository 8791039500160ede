"""Encoding and decoding of records, without I/O. docs/log-format.md describes the format."""

from __future__ import annotations

import enum
from collections import Counter
from typing import Annotated, Literal

import msgspec

from chat import bounds
from chat.relay.base import Entry, Record, author_by_name, partition_of
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
_header_decoder = msgspec.json.Decoder(Header)
_encoder = msgspec.json.Encoder()
# msgspec raises `UnicodeDecodeError` if the bytes of a string are not UTF-8.
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode(record: Record) -> bytes:
    return _encoder.encode(
        Written(1, record.room, record.user, record.text, record.cid, record.author)
    )


def decode(value: bytes) -> Record | Skipped:
    """Decode a record's value, which may be any bytes."""
    try:
        read = _decoder.decode(value)
    except NOT_JSON:
        return _why_skipped(value)
    author = read.author
    if read.v == 1:
        if author is None:
            author = author_by_name(read.user)
    elif read.kind != "text":
        return Skipped.FOREIGN if read.kind is None else Skipped.UNKNOWN
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
        elif record is Skipped.FOREIGN or partition_of(record.room, partitions) != partition:
            skipped[Skipped.FOREIGN] += 1
        else:
            found.append(Entry(offset, batch.time, record))
    return found, skipped


def _why_skipped(value: bytes) -> Skipped:
    try:
        header = _header_decoder.decode(value)
    except NOT_JSON:
        return Skipped.FOREIGN
    if header.v > 2 or (header.v == 2 and header.kind not in (None, "text")):
        return Skipped.UNKNOWN
    return Skipped.FOREIGN
