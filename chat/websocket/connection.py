"""A WebSocket connection after its handshake, over whatever transport carries its bytes.

Writing: what is pushed within one turn of the event loop is written at once. When the client reads
slowly (the kernel takes no more for it), frames wait here; those that were only offered are
dropped, and when more than `outbox_bytes` wait, the receiver is told to give up.

Reading: frame by frame, without tasks or futures. It stops for a client that asks faster than it
reads, for one that has used up its budget, and after so many frames that others should have their
turn. While it has stopped, the socket is not read either. While the receiver works on a message,
those that come after it are held, and pings and pongs are not: reading stops when as much is held
as the largest message may have.

There may be ten thousand of these, nearly all of them idle: no timers, no buffers, no closures per
connection, and slots instead of dictionaries.
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

# After the close frame: time for the client to read it and to answer.
LINGER_SECONDS = 2.0
# Frames of one client before others get their turn.
TURN = 64


class Receiver(Protocol):
    """Who is told what comes from a client; called on the event loop."""

    def receive(self, text: str) -> Awaitable[None] | None:
        """A message came. The next one waits for what is returned, if anything."""

    def silent(self) -> None:
        """The client has not been accepted in time."""

    def beat(self) -> None:
        """It is time for a ping, or for its pong: at least once in `ping_seconds`."""

    def slow(self) -> None:
        """All that was pushed so far is on its way to the client; what follows waits here."""

    def overflow(self) -> None:
        """More waits for the client than it may. Called from within `push`."""

    def close(self, code: CloseCode, reason: str) -> None:
        """The client broke the protocol: close the connection with this code and reason."""

    def gone(self) -> None:
        """The connection is no more, whoever ended it. Nothing is called after this."""


class Waiting(Protocol):
    """Something that a client has asked for and does not read."""

    @property
    def address(self) -> str | None:
        """Whose client it is; None if that is not known."""

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client to read."""

    def give_up(self) -> None:
        """Too much waits for all clients, and more for this one's address than for others."""


@dataclass(frozen=True, slots=True)
class Limits:
    message_bytes: int
    # What a client may make the server read.
    reading: Allowance
    # What may wait for one client, and for all of them.
    outbox_bytes: int
    total_bytes: int
    # Until the receiver accepts the client.
    accept_seconds: float
    ping_seconds: float
    pong_seconds: float


