"""Frames of clients, read by the letter of RFC 6455, and closed with the code that says why."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from tornado.iostream import StreamClosedError
from tornado.util import _websocket_mask
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from chat.protocol import CloseCode

# After a close code that the client did not expect: time to read it, while what it still sends is
# dropped. A socket closed with unread bytes is reset, and the code is lost.
LINGER_SECONDS = 2.0


class ViolationError(Exception):
    """The client broke the WebSocket protocol or one of our limits; the connection cannot go on."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StrictWebSocket(WebSocketProtocol13):
    """Tornado's WebSocket, reading frames by the letter of RFC 6455.

    Tornado 6.6 takes unmasked frames, hangs up without a close code on bad UTF-8 and on broken
    frames, and so soon after 1009 that the code is lost. Here each of these ends with the code the
    RFC names.
    """

    # Frames and bytes to take from one client before others get their turn.
    _TURN = 65_536
    _FRAME_COST = 1024

    async def _receive_frame_loop(self) -> None:
        work = 0
        try:
            while not self.client_terminated:
                before = self._wire_bytes_in
                await self._receive_frame()
                work += self._FRAME_COST + self._wire_bytes_in - before
                if work >= self._TURN:
                    work = 0
                    await asyncio.sleep(0)
        except StreamClosedError:
            self._abort()
        except ViolationError as violation:
            assert isinstance(self.handler, WebSocketHandler)
            self.handler.close(violation.code, violation.reason)
            await self._linger()
            self._abort()
        finally:
            self.handler.on_ws_connection_close(self.close_code, self.close_reason)

    async def _receive_frame(self) -> None:
        first, second = await self._read_bytes(2)
        final, opcode, size = bool(first & 0x80), first & 0x0F, second & 0x7F
        control = opcode >= 0x8
        fragments = self._fragmented_message_buffer
        if first & 0x70:
            raise ViolationError(CloseCode.PROTOCOL_ERROR, "reserved bits are set")
        if not second & 0x80:
            raise ViolationError(CloseCode.PROTOCOL_ERROR, "frames of clients are masked")
        if opcode not in (0x0, 0x1, 0x2, 0x8, 0x9, 0xA):
            raise ViolationError(CloseCode.PROTOCOL_ERROR, "unknown opcode")
        if control and (size > 125 or not final):
            raise ViolationError(CloseCode.PROTOCOL_ERROR, "control frames are short and whole")
        if not control and (opcode == 0x0) != (fragments is not None):
            raise ViolationError(CloseCode.PROTOCOL_ERROR, "fragments are out of order")
        if opcode == 0x2:
            raise ViolationError(CloseCode.NOT_TEXT, "send text")
        if size == 126:
            (size,) = struct.unpack("!H", await self._read_bytes(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._read_bytes(8))
        if not control and size + len(fragments or b"") > self.params.max_message_size:
            raise ViolationError(
                CloseCode.TOO_BIG, f"send at most {self.params.max_message_size} bytes"
            )
        mask = await self._read_bytes(4)
        data = _websocket_mask(mask, await self._read_bytes(size))
        if control:
            self._control(opcode, data)
        elif not final:
            if fragments is None:
                self._fragmented_message_buffer = fragments = bytearray()
            fragments += data
        else:
            if fragments is not None:
                fragments += data
                data = bytes(fragments)
                self._fragmented_message_buffer = None
            await self._message(data)

    async def _message(self, data: bytes) -> None:
        if self.server_terminated:
            return
        answered = self._run_callback(self.handler.on_message, _text(data))
        if answered is not None:
            await answered

    def _control(self, opcode: int, data: bytes) -> None:
        if opcode == 0x9:
            self._send_pong(data)
        elif opcode == 0xA:
            self._received_pong = True
        else:
            code = None
            if data:
                code = int.from_bytes(data[:2], "big")
                if len(data) < 2 or not _may_be_sent(code):
                    raise ViolationError(CloseCode.PROTOCOL_ERROR, "unknown close code")
                self.close_reason = _text(data[2:])
            self.close_code = code
            self.client_terminated = True
            self.close(code)

    async def _linger(self) -> None:
        """Let the client read why: end our half of the connection, and drop what still comes."""
        if not self.stream.writing() and not self.stream.closed():
            with contextlib.suppress(OSError):
                self.stream.socket.shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while True:
                    await self.stream.read_bytes(65_536, partial=True)
        except (StreamClosedError, TimeoutError):
            pass


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ViolationError(CloseCode.NOT_UTF8, "send UTF-8") from None


def _may_be_sent(code: int) -> bool:
    """Whether a client may close with `code` (RFC 6455 section 7.4, IANA's registry)."""
    return (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999
