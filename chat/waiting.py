"""Somebody who waits for the answer to one message, and is in no room."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from chat.protocol import Ack, CloseCode, Error, RefusedError
from chat.rights import Rights
from chat.room import Person
from chat.websocket.frames import payload_of

# What one takes besides the strings of its person and its address, in bytes.
_BYTES = 350

_decoder = msgspec.json.Decoder(Ack | Error)


class Waiting:
    """A member, and its own outlet. `id` is the message's, or raises `RefusedError`."""

    __slots__ = ("address", "connection", "id", "person", "rights", "waiting_bytes")

    def __init__(self, person: Person, rights: Rights, address: str) -> None:
        self.person = person
        self.rights = rights
        self.address = address
        self.connection = self
        self.id: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting_bytes = _BYTES + sum(map(sys.getsizeof, (*person, address)))

    def push(self, frames: bytes) -> None:
        # Whoever asked may have gone.
        if self.id.done():
            return
        answer = _decoder.decode(payload_of(frames))
        if isinstance(answer, Ack):
            self.id.set_result(answer.id)
        else:
            self.id.set_exception(RefusedError(answer.code, answer.message, answer.retry_after))

    def write(self, frames: bytes) -> None:
        self.push(frames)

    def hold(self) -> None:
        pass

    def offer(self, frames: bytes) -> bool:  # noqa: ARG002 - what others do is not told
        return False

    def put_out(self, room: str, why: RefusedError) -> None:
        pass

    def review(self, room: str) -> None:
        pass

    def close(self, code: CloseCode, reason: str) -> None:
        pass
