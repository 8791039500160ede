"""RFC 6455 on the wire: the cases of the Autobahn suite's sections 1 to 10, in our own words.

The server echoes text, on both transports. Each case lists what a client writes, in pieces, and
every frame that must come back until the connection ends. Autobahn's server echoes binary messages;
ours refuses them (1003), because a chat accepts text only.
"""

from __future__ import annotations

import asyncio
import functools
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Iterator

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from chat.protocol import CloseCode
from chat.websocket.budget import Allowance
from chat.websocket.connection import Connection, Endpoint, Limits
from chat.websocket.frames import text_frame
from chat.websocket.transport import Handshake
from chat.websocket.wheel import Wheel

LIMIT = 1 << 20
LIMITS = Limits(
    message_bytes=LIMIT,
    reading=Allowance(rate=1 << 40, burst=1 << 40),
    outbox_bytes=8 * LIMIT,
    total_bytes=64 * LIMIT,
    accept_seconds=60,
    ping_seconds=60,
    pong_seconds=10,
)


class Echo:
    """Sends every message back."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.connection = Connection(endpoint)
        self.connection.serve(self)

    def receive(self, text: str) -> Awaitable[None] | None:
        self.connection.push(text_frame(text.encode()))
        return None

    def beat(self) -> None:
        pass

    def silent(self) -> None:
        raise AssertionError

    overflow = slow = silent

    def close(self, code: CloseCode, reason: str) -> None:
        self.connection.close(code, reason)

    def gone(self) -> None:
        pass


class EchoHandler(WebSocketHandler):
    endpoint: Endpoint
    fast: bool

    def get_websocket_protocol(self) -> Handshake:
        return Handshake(self, lambda: Echo(self.endpoint).connection, fast=self.fast)

    def on_message(self, message: str | bytes) -> None:  # noqa: ARG002
        raise AssertionError


@pytest.fixture(params=["fast", "tornado"])
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    wheel = Wheel(on_lag=lambda _: None)
    wheel.start()
    handler = type(
        "Handler",
        (EchoHandler,),
        {"endpoint": Endpoint(LIMITS, wheel), "fast": request.param == "fast"},
    )
    server = HTTPServer(Application([("/", handler)]))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    yield sockets[0].getsockname()[1]
    server.stop()
    wheel.stop()


def frame(
    opcode: int, payload: bytes = b"", *, final: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """A frame as a client sends it. `rsv` is the reserved bits as a number from 0 to 7."""
    size = len(payload)
    head = bytes([final << 7 | rsv << 4 | opcode])
    flag = masked << 7
    if size < 126:
        head += bytes([flag | size])
    elif size < 1 << 16:
        head += struct.pack("!BH", flag | 126, size)
    else:
        head += struct.pack("!BQ", flag | 127, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    keys = (mask * (size // 4 + 1))[:size]
    xored = int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")
    return head + mask + xored.to_bytes(size, "big")


text = functools.partial(frame, 1)
more = functools.partial(frame, 0)
ping = functools.partial(frame, 9)
pong = functools.partial(frame, 10)
begin = functools.partial(frame, 1, final=False)
go_on = functools.partial(frame, 0, final=False)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(8, b"" if code is None else struct.pack("!H", code) + reason)


def chop(data: bytes, size: int = 1) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def fragments(payload: bytes, size: int) -> bytes:
    pieces = chop(payload, size)
    return b"".join(
        frame(0 if number else 1, piece, final=number == len(pieces) - 1)
        for number, piece in enumerate(pieces)
    )


Answer = tuple[int, bytes]
Case = tuple[str, list[bytes], list[Answer], int | None]

HELLO = "Hello-µ@ßöäüàá-UTF-8!!".encode()
# Not valid text, but valid as the payload of a ping.
BYTES = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"


def said(payload: bytes) -> Answer:
    return (1, payload)


def ponged(payload: bytes = b"") -> Answer:
    return (10, payload)


def cases() -> Iterator[Case]:
    """Number, what is written, what comes back, and the close code. None: the code of the normal
    close that the test sends at the end.
    """
    for number, size in enumerate((0, 125, 126, 127, 128, 65_535, 65_536), 1):
        yield f"1.1.{number}", [text(b"*" * size)], [said(b"*" * size)], None
    yield "1.1.8", chop(text(b"*" * 65_536), 997), [said(b"*" * 65_536)], None
    for number, size in enumerate((0, 125, 126, 127, 128, 65_535, 65_536), 1):
        yield f"1.2.{number}", [frame(2, b"\xfe" * size)], [], 1003

    yield "2.1", [ping()], [ponged()], None
    yield "2.2", [ping(b"Hello, world!")], [ponged(b"Hello, world!")], None
    yield "2.3", [ping(BYTES)], [ponged(BYTES)], None
    yield "2.4", [ping(b"\xfe" * 125)], [ponged(b"\xfe" * 125)], None
    yield "2.5", [ping(b"\xfe" * 126)], [], 1002
    yield "2.6", chop(ping(b"\xfe" * 125)), [ponged(b"\xfe" * 125)], None
    yield "2.7", [pong()], [], None
    yield "2.8", [pong(b"unsolicited")], [], None
    yield "2.9", [pong(b"unsolicited"), ping(b"ping")], [ponged(b"ping")], None
    ten = [b"payload-%d" % number for number in range(10)]
    yield "2.10", [b"".join(ping(one) for one in ten)], [ponged(one) for one in ten], None
    yield "2.11", chop(b"".join(ping(one) for one in ten)), [ponged(one) for one in ten], None

    yield "3.1", [text(HELLO, rsv=1)], [], 1002
    yield "3.2", [text(HELLO), text(HELLO, rsv=2), ping()], [said(HELLO)], 1002
    yield "3.3", [text(HELLO) + text(HELLO, rsv=3) + ping()], [said(HELLO)], 1002
    yield "3.4", chop(text(HELLO) + text(HELLO, rsv=4) + ping()), [said(HELLO)], 1002
    yield "3.5", [frame(2, BYTES, rsv=5)], [], 1002
    yield "3.6", [ping(b"Hello", rsv=6)], [], 1002
    yield "3.7", [frame(8, struct.pack("!H", 1000), rsv=7)], [], 1002

    for number, opcode in enumerate((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)):
        name = f"4.{1 + number // 5}.{1 + number % 5}"
        yield name, [text(HELLO) + frame(opcode, b"x") + ping()], [said(HELLO)], 1002

    yield "5.1", [ping(b"one", final=False), more(b"two")], [], 1002
    yield "5.2", [pong(b"one", final=False), more(b"two")], [], 1002
    two = begin(b"fragment1") + more(b"fragment2")
    yield "5.3", [begin(b"fragment1"), more(b"fragment2")], [said(b"fragment1fragment2")], None
    yield "5.4", [two], [said(b"fragment1fragment2")], None
    yield "5.5", chop(two), [said(b"fragment1fragment2")], None
    between = begin(b"fragment1") + ping(b"ping") + more(b"fragment2")
    answer = [ponged(b"ping"), said(b"fragment1fragment2")]
    yield "5.6", [begin(b"fragment1"), ping(b"ping"), more(b"fragment2")], answer, None
    yield "5.7", [between], answer, None
    yield "5.8", chop(between), answer, None
    for number, final in ((9, True), (12, False)):
        wrong = more(b"nothing to go on with", final=final) + text(HELLO)
        yield f"5.{number}", [wrong], [], 1002
        yield f"5.{number + 1}", [wrong[:30], wrong[30:]], [], 1002
        yield f"5.{number + 2}", chop(wrong), [], 1002
    yield "5.15", [two + go_on(b"x") + text(HELLO)], [said(b"fragment1fragment2")], 1002
    yield "5.16", [go_on(b"x") + text(HELLO)] * 2, [], 1002
    yield "5.17", [more(b"x") + text(HELLO)] * 2, [], 1002
    yield "5.18", [begin(b"fragment1") + text(b"fragment2")], [], 1002
    five = [
        begin(b"1"), go_on(b"2"), ping(b"a"), go_on(b"3"), go_on(b"4"), ping(b"b"), more(b"5"),
    ]  # fmt: skip
    answer = [ponged(b"a"), ponged(b"b"), said(b"12345")]
    yield "5.19", [b"".join(five)], answer, None
    yield "5.20", five, answer, None

    yield "6.1.1", [text()], [said(b"")], None
    yield "6.1.2", [begin() + go_on() + more()], [said(b"")], None
    yield "6.1.3", [begin() + go_on(b"middle") + more()], [said(b"middle")], None
    yield "6.2.1", [text(HELLO)], [said(HELLO)], None
    yield "6.2.2", [begin(HELLO[:7]) + more(HELLO[7:])], [said(HELLO)], None
    yield "6.2.3", [fragments(HELLO, 1)], [said(HELLO)], None
    greek = "κόσμε".encode()
    yield "6.2.4", chop(fragments(greek, 1)), [said(greek)], None
    broken = greek + b"\xed\xa0\x80edited"
    yield "6.3.1", [text(broken)], [], 1007
    yield "6.3.2", [fragments(broken, 1)], [], 1007
    # Invalid before the message is complete, so the server must not wait for the rest.
    over = greek + b"\xf4\x90\x80\x80edited"
    yield "6.4.1", [begin(greek), go_on(b"\xf4\x90\x80\x80")], [], 1007
    yield "6.4.2", [begin(greek + b"\xf4"), go_on(b"\x90")], [], 1007
    yield "6.4.3", [text(over)[: 6 + len(greek) + 4]], [], 1007
    yield "6.4.4", chop(text(over)[: 6 + len(greek) + 2]), [], 1007
    yield "6.4 surrogate", [begin(greek + b"\xed"), go_on(b"\xa0")], [], 1007
    last = b"\xed\x9f\xbf"
    one_by_one = [begin(last[:1]), go_on(last[1:2]), more(last[2:])]
    yield "6.4 before the surrogates", one_by_one, [said(last)], None
    for number, codepoint in enumerate(VALID, 1):
        yield f"6.valid.{number}", [text(codepoint)], [said(codepoint)], None
    for number, sequence in enumerate(INVALID, 1):
        yield f"6.invalid.{number}", [text(sequence)], [], 1007
        yield f"6.invalid.{number} fragmented", [fragments(sequence + b"x", 1)], [], 1007

    yield "7.1.1", [text(b"Hello World!"), close()], [said(b"Hello World!")], 1000
    yield "7.1.2", [close() + close()], [], 1000
    yield "7.1.3", [close() + ping()], [], 1000
    yield "7.1.4", [close() + text(HELLO)], [], 1000
    yield "7.1.5", [begin(b"one") + close() + more(b"two")], [], 1000
    large = b"BAsd7&jh23" * 26_214
    yield "7.1.6", [text(large) + close() + ping()], [said(large)], 1000
    yield "7.3.1", [close(None)], [], 0
    yield "7.3.2", [frame(8, b"a")], [], 1002
    yield "7.3.3", [close(1000)], [], 1000
    yield "7.3.4", [close(1000, b"Hello World!")], [], 1000
    yield "7.3.5", [close(1000, b"*" * 123)], [], 1000
    yield "7.3.6", [close(1000, b"*" * 124)], [], 1002
    yield "7.5.1", [close(1000, broken)], [], 1007
    valid = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)
    for number, code in enumerate((*valid, 3000, 3999, 4000, 4999), 1):
        yield f"7.7.{number}", [close(code)], [], code
    invalid = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    for number, code in enumerate(invalid, 1):
        yield f"7.9.{number}", [close(code)], [], 1002

    for number, size in enumerate((1 << 16, 1 << 18, LIMIT), 1):
        payload = os.urandom(size // 2).hex().encode()
        yield f"9.1.{number}", [text(payload)], [said(payload)], None
        yield f"9.3.{number}", [fragments(payload, size // 64)], [said(payload)], None
    payload = b"*" * (1 << 16)
    for number, size in enumerate((64, 256, 1024, 4096, 16_384, 65_536), 1):
        yield f"9.4.{number}", [fragments(payload, size)], [said(payload)], None
        yield f"9.5.{number}", chop(text(payload), size), [said(payload)], None
    many = [b"%d" % number * 16 for number in range(1000)]
    yield "9.7", [b"".join(text(one) for one in many)], [said(one) for one in many], None
    yield "9.limit", [text(b"*" * (LIMIT + 1))], [], 1009
    yield "9.limit fragmented", [fragments(b"*" * (LIMIT + 1), LIMIT // 2)], [], 1009
    yield "9.limit announced", [b"\x81\xff" + struct.pack("!Q", 1 << 62)], [], 1009

    yield "10.1.1", [fragments(payload, 1300)], [said(payload)], None

    # Cases that the suite lacks, but the RFC requires.
    yield "unmasked", [text(HELLO, masked=False)], [], 1002
    yield "unmasked close", [frame(8, struct.pack("!H", 1000), masked=False)], [], 1002
    yield "size in too many bytes", [b"\x81\xfe\x00\x05maskhello"], [], 1002
    yield "size in far too many bytes", [b"\x81\xff" + struct.pack("!Q", 65_535)], [], 1002
    yield "size beyond 63 bits", [b"\x81\xff\x80" + bytes(7)], [], 1002


VALID = [
    *(chr(code).encode() for code in (0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF)),
    *(chr(code).encode() for code in (0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFDD0, 0x1FFFE)),
    "a\u0308 ﷺ 👩‍👩‍👧‍👦 \u202e".encode(),
]
INVALID = [
    # Continuation bytes without a start, and starts without their continuation.
    b"\x80", b"\xbf", b"\x80\xbf", bytes(range(0x80, 0xC0)),
    b"\xc3 ", b"\xe0\xa0 ", b"\xf0\x90\x80 ", b"\xc3", b"\xe1\x80", b"\xf1\x80\x80",
    # Bytes that never occur in UTF-8.
    b"\xfe", b"\xff", b"\xfe\xfe\xff\xff", b"\xf5", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80",
    # Overlong encodings: more bytes than necessary.
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xc0\x80",
    b"\xf0\x8f\xbf\xbf",
    # Halves of surrogate pairs, and code points beyond the last one.
    b"\xed\xa0\x80", b"\xed\xaf\xbf", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",
]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "answers", "code"), [pytest.param(*case[1:], id=case[0]) for case in cases()]
)
async def test_case(
    port: int, written: list[bytes], answers: list[Answer], code: int | None
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")

    async def talk() -> None:
        for piece in written:
            writer.write(piece)
            # Each piece must arrive alone.
            await asyncio.sleep(0)

    async with asyncio.timeout(10):
        talking = asyncio.create_task(talk())
        came = []
        while len(came) < len(answers):
            came.append(await next_frame(reader))
        assert came == answers
        await talking
        if code is None:
            writer.write(close(1000))
        opcode, payload = await next_frame(reader)
        assert opcode == 8
        assert int.from_bytes(payload[:2], "big") == (1000 if code is None else code)
        # After that, only the end.
        assert await end(reader) == b""
    writer.close()


async def next_frame(reader: asyncio.StreamReader) -> Answer:
    first, size = await reader.readexactly(2)
    assert first & 0x80, "the server sends whole messages"
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    return first & 0x0F, await reader.readexactly(size)


async def end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        # The server closed the connection while the client was still sending.
        return b""
