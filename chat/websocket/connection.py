"""A WebSocket connection after its handshake, on top of any transport.

Writing: everything that is pushed within one turn of the event loop is written at once. If the
client reads slowly (the kernel's send buffer is full), frames wait here; frames passed to `offer`
are dropped. If more than `outbox_bytes` wait, the receiver is told to give up (`overflow`).

Reading: frame by frame, without tasks or futures. Reading pauses for a client that does not read
the answers to its requests, for a client over its budget, and after `TURN` frames, so that others
get their turn. While reading is paused, the socket is not read either. While the receiver works on
a message, later messages are held, but pings and pongs are not. Reading stops when more bytes are
held than the largest message may have.

There may be ten thousand connections, nearly all of them idle. So a connection has no timers and no
closures, no buffers and lists while they are empty, and slots instead of a dictionary.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol, cast

from chat.protocol import CloseCode
from chat.websocket.budget import Allowance, Budget
from chat.websocket.frames import (
    PING,
    Close,
    Event,
    Fragment,
    Parser,
    Ping,
    Pong,
    Violation,
    close_frame,
    pong_frame,
)
from chat.websocket.wheel import TICK_SECONDS, Wheel

# Time for the client to read the close frame and answer it.
LINGER_SECONDS = 2.0
# Frames read from one client before others get their turn.
TURN = 64


class Receiver(Protocol):
    """Handles the messages and events of one client. Called on the event loop."""

    def receive(self, text: str) -> Awaitable[None] | None:
        """Handle a message. The next one waits for the returned awaitable, if any."""

    def silent(self) -> None:
        """The client was not accepted in time."""

    def beat(self) -> None:
        """It is time for a ping or its pong; called at least once in `ping_seconds`."""

    def slow(self) -> None:
        """Everything pushed so far is on its way to the client; from now on, frames wait here."""

    def overflow(self) -> None:
        """More bytes wait for the client than allowed. Called from within `push`."""

    def close(self, code: CloseCode, reason: str) -> None:
        """The client broke the protocol: close the connection with this code and reason."""

    def gone(self) -> None:
        """The connection has ended, on either side. Nothing is called after this."""


class Waiting(Protocol):
    """A client for which bytes wait that it does not read."""

    @property
    def address(self) -> str | None:
        """The client's address; None if unknown."""

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client to read them."""

    def give_up(self) -> None:
        """Too many bytes wait for all clients, and most of them for this client's address."""


@dataclass(frozen=True, slots=True)
class Limits:
    message_bytes: int
    # What a client can make the server read.
    reading: Allowance
    # Maximum number of bytes that wait for one client, and for all clients.
    outbox_bytes: int
    total_bytes: int
    # Time in which the receiver must accept the client.
    accept_seconds: float
    ping_seconds: float
    pong_seconds: float


