"""Accepts connections: no more than the process can hold, and without a busy loop when it is full.

A connection is pending until it becomes a WebSocket. Page and API requests and silent connections
stay pending. Their number is limited, in total and per address. If an address exceeds its limit,
its oldest pending connection is closed. If the total is reached, the oldest one is closed if it is
older than a second; otherwise new connections wait in the kernel's queue. So strangers who hold
connections open cannot lock out others.

Per turn of the event loop, a few first requests of connections are read, and one further request.
So a client that sends many requests at once does not make others wait. Each connection is charged
to its address, and so is each small piece of a request's head. While an address is over its budget,
its new connections are closed.

When the process has no descriptor left (others use descriptors, too), the spare one serves the next
connection, and accepting pauses for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import bind_sockets

log = logging.getLogger("chat.listener")

# Length of the accept queue. All clients of a dead replica connect at once, and clients that the
# kernel rejects retry after one second, then two, four... The kernel's limit is net.core.somaxconn.
BACKLOG = 4096
# Connections to accept per turn. A handshake takes several turns, so several times as many are
# pending when all arrive at once.
TURN = 16
# First requests of connections to read per turn. With as few as are accepted, handshakes that
# arrive late would wait, and push each other out.
FIRST_REQUESTS = 4 * TURN
# Maximum number of lines in a request's head. Reading a line takes about 1 µs; browsers send some
# twenty.
HEAD_LINES = 100
# A head may arrive in this many reads; each further read is charged like a request.
HEAD_READS = 8
# Bytes per read of a request, which is usually smaller. Bytes that arrive early are kept.
READ_BYTES = 4096
WEBSOCKET_READ_BYTES = 65_536
# How much of what is too large is read and dropped, so that its client gets the answer.
MOST_DISCARDED = 65_536
# Others need not wait for a handshake that takes longer than this.
GRACE_SECONDS = 1.0
FULL_REST_SECONDS = 0.05
EXHAUSTED_REST_SECONDS = 0.5
LOG_EVERY_SECONDS = 60.0
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Account(Protocol):
    def __call__(self, client: PendingStream, more: int, *, slow: bool) -> None:
        """Add `more` (or a negative number) to the bytes that wait for a client. It is `slow`
        while there are any.
        """


class PendingStream(IOStream):
    """A connection that is not a WebSocket yet. A response that its client does not read is counted
    (`Account`).
    """

    def __init__(self, connection: socket.socket, listener: Listener, address: str | None) -> None:
        super().__init__(
            connection, max_buffer_size=listener.buffer_bytes, read_chunk_size=READ_BYTES
        )
        self.address = address
        self.since = time.monotonic()
        # Size of the current request's head, in bytes.
        self.head_size = 0
        # For the next head: the number of reads so far, and the bytes already searched for its end.
        self._reads = self._searched = 0
        self._too_large = False
        self._listener = listener
        # Whether the connection is closed, or a WebSocket, which counts its waiting bytes itself.
        self._over = False
        self._counted = 0

    def settled(self) -> None:
        """The connection is a WebSocket now."""
        self.read_chunk_size = WEBSOCKET_READ_BYTES
        self._leave()

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client to read them."""
        return 0 if self._over else len(self._write_buffer)

    def give_up(self) -> None:
        self._listener.give_up(self, "unread")

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Future[bytes]:
        """Read the head of a request when its turn comes."""
        return asyncio.ensure_future(self._read_in_turn(super().read_until_regex(regex, max_bytes)))

    async def _read_in_turn(self, reading: Awaitable[bytes]) -> bytes:
        head = await reading
        self._reads = 0
        await (self._listener.further if self.head_size else self._listener.first).enter()
        if head.count(b"\n") > HEAD_LINES and not self.closed():
            self._listener.give_up(self, "headers")
        if self.closed():
            raise StreamClosedError
        self.head_size = len(head)
        return head

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        size = super().read_from_fd(buf)
        if size and not self._over:
            self._reads += 1
            if self._reads > HEAD_READS and not self._listener.charge(self.address):
                return 0  # As if it had ended.
        return size

    def _find_read_pos(self) -> int | None:
        """Find the end of the head. Tornado would search from the start each time more of it
        arrives.
        """
        if self._read_regex is None:
            return super()._find_read_pos()
        # The end marker has four bytes and may start in the part that was searched already.
        found = self._read_regex.search(self._read_buffer, max(0, self._searched - 3))
        self._searched = 0 if found else len(self._read_buffer)
        self._check_max_bytes(self._read_regex, found.end() if found else self._searched)
        return found.end() if found else None

    def _check_max_bytes(self, delimiter: Any, size: int) -> None:
        most = self._read_max_bytes
        # Tornado checks once more when it closes.
        if most is not None and size > most and not self._too_large:
            self._too_large = True
            self._refuse_head(most)
        super()._check_max_bytes(delimiter, size)

    def _refuse_head(self, most: int) -> None:
        """Answer that the head is too large, if that works without waiting. Tornado closes then."""
        why = f"431: request headers have more than CHAT_HEADER_BYTES={most}\n".encode()
        answer = (
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(why)
        )
        self._listener.refused("headers")
        with contextlib.suppress(OSError):
            self.socket.send(answer + why)
        self.discard()

    def discard(self) -> None:
        """Read and drop what has arrived, before the connection is closed: unread input would make
        the kernel reset it and discard the answer.
        """
        if not self.closed():
            with contextlib.suppress(OSError):
                self.socket.recv(MOST_DISCARDED)

    def write(self, data: bytes | memoryview) -> Future[None]:
        written = super().write(data)
        self._account()
        return written

    def _handle_write(self) -> None:
        super()._handle_write()
        self._account()

    def close_fd(self) -> None:
        super().close_fd()
        self._leave()

    def _leave(self) -> None:
        self._over = True
        self._account()
        self._listener.forget(self)

    def _account(self) -> None:
        waiting = self.waiting
        more, self._counted = waiting - self._counted, waiting
        if more:
            self._listener.account(self, more, slow=waiting > 0)


