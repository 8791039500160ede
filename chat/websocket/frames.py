"""WebSocket frames according to RFC 6455, without I/O: bytes in, events out, and builders for
frames.

A `Parser` is fed chunks as they arrive. Each call of `next` reads one frame; the caller limits how
many frames it reads at a time. Apart from unread input, the parser keeps the unfinished message (at
most `limit` bytes, and only those that arrived) and the start of an unfinished header or control
frame (at most 130 bytes). A protocol violation is expected input from strangers, so it is not an
exception but the last event, a `Violation`.

Extensions are not negotiated, so reserved bits are a violation. A chat accepts text only, so a
binary message is refused with 1003, as section 7.4.1 allows.
"""

from __future__ import annotations

import codecs
import struct
from typing import NamedTuple

from tornado.util import _websocket_mask as unmask

from chat.protocol import CloseCode

# Maximum payload of a control frame (section 5.5).
CONTROL_LIMIT = 125
# Maximum number of frames per message. Libraries send one, or a few thousand bytes in each.
MOST_FRAGMENTS = 1024

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL, _RESERVED, _OPCODE, _MASKED, _SIZE = 0x80, 0x70, 0x0F, 0x80, 0x7F

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


# Events from a client; a text message is its `str`.


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


class Close(NamedTuple):
    """`code` is None if the client gave none."""

    code: int | None
    reason: str


class Fragment(NamedTuple):
    """A frame of an unfinished message. It has no content yet, but it counts as read."""


class Violation(NamedTuple):
    """The client violated the protocol or one of our limits: close with this code and reason."""

    code: CloseCode
    reason: str


Event = str | Ping | Pong | Close | Violation | Fragment

_FRAGMENT = Fragment()