class Endpoint:
    """What all connections of a server share: the limits, one timer wheel, and the list of
    connections with frames to write at the end of the event loop's turn.
    """

    def __init__(self, limits: Limits, wheel: Wheel) -> None:
        self.limits = limits
        self.wheel = wheel
        # Number of offered frames that were dropped because the client was slow.
        self.dropped = 0
        # Number of times reading paused because a client was over budget.
        self.held_off = 0
        # Bytes that wait for slow clients, and those clients: WebSockets, and HTTP clients that do
        # not read their responses.
        self.waiting = 0
        self._slow: set[Waiting] = set()
        self._shedding = False
        self._unwritten: list[Connection] = []
        self._corked = False
        # Connections that are not read until their budget allows it; `due` is the deadline for all
        # of them.
        self._over_budget: dict[Connection, None] = {}
        self.due: int | None = None

    def cork(self) -> None:
        """Defer all writes to `uncork`, which writes at once.

        Used when many frames are pushed now. It saves a turn of the event loop, which costs up to a
        tenth of all work for a message with one reader.
        """
        self._corked = True

    def uncork(self) -> None:
        self._corked = False
        self._write()

    def write_later(self, connection: Connection) -> None:
        if not self._unwritten and not self._corked:
            asyncio.get_running_loop().call_soon(self._write)
        self._unwritten.append(connection)

    def read_later(self, connection: Connection) -> None:
        """Continue reading when the budget may allow it."""
        if not self._over_budget:
            self.wheel.schedule(self, TICK_SECONDS)
        self._over_budget[connection] = None
        self.held_off += 1

    def on_deadline(self) -> None:
        connections, self._over_budget = self._over_budget, {}
        for connection in connections:
            connection.go_on()

    def account(self, client: Waiting, more: int, *, slow: bool) -> None:
        """Add `more` (or a negative number) to the bytes that wait for a client. A `slow` client
        may be closed to free memory for others.
        """
        self.waiting += more
        if slow:
            self._slow.add(client)
        else:
            self._slow.discard(client)
        if self.waiting > self.limits.total_bytes and not self._shedding:
            self._shedding = True
            # Not now: the caller is iterating over the members of a room.
            asyncio.get_running_loop().call_soon(self._shed)

    def _shed(self) -> None:
        """Close clients until the total is at most 90 % of the limit. First choose the address with
        the most waiting bytes, then its client with the most.
        """
        self._shedding = False
        of_address: dict[object, list[tuple[int, Waiting]]] = {}
        for client in self._slow:
            of_address.setdefault(client.address or client, []).append((client.waiting, client))
        order: list[tuple[int, int, Waiting]] = []
        for clients in of_address.values():
            together = sum(waiting for waiting, _ in clients)
            for waiting, client in sorted(clients, key=itemgetter(0), reverse=True):
                order.append((together, waiting, client))
                together -= waiting
        left = self.waiting
        for _, waiting, client in sorted(order, key=itemgetter(0), reverse=True):
            if left <= self.limits.total_bytes * 9 // 10:
                break
            # The bytes in its transport are counted until the connection has ended, which is later.
            left -= waiting
            client.give_up()

    def _write(self) -> None:
        connections, self._unwritten = self._unwritten, []
        for connection in connections:
            connection.flush()


