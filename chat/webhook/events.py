"""What is sent to receivers: the body of each event, and the id by which they recognise repeats."""

from __future__ import annotations

import enum
import time
import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from chat.client import Deleted, Edited, Message


class Kind(enum.StrEnum):
    """What a webhook may ask for."""

    CREATED = "message.created"
    EDITED = "message.edited"
    DELETED = "message.deleted"


# Sent to all: some events may be missing before this one.
GAP = "room.gap"


class Missing(NamedTuple):
    """Events of these kinds may be missing here."""

    kinds: frozenset[Kind]


class Delivery(msgspec.Struct, frozen=True):
    """One event on its way. `time`: when it happened, in seconds since the epoch."""

    id: str
    time: float
    body: str


class _Created(msgspec.Struct):
    room: str
    id: str
    user: str
    author: str
    text: str
    edited: str | UnsetType = UNSET


class _Edited(msgspec.Struct):
    room: str
    id: str
    text: str


class _Deleted(msgspec.Struct):
    room: str
    id: str


class _Gap(msgspec.Struct):
    room: str
    missing: list[Kind]


class _Body(msgspec.Struct):
    """The form that the Standard Webhooks specification recommends."""

    type: str
    timestamp: str
    data: _Created | _Edited | _Deleted | _Gap


def delivery_of(
    event: Message | Edited | Deleted | Missing, room: str, kinds: Collection[Kind]
) -> Delivery | None:
    """What a receiver of these kinds of events gets; None: nothing."""
    match event:
        case Message() as one if Kind.CREATED in kinds:
            edited = UNSET if one.edited is UNSET else _written(one.edited / 1000)
            data = _Created(room, one.id, one.user, one.author, one.text, edited)
            return _delivery(one.id, Kind.CREATED, one.ts / 1000, data)
        case Edited(_, identity, text, edited_at) if Kind.EDITED in kinds:
            # A message may be edited many times.
            return _delivery(
                f"{identity}:edited:{edited_at}",
                Kind.EDITED,
                edited_at / 1000,
                _Edited(room, identity, text),
            )
        case Deleted(_, identity) if Kind.DELETED in kinds:
            return _delivery(
                f"{identity}:deleted", Kind.DELETED, time.time(), _Deleted(room, identity)
            )
        case Missing(missing) if found := sorted(missing.intersection(kinds)):
            return _delivery(f"gap:{uuid.uuid4().hex}", GAP, time.time(), _Gap(room, found))
    return None


def _delivery(
    identity: str, kind: str, at: float, data: _Created | _Edited | _Deleted | _Gap
) -> Delivery:
    body = msgspec.json.encode(_Body(kind, _written(at), data)).decode()
    return Delivery(identity, at, body)


def _written(seconds: float) -> str:
    written = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return written.replace("+00:00", "Z")
