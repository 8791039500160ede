"""WebSocket frames by the letter of RFC 6455, without I/O: bytes in, events out, and frames built.

A `Parser` is fed chunks as they come and may be fed byte by byte. What it keeps between two of them
is bounded by its limit: the unfinished message (at most `limit` bytes of UTF-8, decoded as it
comes) and the beginning of an unfinished header or control frame (at most 130 bytes). A broken rule
is no exception but the last event, a `Violation`: whoever is fed by a stranger expects it.

Extensions are not negotiated, so reserved bits break the protocol; a chat takes text alone, so a
binary message is refused with 1003, as section 7.4.1 allows.
"""

from __future__ import annotations

import codecs
import struct
from typing import NamedTuple

from tornado.util import _websocket_mask as unmask

from chat.protocol import CloseCode

# Section 5.5: longer ones are no control frames.
CONTROL_LIMIT = 125

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL, _RESERVED, _OPCODE, _MASKED, _SIZE = 0x80, 0x70, 0x0F, 0x80, 0x7F

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


# What may come from a client; a text message is its `str`.


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


class Close(NamedTuple):
    """`code` is None if the client gave none."""

    code: int | None
    reason: str


class Violation(NamedTuple):
    """The client broke the protocol or a limit of ours: close with this code and reason."""

    code: CloseCode
    reason: str


Event = str | Ping | Pong | Close | Violation


class _BrokenError(Exception):
    """The way out of the parser's depths, with a `Violation`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(code, reason)
        self.violation = Violation(code, reason)


class Parser:
    """What a client's bytes say. After a `Close` or a `Violation`, nothing they say counts."""

    __slots__ = (
        "_decoder",
        "_ended",
        "_final",
        "_held",
        "_limit",
        "_mask",
        "_missing",
        "_size",
        "_texts",
    )

    def __init__(self, limit: int) -> None:
        """Take messages of up to `limit` bytes."""
        self._limit = limit
        self._ended = False
        # The beginning of a header or of a control frame.
        self._held = b""
        # The message whose beginning has come; no decoder, no message.
        self._decoder: codecs.IncrementalDecoder | None = None
        self._texts: list[str] = []
        self._size = 0
        # Its current frame: bytes that have not come yet, their mask, and whether it is the last.
        self._missing = 0
        self._mask = b""
        self._final = 0

    def feed(self, data: bytes) -> list[Event]:
        """Return what `data` completes, in order."""
        events: list[Event] = []
        if self._ended:
            return events
        if self._held:
            data = self._held + data
            self._held = b""
        try:
            at = self._payload(data, 0, events) if self._missing else 0
            while at < len(data):
                after = self._frame(data, at, events)
                if self._ended:
                    break
                if after is None:
                    self._held = data[at:]
                    break
                at = after
        except _BrokenError as broken:
            self._ended = True
            events.append(broken.violation)
        return events

    def _frame(self, data: bytes, at: int, events: list[Event]) -> int | None:
        """Read the frame that begins at `at`, and return where to go on.

        None: its header, or a control frame as a whole, has yet to come. Each rule is applied as
        soon as its bytes are there: nobody waits for a frame that is broken already.
        """
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
        mask = data[start:body]
        if opcode >= _CLOSE:
            if body + size > len(data):
                return None
            self._control(opcode, unmask(mask, data[body : body + size]), events)
            return body + size
        if self._size + size > self._limit:
            raise _BrokenError(CloseCode.TOO_BIG, f"send at most {self._limit} bytes")
        if body > len(data):
            return None
        if self._decoder is None:
            if first & _FINAL and body + size <= len(data):
                # A whole message in one frame, as nearly all of them are.
                events.append(_text(unmask(mask, data[body : body + size])))
                return body + size
            self._decoder = _Utf8Decoder()
        self._size += size
        self._missing, self._mask, self._final = size, mask, first & _FINAL
        return self._payload(data, body, events)

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

    def _payload(self, data: bytes, at: int, events: list[Event]) -> int:
        """Take what is there of the current data frame, and return where it ends."""
        assert self._decoder is not None
        piece = data[at : at + self._missing]
        self._missing -= len(piece)
        last = bool(self._final) and not self._missing
        try:
            text = self._decoder.decode(unmask(self._mask, piece), last)
        except UnicodeDecodeError:
            raise _BrokenError(CloseCode.NOT_UTF8, "send UTF-8") from None
        # Half of a surrogate pair: Python's decoder waits for its last byte before it refuses it.
        if b"\xed\xa0" <= self._decoder.getstate()[0] < b"\xee":
            raise _BrokenError(CloseCode.NOT_UTF8, "send UTF-8")
        if text:
            self._texts.append(text)
        if last:
            events.append("".join(self._texts))
            self._decoder, self._texts, self._size = None, [], 0
        else:
            turn = len(piece) % 4
            self._mask = self._mask[turn:] + self._mask[:turn]
        return at + len(piece)

    def _control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == _PING:
            events.append(Ping(payload))
        elif opcode == _PONG:
            events.append(Pong(payload))
        else:
            code = None
            if payload:
                code = int.from_bytes(payload[:2], "big")
                if len(payload) == 1 or not _may_be_sent(code):
                    raise _BrokenError(CloseCode.PROTOCOL_ERROR, "unknown close code")
            events.append(Close(code, _text(payload[2:])))
            self._ended = True


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _BrokenError(CloseCode.NOT_UTF8, "send UTF-8") from None


def _may_be_sent(code: int) -> bool:
    """Whether a client may close with `code` (section 7.4, and IANA's registry)."""
    return (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999


# What the server sends: never masked, always whole (section 5.1).

PING = b"\x89\x00"


def text_frame(payload: bytes) -> bytes:
    """A whole text message around `payload`; built once, however many clients get it."""
    size = len(payload)
    if size < 126:
        return b"\x81%c" % size + payload
    if size < 1 << 16:
        return b"\x81\x7e" + struct.pack("!H", size) + payload
    return b"\x81\x7f" + struct.pack("!Q", size) + payload


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with `payload`, at most 125 bytes."""
    return b"\x8a%c" % len(payload) + payload


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Close with a code and a reason, which is cut to the 123 bytes that a close frame can hold."""
    if code is None:
        return b"\x88\x00"
    words = reason.encode()[: CONTROL_LIMIT - 2].decode(errors="ignore").encode()
    return b"\x88%c" % (2 + len(words)) + struct.pack("!H", code) + words
