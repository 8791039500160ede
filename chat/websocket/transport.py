"""Transports for the bytes of a connection after Tornado's handshake.

Fast: the socket moves to a transport of the event loop (uvloop's, in C), and everything Tornado
allocated for the request is freed. An idle connection is an order of magnitude smaller than with
Tornado, and writing to it is several times cheaper. Safe: the bytes go through Tornado's own
stream, wrapped as a transport. The connection on top does not see the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from chat.websocket.connection import Connection

_CHUNK = 65_536


class Handshake(WebSocketProtocol13):
    """Tornado's side of RFC 6455 section 4.2. `fast` selects the transport used afterwards."""

    def __init__(
        self, handler: WebSocketHandler, connect: Callable[[], Connection], *, fast: bool
    ) -> None:
        # Disable Tornado's pings and compression, because Tornado does not handle frames here.
        super().__init__(handler, False, _WebSocketParams())
        self._connect = connect
        self._fast = fast

    async def _receive_frame_loop(self) -> None:
        """Called by Tornado after the handshake, when the stream is detached from HTTP."""
        # Messages are small and urgent: never delay one to fill a packet.
        self.stream.set_nodelay(True)
        try:
            if self._fast:
                await hand_over(self.stream, self._connect())
            else:
                await StreamTransport(self.stream, self._connect()).run()
        finally:
            # Break the cycles of the handler. Otherwise, it and the whole request (headers, token)
            # stay until the garbage collector runs.
            self.handler.on_ws_connection_close()


async def hand_over(stream: IOStream, connection: Connection) -> None:
    """Move the stream's socket to a transport of the event loop."""
    try:
        # Send the response to the handshake first.
        await stream.write(b"")
        moved = stream.socket.dup()
    except (StreamClosedError, OSError) as error:
        stream.close()
        connection.connection_lost(error)
        return
    # Clients may send frames before they have read that response.
    early = bytes(stream._read_buffer)
    stream.close()
    connection.written_by(moved)
    protocol = _Early(connection, early) if early else connection
    await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, moved)


class _Early(asyncio.Protocol):
    """Passes the bytes that arrived with the handshake to the connection before any later ones."""

    def __init__(self, connection: Connection, data: bytes) -> None:
        self._connection = connection
        self._data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_protocol(self._connection)
        self._connection.connection_made(transport)
        self._connection.data_received(self._data)


class StreamTransport(asyncio.Transport):
    """Tornado's stream as a transport. Writing is paused while the stream buffers anything."""

    def __init__(self, stream: IOStream, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._stream = stream
        self._protocol = protocol
        self._buffered = 0
        self._paused = False
        self._closing = False
        self._reading = asyncio.Event()
        self._reading.set()

    async def run(self) -> None:
        """Transfer bytes until the connection ends."""
        self._protocol.connection_made(self)
        try:
            while True:
                await self._reading.wait()
                self._protocol.data_received(await self._stream.read_bytes(_CHUNK, partial=True))
        except StreamClosedError:
            pass
        finally:
            self._stream.close()
            self._protocol.connection_lost(None)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._stream.closed():
            return
        self._buffered += len(data)
        written = self._stream.write(bytes(data))
        if written.done():
            self._written(len(data))
            return
        written.add_done_callback(lambda _: self._written(len(data)))
        if not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def _written(self, size: int) -> None:
        self._buffered -= size
        if self._paused and not self._buffered:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._buffered:
            self._stream.close()

    def write_eof(self) -> None:
        if not self._stream.writing() and not self._stream.closed():
            with contextlib.suppress(OSError):
                self._stream.socket.shutdown(socket.SHUT_WR)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert (high, low) == (0, None), "writing is paused while anything is held back"

    def get_write_buffer_size(self) -> int:
        return self._buffered

    def is_closing(self) -> bool:
        return self._closing or self._stream.closed()

    def close(self) -> None:
        self._closing = True
        if not self._buffered:
            self._stream.close()

    def abort(self) -> None:
        self._stream.close()

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()
