"""Messages that are being appended to the log, and the senders that wait for their `ack`.

A message is acknowledged only when the log delivers it. A repeat gets the id of the first message
in the same way.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec

from chat.metrics import Metrics
from chat.protocol import Error, ErrorCode, RefusedError, cid_used
from chat.relay.base import Record, Relay, Revision, TooLargeError, UnavailableError
from chat.room import Member, frame_of

# Maximum number of senders that wait for one message.
MOST_SENDERS = 100
# Memory of a pending message in addition to its strings, and of each sender in addition to its
# `waiting_bytes`, in bytes.
PENDING_BYTES = 344
SENDER_BYTES = 16

# The log delivers records within milliseconds. Senders wait this long; overdue messages are checked
# periodically.
BACK_SECONDS = 10.0
LOOK_SECONDS = 1.0

# Identity of a message: room, author and cid.
Key = tuple[str, str, str]


class Pending(msgspec.Struct):
    """A message that is being appended since `since` (monotonic seconds), and its waiting senders.

    `held` is when the log confirmed the message; `size` is the memory of all this, in bytes.
    """

    record: Record
    since: float
    senders: list[Member]
    size: int
    held: float | None = None


class Acks:
    """Pending messages take at most `most_bytes`: a log that accepts records but delivers none must
    not fill the memory.
    """

    def __init__(self, relay: Relay, metrics: Metrics, *, most_bytes: int) -> None:
        self._relay = relay
        self._metrics = metrics
        self._most_bytes = most_bytes
        self._pending: dict[Key, Pending] = {}
        self.bytes = 0

    def has(self, record: Record) -> bool:
        """Whether a message under this cid is being appended."""
        return _key_of(record) in self._pending

    def append(self, sender: Member, record: Record, witness: Member | None = None) -> None:
        """Append a record, unless it is already being appended. `sender` waits for its `ack`, and
        so does `witness`, if any.

        Raises `RefusedError`. Later failures are pushed to them as an `error`.
        """
        senders = [sender] if witness is None else [sender, witness]
        key = _key_of(record)
        pending = self._pending.get(key)
        if pending is not None and pending.record.text != record.text:
            raise cid_used(record.cid)
        if self.bytes >= self._most_bytes or (
            pending is not None and len(pending.senders) + len(senders) > MOST_SENDERS
        ):
            raise RefusedError(ErrorCode.UNAVAILABLE, "Too many messages wait for the log.")
        waiting = sum(SENDER_BYTES + one.waiting_bytes for one in senders)
        if pending is not None:
            pending.senders += senders
            pending.size += waiting
            self.bytes += waiting
            return
        try:
            held = self._relay.append(record)
        except UnavailableError as error:
            raise RefusedError(ErrorCode.UNAVAILABLE, str(error)) from None
        except TooLargeError as error:
            raise RefusedError(ErrorCode.TOO_LONG, str(error)) from None
        # Measured after `append`, because encoding a string caches its UTF-8 form in it.
        strings = sum(map(sys.getsizeof, (record.text, record.room, record.cid)))
        size = PENDING_BYTES + strings + waiting
        self._pending[key] = Pending(record, time.monotonic(), senders, size)
        self.bytes += size
        if held.done():
            self._appended(key, held)
        else:
            held.add_done_callback(lambda done: self._appended(key, done))

    def delivered(self, record: Record, now: float) -> Pending | None:
        """The log has delivered this record, or another text of its author under the same cid: the
        message is no longer pending.
        """
        if not self._pending:
            return None
        pending = self._pop(_key_of(record))
        if pending is not None:
            self._metrics.round_trip.observe(now - pending.since)
        return pending

    def refuse_all(self, why: str) -> None:
        for key in tuple(self._pending):
            self._refuse(key, why)

    def _appended(self, key: Key, held: asyncio.Future[None]) -> None:
        if held.cancelled():
            return
        if (error := held.exception()) is not None:
            self._refuse(key, str(error))
        elif (pending := self._pending.get(key)) is not None:
            pending.held = time.monotonic()

    async def run(self) -> None:
        """Refuse messages that the log accepted but does not deliver."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            before = time.monotonic() - BACK_SECONDS
            for key, pending in tuple(self._pending.items()):
                if pending.held is not None and pending.held < before:
                    self._refuse(key, "The log does not give the message back: try again.")

    def _pop(self, key: Key) -> Pending | None:
        pending = self._pending.pop(key, None)
        if pending is not None:
            self.bytes -= pending.size
        return pending

    def _refuse(self, key: Key, why: str) -> None:
        pending = self._pop(key)
        if pending is None:
            return
        for sender in pending.senders:
            self._metrics.refusals.labels(ErrorCode.UNAVAILABLE).inc()
            error = Error(ErrorCode.UNAVAILABLE, why, pending.record.cid)
            sender.connection.push(frame_of(error))


def _key_of(record: Record) -> Key:
    cid = record.cid
    if isinstance(record, Revision):
        # No message has such a cid. The same cid for another message is another revision.
        cid = f"\0{record.offset}\0{cid}"
    return record.room, record.author, cid