class Connection(asyncio.Protocol):
    """Frames from and to one client."""

    __slots__ = (
        "_accepted",
        "_budget",
        "_bytes",
        "_closing",
        "_counted",
        "_endpoint",
        "_frames",
        "_heard",
        "_held",
        "_held_bytes",
        "_parser",
        "_paused",
        "_pinged",
        "_receiver",
        "_slow",
        "_socket",
        "_task",
        "_transport",
        "address",
        "due",
    )

    def __init__(self, endpoint: Endpoint, address: str | None = None) -> None:
        self.address = address
        self._endpoint = endpoint
        self._parser = Parser(endpoint.limits.message_bytes)
        self._budget = Budget(endpoint.limits.reading, endpoint.wheel.now)
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        # The connection's only deadline on the wheel: for acceptance, then for the next ping or its
        # pong, then for the end.
        self.due: int | None = None
        self._accepted = False
        self._pinged = False
        self._heard = False
        self._closing = False
        # Frames to be written, if any, and their size in bytes.
        self._frames: list[bytes] | None = None
        self._bytes = 0
        self._slow = False
        # This connection's share of the endpoint's `waiting`.
        self._counted = 0
        # Whether reading is paused.
        self._paused = False
        # The message that the receiver works on, the events held until then, if any, and their
        # size.
        self._task: asyncio.Future[None] | None = None
        self._held: list[str | Close | Violation] | None = None
        self._held_bytes = 0

    # Called by the receiver.

    def serve(self, receiver: Receiver) -> None:
        """Pass events to `receiver`. Call this once, before any data arrives."""
        self._receiver = receiver

    def written_by(self, sock: socket.socket) -> None:
        """Write directly to the transport's socket while the transport buffers nothing. This costs
        a sixth less.
        """
        self._socket = sock

    def accept(self) -> None:
        """The receiver accepts the client: from now on, only pings have a deadline."""
        self._accepted = True
        # Spread the pings of clients that reconnected at the same time.
        limits = self._endpoint.limits
        self._endpoint.wheel.schedule(self, random.uniform(0.5, 1) * limits.ping_seconds)

    def push(self, frames: bytes) -> None:
        """Write whole frames at the end of this turn of the loop, or when the client reads."""
        if self._closing:
            return
        # A single answer may be larger than the limit, so the limit applies only to slow clients.
        if self._slow and self.waiting > self._endpoint.limits.outbox_bytes:
            self._overflow()
            return
        if self._frames is not None:
            self._frames.append(frames)
        else:
            self._frames = [frames]
            if not self._slow:
                self._endpoint.write_later(self)
        self._bytes += len(frames)
        if self._slow:
            self._account()

    def write(self, frames: bytes) -> None:
        """Write whole frames now, or after frames that were pushed before."""
        if self._frames or self._slow or self._closing or self._socket is None:
            self.push(frames)
            return
        try:
            sent = self._socket.send(frames)
        except OSError:
            # The socket's buffer is full, or the client is gone. The transport handles both.
            sent = 0
        if sent < len(frames) and self._transport is not None:
            self._transport.write(frames[sent:])

    def hold(self) -> None:
        """Make `write` behave like `push` until the pushed frames are written."""
        self.push(b"")

    def offer(self, frames: bytes) -> bool:
        """Push frames that are dispensable, unless the client reads slowly. Returns whether they
        were pushed.
        """
        if self._slow:
            self._endpoint.dropped += 1
            return False
        self.push(frames)
        return True

    def close(self, code: int | None, reason: str = "", last: bytes = b"") -> None:
        """Send the frames `last` and a close frame. The connection ends when the client has
        answered.

        A slow client gets these instead of the frames that wait for it.
        """
        if self._closing or self._transport is None:
            return
        self._closing = True
        waiting = () if self._slow or self._frames is None else self._frames
        self._frames = [*waiting, last, close_frame(code, reason)]
        self._write()
        self._account()
        self._endpoint.wheel.schedule(self, LINGER_SECONDS)

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client to read them, here and in its transport."""
        buffered = self._transport.get_write_buffer_size() if self._transport else 0
        return self._bytes + buffered

    # Called by the endpoint and its wheel.

    def give_up(self) -> None:
        """Too many bytes wait for all clients, and this client is among the slowest."""
        if not self._closing:
            self._overflow()
        elif self._transport is not None:
            # The close frame is already on its way, and the client does not read even that.
            self._transport.abort()

    def flush(self) -> None:
        """The turn of the event loop is over."""
        if self._frames and not self._slow and not self._closing:
            self._write()

    def go_on(self) -> None:
        """Continue reading, if nothing prevents it any more."""
        if (
            (self._paused or self._held)
            and self._transport is not None
            and not self._holds_enough()
            and not self._outbox_is_half_full()
            and not self._is_over_budget()
        ):
            self._read()

    def on_deadline(self) -> None:
        if self._transport is None or self._receiver is None:
            return
        if self._closing:
            self._transport.abort()
        elif not self._accepted:
            self._receiver.silent()
        else:
            self._receiver.beat()
            if not self._closing:
                self._beat()

    def _beat(self) -> None:
        """Send a ping, or check whether the last ping was answered."""
        wheel, limits = self._endpoint.wheel, self._endpoint.limits
        if not self._pinged:
            self._pinged, self._heard = True, False
            self.push(PING)
            wheel.schedule(self, limits.pong_seconds)
        elif self._heard:
            self._pinged = False
            wheel.schedule(self, limits.ping_seconds - limits.pong_seconds)
        elif self._paused and not self._slow:
            # Reading was paused, so the pong may have arrived long ago without being read.
            wheel.schedule(self, limits.pong_seconds)
        elif self._slow and self._receiver is not None:
            self._receiver.overflow()
        elif self._transport is not None:
            self._transport.abort()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # The transport pauses writing as soon as it buffers anything. Later frames wait here, where
        # their size is bounded. Until then, direct writes to the socket cannot overtake other
        # frames.
        self._transport.set_write_buffer_limits(high=0)
        self._endpoint.wheel.schedule(self, self._endpoint.limits.accept_seconds)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._budget.charge_read(len(data))
        self._parser.feed(data)
        if not self._paused:
            self._read()

    def pause_writing(self) -> None:
        # Frames pushed in this turn are still passed to the transport, so that the receiver knows
        # which ones are on their way.
        self.flush()
        self._slow = True
        self._account()
        if self._receiver is not None:
            self._receiver.slow()

    def resume_writing(self) -> None:
        self._slow = False
        self._account()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._closing = True
        self._transport = None
        self._socket = None
        self._frames = None
        self._bytes = 0
        self._held = None
        self._slow = False
        self._account()
        self._endpoint.wheel.cancel(self)
        if self._task is not None:
            # Nobody waits for the answer.
            self._task.cancel()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.gone()

    # Internals.

    def _read(self) -> None:
        """Handle frames that have arrived: at most `TURN`, and only while reading is allowed."""
        frames = read = 0
        more = True
        while frames < TURN:
            frames += 1
            event: Event | None
            if self._held and self._task is None:
                event = self._held.pop(0)
                self._held = self._held or None
                self._held_bytes -= sys.getsizeof(event)
            else:
                event = self._parser.next()
                if event is None:
                    more = False
                    break
                read += 1
            if self._task is not None and self._has_to_wait(event):
                if self._holds_enough():
                    break
            elif isinstance(event, str):
                if self._closing or self._receiver is None:
                    continue
                pending = self._receiver.receive(event)
                if pending is not None:
                    self._task = asyncio.ensure_future(pending)
                    self._task.add_done_callback(self._done)
            else:
                self._control(event)
            if self._outbox_is_half_full():
                break
        self._budget.charge_frames(read)
        if not more and (self._budget.left >= 0 or not self._is_over_budget()):
            if self._paused:
                self._resume()
            return
        self._pause()
        # Otherwise, whatever it waits for calls `go_on`.
        if more and not self._holds_enough() and not self._outbox_is_half_full():
            asyncio.get_running_loop().call_soon(self.go_on)

    def _has_to_wait(self, event: Event) -> bool:
        """Hold an event while the receiver works on a message, unless the event need not wait."""
        if self._closing or isinstance(event, Ping | Pong | Fragment):
            return False
        if self._held is None:
            self._held = []
        self._held.append(event)
        self._held_bytes += sys.getsizeof(event)
        return True

    def _holds_enough(self) -> bool:
        """Whether nothing more may be held while the receiver works on a message."""
        return self._task is not None and self._held_bytes > self._endpoint.limits.message_bytes

    def _control(self, event: Ping | Pong | Close | Violation | Fragment) -> None:
        if isinstance(event, Ping):
            self.push(pong_frame(event.payload))
        elif isinstance(event, Close):
            # Section 5.5.1: answer with the same code. Then the server closes the TCP connection.
            self.close(event.code)
            if self._transport is not None:
                self._transport.close()
        elif isinstance(event, Violation) and self._receiver is not None:
            self._receiver.close(event.code, event.reason)
            # The start of the next frame is unknown now, so no answer can be expected. Closing the
            # socket with unread bytes would reset the connection, and the close code would be lost.
            # So only our half is closed, and further input is dropped.
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write_eof()

    def _outbox_is_half_full(self) -> bool:
        return self._bytes > self._endpoint.limits.outbox_bytes // 2

    def _is_over_budget(self) -> bool:
        """Whether the client is over budget. If so, reading continues later, or the client is
        closed.
        """
        limits, now = self._endpoint.limits, self._endpoint.wheel.now
        if not self._budget.over(limits.reading, now):
            return False
        if self._budget.persists(now) and not self._closing and self._receiver is not None:
            self._receiver.close(CloseCode.POLICY, "too fast: send less, see limits")
        self._endpoint.read_later(self)
        return True

    def _pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            if not self._transport.is_closing():
                self._transport.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _done(self, task: asyncio.Future[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            if self._transport is not None:
                self._transport.abort()
            raise error
        self.go_on()

    def _account(self) -> None:
        """Tell the endpoint how many bytes wait for this client, if it is slow."""
        waiting = self.waiting if self._slow else 0
        more, self._counted = waiting - self._counted, waiting
        self._endpoint.account(self, more, slow=self._slow)

    def _overflow(self) -> None:
        if self._receiver is not None:
            self._receiver.overflow()

    def _write(self) -> None:
        frames = b"".join(self._frames or ())
        held_up = (self._paused or self._held) and self._outbox_is_half_full()
        self._frames = None
        self._bytes = 0
        if self._transport is not None:
            self._transport.write(frames)
        if held_up:
            asyncio.get_running_loop().call_soon(self.go_on)