class _BrokenError(Exception):
    """Leaves nested parser methods with a `Violation`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(code, reason)
        self.violation = Violation(code, reason)


class Parser:
    """Parses the bytes of one client. Input after a `Close` or a `Violation` is ignored."""

    __slots__ = (
        "_at",
        "_data",
        "_decoder",
        "_ended",
        "_final",
        "_fragments",
        "_limit",
        "_mask",
        "_message",
        "_missing",
    )

    def __init__(self, limit: int) -> None:
        """Accept messages of up to `limit` bytes."""
        self._limit = limit
        self._ended = False
        # The input, and the position up to which it was read.
        self._data = b""
        self._at = 0
        # The unfinished message, its number of frames so far, and the decoder that detects invalid
        # UTF-8 early. Without a decoder there is no unfinished message.
        self._decoder: codecs.IncrementalDecoder | None = None
        self._message: bytearray | bytes = b""
        self._fragments = 0
        # The current frame of that message: missing bytes, mask, and whether it is the last frame.
        self._missing = 0
        self._mask = b""
        self._final = 0

    def feed(self, data: bytes) -> None:
        """Add input."""
        if not self._ended:
            self._data = self._data[self._at :] + data if self._data else data
            self._at = 0

    def next(self) -> Event | None:
        """Read the next frame and return its event; None if the frame is incomplete."""
        try:
            event = self._payload(self._at) if self._missing else self._frame()
        except _BrokenError as broken:
            event = broken.violation
            self._end()
        if event is None or self._at == len(self._data):
            self._data, self._at = self._data[self._at :], 0
        return event

    def _frame(self) -> Event | None:
        """Read the frame that starts here.

        Returns None while its header, or a whole control frame, is incomplete. Each rule is checked
        as soon as its bytes are there, so that an invalid frame is refused without waiting for its
        rest.
        """
        data, at = self._data, self._at
        if len(data) - at < 2:
            return None
        first, second = data[at], data[at + 1]
        opcode, size = first & _OPCODE, second & _SIZE
        self._check(first, second, opcode, size)
        start = at + 2
        if size > CONTROL_LIMIT:
            # 126 and 127 announce a size of two and of eight bytes.
            start += 2 if size == 126 else 8
            if start > len(data):
                return None
            least = 126 if size == 126 else 1 << 16
            size = int.from_bytes(data[at + 2 : start], "big")
            if size < least or size >> 63:
                raise _BrokenError(CloseCode.PROTOCOL_ERROR, "sizes take as few bytes as they can")
        body = start + 4
        end = body + size
        if opcode >= _CLOSE:
            if end > len(data):
                return None
            self._at = end
            return self._control(opcode, unmask(data[start:body], data[body:end]))
        if len(self._message) + size > self._limit:
            raise _BrokenError(CloseCode.TOO_BIG, f"send at most {self._limit} bytes")
        if body > len(data):
            return None
        mask = data[start:body]
        if self._decoder is None:
            if first & _FINAL and end <= len(data):
                # A whole message in one frame, which is the usual case.
                self._at = end
                return _text(unmask(mask, data[body:end]))
            self._decoder, self._message = _Utf8Decoder(), bytearray()
        self._fragments += 1
        if self._fragments > MOST_FRAGMENTS:
            raise _BrokenError(
                CloseCode.POLICY, f"send a message in at most {MOST_FRAGMENTS} frames"
            )
        self._missing, self._mask, self._final = size, mask, first & _FINAL
        return self._payload(body)

    def _check(self, first: int, second: int, opcode: int, size: int) -> None:
        if first & _RESERVED:
            raise _BrokenError(CloseCode.PROTOCOL_ERROR, "reserved bits are set")
        if not second & _MASKED:
            raise _BrokenError(CloseCode.PROTOCOL_ERROR, "frames of clients are masked")
        if opcode >= _CLOSE:
            if opcode > _PONG:
                raise _BrokenError(CloseCode.PROTOCOL_ERROR, "unknown opcode")
            if size > CONTROL_LIMIT or not first & _FINAL:
                raise _BrokenError(CloseCode.PROTOCOL_ERROR, "control frames are short and whole")
        else:
            if opcode > _BINARY:
                raise _BrokenError(CloseCode.PROTOCOL_ERROR, "unknown opcode")
            if (opcode == _CONTINUATION) != (self._decoder is not None):
                raise _BrokenError(CloseCode.PROTOCOL_ERROR, "fragments are out of order")
            if opcode == _BINARY:
                raise _BrokenError(CloseCode.NOT_TEXT, "send text")

    def _payload(self, at: int) -> Event | None:
        """Read what has arrived of the current data frame, which continues at `at`."""
        assert self._decoder is not None
        piece = self._data[at : at + self._missing]
        self._at = at + len(piece)
        self._missing -= len(piece)
        last = bool(self._final) and not self._missing
        payload = unmask(self._mask, piece)
        try:
            self._decoder.decode(payload, last)
        except UnicodeDecodeError:
            raise _BrokenError(CloseCode.NOT_UTF8, "send UTF-8") from None
        # The first half of a surrogate pair: Python's decoder would refuse it only after its last
        # byte.
        if b"\xed\xa0" <= self._decoder.getstate()[0] < b"\xee":
            raise _BrokenError(CloseCode.NOT_UTF8, "send UTF-8")
        self._message += payload
        if self._missing:
            turn = len(piece) % 4
            self._mask = self._mask[turn:] + self._mask[:turn]
            return None
        if not last:
            return _FRAGMENT
        text = self._message.decode()
        self._decoder, self._message, self._fragments = None, b"", 0
        return text

    def _control(self, opcode: int, payload: bytes) -> Event:
        if opcode == _PING:
            return Ping(payload)
        if opcode == _PONG:
            return Pong(payload)
        code = None
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) == 1 or not _may_be_sent(code):
                raise _BrokenError(CloseCode.PROTOCOL_ERROR, "unknown close code")
        reason = _text(payload[2:])
        self._end()
        return Close(code, reason)

    def _end(self) -> None:
        self._ended = True
        self._missing = 0
        self._at = len(self._data)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _BrokenError(CloseCode.NOT_UTF8, "send UTF-8") from None


def _may_be_sent(code: int) -> bool:
    """Whether a client may close with `code` (section 7.4 and IANA's registry)."""
    return (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999


# Frames that the server sends: never masked, never fragmented (section 5.1).

PING = b"\x89\x00"


def text_frame(payload: bytes) -> bytes:
    """A text message in one frame. It is built once for all clients that get it."""
    size = len(payload)
    if size < 126:
        return b"\x81%c" % size + payload
    if size < 1 << 16:
        return b"\x81\x7e" + struct.pack("!H", size) + payload
    return b"\x81\x7f" + struct.pack("!Q", size) + payload


def payload_of(frame: bytes) -> bytes:
    """What `text_frame` was given."""
    return frame[{0x7E: 4, 0x7F: 10}.get(frame[1], 2) :]


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with `payload`, at most 125 bytes."""
    return b"\x8a%c" % len(payload) + payload


def close_frame(code: int | None, reason: str = "") -> bytes:
    """A close frame with code and reason. The reason is cut to the 123 bytes that fit."""
    if code is None:
        return b"\x88\x00"
    words = reason.encode()[: CONTROL_LIMIT - 2].decode(errors="ignore").encode()
    return b"\x88%c" % (2 + len(words)) + struct.pack("!H", code) + words
