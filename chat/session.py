"""A session: one connected client as the server sees it. Who it is, which rooms it is in, what it
may do, and what waits to be sent to it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from chat import protocol
from chat.hub import Hub
from chat.metrics import Metrics
from chat.protocol import CloseCode, Error, ErrorCode, Left, Limits, RefusedError, Welcome
from chat.room import Person


class Connection(Protocol):
    """The way to the client: takes whole WebSocket frames, and must not raise when it is gone."""

    def write(self, frames: bytes) -> asyncio.Future[None]:
        """Send; the future is done when the bytes have left this process."""

    def close(self, code: CloseCode, reason: str) -> None: ...


class TokenBucket:
    """Allows `rate` per second for long, `burst` at once."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._then = clock()

    def take(self) -> bool:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Outbox:
    """What waits for a client. Everything pushed within one turn of the event loop is written at
    once, and while the client is slow to read, everything pushed since the last write.

    `on_overflow` is called when more than `limit` bytes wait.
    """

    def __init__(
        self,
        write: Callable[[bytes], asyncio.Future[None]],
        limit: int,
        on_overflow: Callable[[], None],
    ) -> None:
        self._write = write
        self._limit = limit
        self._on_overflow = on_overflow
        self._frames: list[bytes] = []
        self._waiting = 0
        self._writing = 0
        self._scheduled = False
        self._closed = False
        self._drained: asyncio.Future[None] | None = None

    def push(self, frame: bytes) -> None:
        if self._closed:
            return
        # One answer may be larger than the limit; it is a client that does not take it that is
        # slow.
        if self._waiting + self._writing > self._limit:
            self._on_overflow()
            return
        self._frames.append(frame)
        self._waiting += len(frame)
        if not self._scheduled and not self._writing:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def offer(self, frame: bytes) -> bool:
        """Push it unless much waits already; whether that was done."""
        if self._closed or self._waiting + self._writing > self._limit // 4:
            return False
        self.push(frame)
        return True

    def drained(self) -> Awaitable[None] | None:
        """Something to wait for while the client has much to read; None if it has not."""
        if self._closed or self._waiting + self._writing <= self._limit // 2:
            return None
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()
        return self._drained

    def close(self, *, flush: bool) -> None:
        """Take no more; write what waits, or drop it."""
        if self._closed:
            return
        self._closed = True
        if flush and self._frames:
            self._write(b"".join(self._frames))
        self._frames.clear()
        self._waiting = 0
        self._release()

    def _flush(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        if self._frames:
            frames = b"".join(self._frames)
            self._frames.clear()
            self._waiting = 0
            written = self._write(frames)
            if not written.done():
                self._writing = len(frames)
                written.add_done_callback(self._written)
        if self._waiting + self._writing <= self._limit // 2:
            self._release()

    def _written(self, _: asyncio.Future[None]) -> None:
        self._writing = 0
        self._flush()

    def _release(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None


class Session:
    """A connection that speaks the protocol. Its rooms know it as a `Member`."""

    def __init__(
        self,
        connection: Connection,
        hub: Hub,
        metrics: Metrics,
        limits: Limits,
        *,
        replica: str,
        outbox_bytes: int,
        hello_seconds: float,
    ) -> None:
        self._connection = connection
        self._hub = hub
        self._metrics = metrics
        self._limits = limits
        self._replica = replica
        self._person: Person | None = None
        self._rooms: set[str] = set()
        self._closed = False
        self._bucket = TokenBucket(limits.rate, limits.burst)
        self._outbox = Outbox(connection.write, outbox_bytes, self._too_slow)
        self._deadline = asyncio.get_running_loop().call_later(hello_seconds, self._no_hello)

    def receive(self, text: str) -> Awaitable[None] | None:
        """Act on a frame. The next one must wait for what is returned, if anything."""
        if self._closed:
            return None
        try:
            if not self._bucket.take():
                raise RefusedError(
                    ErrorCode.RATE_LIMITED,
                    f"Too fast: send at most {self._limits.rate} frames per second.",
                )
            match protocol.decode(text):
                case protocol.Hello() as hello:
                    self._hello(hello)
                case protocol.Join() as join:
                    return self._join(join, text)
                case protocol.Leave() as leave:
                    self._leave(leave)
                case protocol.Send() as send:
                    self._send(send)
                case protocol.Typing() as typing:
                    self._typing(typing)
        except RefusedError as refused:
            self._refuse(refused, text)
        return self._outbox.drained()

    @property
    def person(self) -> Person:
        assert self._person is not None, "nobody joins a room without a name"
        return self._person

    def push(self, frame: bytes) -> None:
        self._outbox.push(frame)

    def offer(self, frame: bytes) -> bool:
        return self._outbox.offer(frame)

    def put_out(self, room: str, why: RefusedError) -> None:
        self._rooms.discard(room)
        self._metrics.refusals.labels(why.code).inc()
        self._say(Error(why.code, why.message, room=room))
        self._say(Left(room))

    def close(self, code: CloseCode, reason: str) -> None:
        """Say goodbye: what waits is still sent, then the code and the reason."""
        self._end(code, reason, flush=True)

    def gone(self) -> None:
        """The connection is gone, whoever ended it."""
        self._closed = True
        self._deadline.cancel()
        self._outbox.close(flush=False)
        for room in self._rooms:
            self._hub.leave(self, room)
        self._rooms.clear()

    def _hello(self, hello: protocol.Hello) -> None:
        if self._person is not None:
            raise RefusedError(ErrorCode.BAD_FRAME, "Hello was said already.")
        # Who brings no key cannot prove to be the same person, on whatever connection.
        secret = hello.key or secrets.token_hex(16)
        self._person = Person.of(protocol.check_user(hello.user), secret)
        self._deadline.cancel()
        self._say(Welcome(protocol.VERSION, self._person.user, self._replica, self._limits))

    async def _join(self, join: protocol.Join, text: str) -> None:
        try:
            self._require_user()
            room = protocol.check_room(join.room)
            if room not in self._rooms and len(self._rooms) >= self._limits.rooms:
                raise RefusedError(
                    ErrorCode.TOO_MANY_ROOMS,
                    f"You are in {len(self._rooms)} rooms: leave one before you join another.",
                )
            await self._hub.join(self, room, join.since)
        except RefusedError as refused:
            self._refuse(refused, text)
            return
        if self._closed:
            # It went away while it waited, and has left its other rooms.
            self._hub.leave(self, room)
            return
        self._rooms.add(room)
        drained = self._outbox.drained()
        if drained is not None:
            await drained

    def _leave(self, leave: protocol.Leave) -> None:
        self._require_user()
        room = self._require_joined(leave.room)
        self._rooms.remove(room)
        self._hub.leave(self, room)
        self._say(Left(room))

    def _send(self, send: protocol.Send) -> None:
        user = self._require_user()
        room = self._require_joined(send.room)
        cid = protocol.check_cid(send.cid)
        text = protocol.check_text(send.text, self._limits)
        self._hub.send(self, room, user, text, cid)

    def _typing(self, typing: protocol.Typing) -> None:
        self._require_user()
        self._hub.typing(self, self._require_joined(typing.room))

    def _require_user(self) -> str:
        if self._person is None:
            raise RefusedError(ErrorCode.HELLO_REQUIRED, "Say hello first.")
        return self._person.user

    def _require_joined(self, name: str) -> str:
        room = protocol.check_room(name)
        if room not in self._rooms:
            raise RefusedError(ErrorCode.NOT_JOINED, f"You are not in {room}: join it first.")
        return room

    def _refuse(self, refused: RefusedError, text: str) -> None:
        self._metrics.refusals.labels(refused.code).inc()
        subject = protocol.subject_of(text)
        self._say(Error(refused.code, refused.message, subject.cid, subject.room))

    def _say(self, frame: protocol.ServerFrame) -> None:
        self.push(protocol.text_frame(protocol.encode(frame)))

    def _no_hello(self) -> None:
        self.close(CloseCode.POLICY, "say hello in time")

    def _too_slow(self) -> None:
        # What waits is dropped. The client's last position is right behind what it got: it can
        # resume.
        self._end(CloseCode.TRY_LATER, "too slow: join again with the last position", flush=False)

    def _end(self, code: CloseCode, reason: str, *, flush: bool) -> None:
        if self._closed:
            return
        self._outbox.close(flush=flush)
        self.gone()
        self._metrics.closes.labels(int(code)).inc()
        self._connection.close(code, reason)