class Turnstile:
    """Lets `each` callers through per turn of the event loop, in order."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._entered = 0
        self._waiting: deque[Future[None]] = deque()

    async def enter(self) -> None:
        loop = asyncio.get_running_loop()
        if self._entered == self._each:
            self._waiting.append(loop.create_future())
            await self._waiting[-1]
            return
        if not self._entered:
            loop.call_soon(self._next_turn)
        self._entered += 1

    def _next_turn(self) -> None:
        self._entered = 0
        while self._waiting and self._entered < self._each:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                self._entered += 1
        if self._entered:
            asyncio.get_running_loop().call_soon(self._next_turn)


class Listener:
    """Accepts the connections of one port, for `server`.

    At most `most` connections are pending, and `each` per address. `charged` returns the address to
    charge for a peer; None for a proxy, whose clients are charged instead. `admits` says whether
    one more connection of an address is accepted now. `charges` takes one request from the budget
    of an address and says whether there was one. `on_refused` gets the reason for each closed
    connection. `account` gets the bytes that wait for clients.
    """

    def __init__(
        self,
        server: HTTPServer,
        *,
        most: int,
        each: int,
        charged: Callable[[str], str | None],
        admits: Callable[[str], bool],
        charges: Callable[[str], bool],
        on_refused: Callable[[str], None],
        account: Account,
    ) -> None:
        self._server = server
        self.buffer_bytes = server.max_buffer_size
        self._most = most
        self._each = each
        self._charged = charged
        self._admits = admits
        self._charges = charges
        self._on_refused = on_refused
        self.account = account
        self._sockets: list[socket.socket] = []
        self._resting: asyncio.TimerHandle | None = None
        # The oldest first.
        self._pending: dict[PendingStream, None] = {}
        self._of_address: dict[str, dict[PendingStream, None]] = {}
        # Requests wait here for their turn: the first one of each connection, and further ones.
        self.first = Turnstile(FIRST_REQUESTS)
        self.further = Turnstile(1)
        self._spare: int | None = None
        self._logged = -LOG_EVERY_SECONDS

    @property
    def pending(self) -> int:
        return len(self._pending)

    def listen(self, port: int, address: str) -> int:
        """Listen on `port`, or on a free one if it is 0, and return it. Raises `OSError`."""
        try:
            self._sockets = bind_sockets(port, address, backlog=BACKLOG)
        except OSError as error:
            raise OSError(f"port {port} of {address or 'all addresses'}: {error}") from None
        self._keep_spare()
        self._resume()
        bound: int = self._sockets[0].getsockname()[1]
        return bound

    def stop(self) -> None:
        """Stop accepting. Open connections continue."""
        self._pause()
        for listening in self._sockets:
            listening.close()
        self._sockets = []
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def forget(self, stream: PendingStream) -> None:
        """The connection has ended, or has become a WebSocket."""
        self._pending.pop(stream, None)
        if stream.address in self._of_address:
            mine = self._of_address[stream.address]
            mine.pop(stream, None)
            if not mine:
                del self._of_address[stream.address]
        if self._sockets:
            self._keep_spare()

    def refused(self, reason: str) -> None:
        self._on_refused(reason)

    def give_up(self, stream: PendingStream, reason: str) -> None:
        self.refused(reason)
        stream.close()

    def charge(self, address: str | None) -> bool:
        """Charge a piece of a head to the address. Returns whether the budget allows it."""
        if address is None or self._charges(address):
            return True
        self._on_refused("address_requests")
        return False

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(TURN):
            if len(self._pending) >= self._most:
                oldest = next(iter(self._pending))
                if time.monotonic() - oldest.since < GRACE_SECONDS:
                    self._rest(FULL_REST_SECONDS)
                    return
                self._close_oldest(self._pending, "pending")
            try:
                connection, peer = listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                if not self._give_spare(error):
                    self._rest(EXHAUSTED_REST_SECONDS)
                    return
                continue
            self._take(connection, peer)

    def _take(self, connection: socket.socket, peer: Any) -> None:
        address = self._charged(peer[0])
        if address is not None and not self._admits(address):
            self._on_refused("address_requests")
            connection.close()
            return
        if address is not None and len(self._of_address.get(address, ())) >= self._each:
            self._close_oldest(self._of_address[address], "address_pending")
        connection.setblocking(False)
        stream = PendingStream(connection, self, address)
        self._pending[stream] = None
        if address is not None:
            self._of_address.setdefault(address, {})[stream] = None
        self._server.handle_stream(stream, peer)

    def _close_oldest(self, connections: dict[PendingStream, None], reason: str) -> None:
        self._on_refused(reason)
        next(iter(connections)).close()

    def _give_spare(self, error: OSError) -> bool:
        """Use the spare descriptor for one more connection. Returns whether there was one."""
        self._on_refused("descriptors")
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY_SECONDS:
            self._logged = now
            log.warning(
                "no file descriptor is left (%s): new connections wait; allow more (ulimit -n), or"
                " lower CHAT_CLIENTS",
                error.strerror,
            )
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        return True

    def _keep_spare(self) -> None:
        if self._spare is None:
            try:
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                # No spare descriptor: the next connection that ends provides one.
                return

    def _rest(self, seconds: float) -> None:
        """Pause accepting. Connections wait in the kernel's queue."""
        self._pause()
        self._resting = asyncio.get_running_loop().call_later(seconds, self._resume)

    def _pause(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
            return
        for listening in self._sockets:
            asyncio.get_running_loop().remove_reader(listening)

    def _resume(self) -> None:
        self._resting = None
        for listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)
