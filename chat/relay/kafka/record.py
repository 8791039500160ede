"""What a record's bytes mean. No I/O: bytes in, records out, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec

from chat import bounds
from chat.relay.base import Entry, Record, partition_of

# What Kafka's format adds to a record's value, its key included.
OVERHEAD_BYTES = 256


class Value(msgspec.Struct, frozen=True):
    """A record's value, version 1: JSON. Others may write to the topic: all bounds are checked."""

    v: Literal[1]
    room: Annotated[str, msgspec.Meta(pattern=rf"\A{bounds.ROOM}\Z")]
    user: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.USER_BYTES)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.TEXT_BYTES)]
    cid: Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.CID_LENGTH)]


_decoder = msgspec.json.Decoder(Value)


def encode(record: Record) -> bytes:
    return msgspec.json.encode(
        Value(v=1, room=record.room, user=record.user, text=record.text, cid=record.cid)
    )


def decode(value: bytes) -> Record | None:
    """Read a record's value; None if no chat of this version wrote it."""
    try:
        read = _decoder.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return Record(read.room, read.user, read.text, read.cid)


def entries(records: Sequence[Any], partitions: int) -> Iterator[Entry]:
    """What a chat of this version wrote, in its place; the rest is left out."""
    for record in records:
        said = decode(record.value or b"")
        # A room's order holds within its partition; elsewhere, somebody else has put it.
        if said is not None and partition_of(said.room, partitions) == record.partition:
            yield Entry(record.offset, record.timestamp, said)