class Endpoint:
    """What all connections of a server share: their limits, one timer wheel, and the list of those
    that have something to write at the end of the event loop's turn.
    """

    def __init__(self, limits: Limits, wheel: Wheel) -> None:
        self.limits = limits
        self.wheel = wheel
        # Frames that were offered to clients too slow to take them.
        self.dropped = 0
        # How often one of them was not read because it had used up its budget.
        self.held_off = 0
        # Bytes that wait for clients that read slowly, and those clients: WebSockets, and what does
        # not read answers of HTTP.
        self.waiting = 0
        self._slow: set[Waiting] = set()
        self._shedding = False
        self._unwritten: list[Connection] = []
        self._corked = False
        # Those that are not read until their budget allows it; the deadline is for all of them.
        self._over_budget: dict[Connection, None] = {}
        self.due: int | None = None

    def cork(self) -> None:
        """Much is pushed now: do not write before `uncork`, and then not later either.

        That saves the event loop a turn, which costs as much as a tenth of all that is done for a
        message with one reader.
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
        """Have it go on reading when its budget may allow it."""
        if not self._over_budget:
            self.wheel.schedule(self, TICK_SECONDS)
        self._over_budget[connection] = None
        self.held_off += 1

    def on_deadline(self) -> None:
        connections, self._over_budget = self._over_budget, {}
        for connection in connections:
            connection.go_on()

    def account(self, client: Waiting, more: int, *, slow: bool) -> None:
        """Count `more` bytes that wait for a client, or fewer; if it is `slow`, it may be given up
        for the sake of others.
        """
        self.waiting += more
        if slow:
            self._slow.add(client)
        else:
            self._slow.discard(client)
        if self.waiting > self.limits.total_bytes and not self._shedding:
            self._shedding = True
            # Not now: somebody is going through the members of a room.
            asyncio.get_running_loop().call_soon(self._shed)

    def _shed(self) -> None:
        """Give up clients until there is some room again: always the one for whom most waits, of
        the address for whose clients most waits.
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
            # What its transport holds is counted until it has ended, which is later than now.
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
        # The one deadline on the wheel: to be accepted, then the next ping or its pong, then the
        # end.
        self.due: int | None = None
        self._accepted = False
        self._pinged = False
        self._heard = False
        self._closing = False
        # What waits to be written, and how much that is.
        self._frames: list[bytes] = []
        self._bytes = 0
        self._slow = False
        # How much of the endpoint's `waiting` is this connection's.
        self._counted = 0
        # Whether it has stopped to read.
        self._paused = False
        # The message that the receiver works on, what came after it, and how much that takes.
        self._task: asyncio.Future[None] | None = None
        self._held: list[str | Close | Violation] = []
        self._held_bytes = 0

    # What the receiver asks for.

    def serve(self, receiver: Receiver) -> None:
        """Hand what comes to `receiver`; called once, before anything can come."""
        self._receiver = receiver

    def written_by(self, sock: socket.socket) -> None:
        """Write to this socket of the transport directly, while the transport holds nothing back:
        that costs a sixth less.
        """
        self._socket = sock

    def accept(self) -> None:
        """The client is one the receiver wants: it has no deadline any more but that of pings."""
        self._accepted = True
        # Those who came back all at once are not pinged all at once.
        limits = self._endpoint.limits
        self._endpoint.wheel.schedule(self, random.uniform(0.5, 1) * limits.ping_seconds)

    def push(self, frames: bytes) -> None:
        """Write whole frames: at the end of this turn of the loop, or when the client reads."""
        if self._closing:
            return
        if self._slow:
            # One answer may be larger than the limit: slow is who does not take it.
            if self.waiting > self._endpoint.limits.outbox_bytes:
                self._overflow()
                return
        elif not self._frames:
            self._endpoint.write_later(self)
        self._frames.append(frames)
        self._bytes += len(frames)
        if self._slow:
            self._account()

    def write(self, frames: bytes) -> None:
        """Write whole frames now, or behind those that were pushed."""
        if self._frames or self._slow or self._closing or self._socket is None:
            self.push(frames)
            return
        try:
            sent = self._socket.send(frames)
        except OSError:
            # Its buffer is full, or the client is gone: the transport deals with either.
            sent = 0
        if sent < len(frames) and self._transport is not None:
            self._transport.write(frames[sent:])

    def hold(self) -> None:
        """Until what is pushed is written, push also what would be written at once."""
        self.push(b"")

    def offer(self, frames: bytes) -> bool:
        """Push frames that nobody misses, unless the client reads slowly; whether that was done."""
        if self._slow:
            self._endpoint.dropped += 1
            return False
        self.push(frames)
        return True

    def close(self, code: int | None, reason: str = "", last: bytes = b"") -> None:
        """Send the frames `last` and a close frame, and end when the client has answered it.

        A client that reads slowly gets these instead of what waits for it.
        """
        if self._closing or self._transport is None:
            return
        self._closing = True
        if self._slow:
            self._frames.clear()
        self._frames += (last, close_frame(code, reason))
        self._write()
        self._account()
        self._endpoint.wheel.schedule(self, LINGER_SECONDS)

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client to read, here and in its transport."""
        buffered = self._transport.get_write_buffer_size() if self._transport else 0
        return self._bytes + buffered

    # What the endpoint and its wheel tell.

    def give_up(self) -> None:
        """Too much waits for all clients, and this one is among the slowest."""
        if not self._closing:
            self._overflow()
        elif self._transport is not None:
            # It was told, and still does not take even that.
            self._transport.abort()

    def flush(self) -> None:
        """The turn of the event loop is over."""
        if self._frames and not self._slow and not self._closing:
            self._write()

    def go_on(self) -> None:
        """Read what was left, if nothing speaks against it any more."""
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
        """Ping, or see whether the last ping was answered."""
        wheel, limits = self._endpoint.wheel, self._endpoint.limits
        if not self._pinged:
            self._pinged, self._heard = True, False
            self.push(PING)
            wheel.schedule(self, limits.pong_seconds)
        elif self._heard:
            self._pinged = False
            wheel.schedule(self, limits.ping_seconds - limits.pong_seconds)
        elif self._paused and not self._slow:
            # It was not listened to: its answer may have been here for long.
            wheel.schedule(self, limits.pong_seconds)
        elif self._slow and self._receiver is not None:
            self._receiver.overflow()
        elif self._transport is not None:
            self._transport.abort()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # It pauses writing as soon as it holds anything back: what then comes waits here, where it
        # is bounded, and until then nothing can be overtaken by what goes to the socket directly.
        self._transport.set_write_buffer_limits(high=0)
        self._endpoint.wheel.schedule(self, self._endpoint.limits.accept_seconds)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._budget.charge_read(len(data))
        self._parser.feed(data)
        if not self._paused:
            self._read()

    def pause_writing(self) -> None:
        # What was pushed in this turn still goes, behind what the transport holds: so the receiver
        # knows what does.
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
        self._frames.clear()
        self._bytes = 0
        self._held.clear()
        self._slow = False
        self._account()
        self._endpoint.wheel.cancel(self)
        if self._task is not None:
            # Nobody waits for the answer.
            self._task.cancel()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.gone()

    # How it goes.

    def _read(self) -> None:
        """Act on the frames that came: for a turn, and as far as it may go on now."""
        frames = read = 0
        more = True
        while frames < TURN:
            frames += 1
            event: Event | None
            if self._held and self._task is None:
                event = self._held.pop(0)
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
        # Otherwise what it waits for makes it go on.
        if more and not self._holds_enough() and not self._outbox_is_half_full():
            asyncio.get_running_loop().call_soon(self.go_on)

    def _has_to_wait(self, event: Event) -> bool:
        """Hold what comes while the receiver works on a message, unless it need not wait."""
        if self._closing or isinstance(event, Ping | Pong | Fragment):
            return False
        self._held.append(event)
        self._held_bytes += sys.getsizeof(event)
        return True

    def _holds_enough(self) -> bool:
        """Whether nothing more may be held for a receiver that works on a message."""
        return self._task is not None and self._held_bytes > self._endpoint.limits.message_bytes

    def _control(self, event: Ping | Pong | Close | Violation | Fragment) -> None:
        if isinstance(event, Ping):
            self.push(pong_frame(event.payload))
        elif isinstance(event, Close):
            # Section 5.5.1: answered in kind, and then it is the server that hangs up.
            self.close(event.code)
            if self._transport is not None:
                self._transport.close()
        elif isinstance(event, Violation) and self._receiver is not None:
            self._receiver.close(event.code, event.reason)
            # Where its frames begin is not known any more, so no answer can be waited for. Hanging
            # up with bytes unread would reset the connection, and the code be lost: so only our
            # half ends, and what still comes is dropped.
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write_eof()

    def _outbox_is_half_full(self) -> bool:
        return self._bytes > self._endpoint.limits.outbox_bytes // 2

    def _is_over_budget(self) -> bool:
        """Whether the client has used up its budget; it then goes on later, or is closed."""
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
        """Tell the endpoint what waits for this client, if it reads slowly."""
        waiting = self.waiting if self._slow else 0
        more, self._counted = waiting - self._counted, waiting
        self._endpoint.account(self, more, slow=self._slow)

    def _overflow(self) -> None:
        if self._receiver is not None:
            self._receiver.overflow()

    def _write(self) -> None:
        frames = b"".join(self._frames)
        held_up = (self._paused or self._held) and self._outbox_is_half_full()
        self._frames.clear()
        self._bytes = 0
        if self._transport is not None:
            self._transport.write(frames)
        if held_up:
            asyncio.get_running_loop().call_soon(self.go_on)
