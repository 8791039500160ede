"""Bytes on the wire that no well-behaved client sends, and the server's answers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import struct
from collections.abc import AsyncIterator

import pytest
from chat_client import ChatClient
from conftest import Replica, until
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream

from chat.server import ChatHandler, Server
from chat.websocket.connection import Connection

HELLO = b'{"type":"hello","user":"mallory"}'


@pytest.fixture(params=["fast", "tornado"])
async def server(replica: Replica, request: pytest.FixtureRequest) -> Server:
    return await replica(CHAT_TRANSPORT=request.param)


class Wire:
    """A WebSocket connection without a client library."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def put(
        self,
        payload: bytes,
        opcode: int = 1,
        *,
        final: bool = True,
        rsv: int = 0,
        mask: bool = True,
    ) -> None:
        size = len(payload)
        head = bytes([final << 7 | rsv | opcode])
        flag = mask << 7
        if size < 126:
            head += bytes([flag | size])
        elif size < 65536:
            head += struct.pack("!BH", flag | 126, size)
        else:
            head += struct.pack("!BQ", flag | 127, size)
        key = os.urandom(4) if mask else b""
        body = bytes(byte ^ key[n % 4] for n, byte in enumerate(payload)) if mask else payload
        self.writer.write(head + key + body)

    async def get(self) -> tuple[int, bytes]:
        async with asyncio.timeout(10):
            first, size = await self.reader.readexactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            return first & 0x0F, await self.reader.readexactly(size)

    async def closed(self) -> tuple[int, bytes]:
        """The close frame, after any other frames. Nothing but the end may follow."""
        while True:
            opcode, payload = await self.get()
            if opcode == 8:
                async with asyncio.timeout(10):
                    assert await self.reader.read() == b""
                return int.from_bytes(payload[:2], "big"), payload[2:]


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: chat\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"permessage-deflate" not in answer
    yield Wire(reader, writer)
    writer.close()


async def test_text_is_text_in_one_frame_or_in_many_with_pings_between(wire: Wire) -> None:
    wire.put(HELLO[:5], final=False)
    wire.put(b"are you there?", opcode=9)
    wire.put(HELLO[5:20], opcode=0, final=False)
    wire.put(HELLO[20:], opcode=0)
    assert await wire.get() == (10, b"are you there?")
    opcode, welcome = await wire.get()
    assert opcode == 1
    assert b'"welcome"' in welcome


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"payload": b"binary", "opcode": 2}, 1003),
        ({"payload": b'{"type":"hello","user":"\xff"}'}, 1007),
        ({"payload": b"\xed\xa0\x80"}, 1007),
        ({"payload": b"x" * 32769}, 1009),
        ({"payload": b"x" * 1_000_000}, 1009),
        ({"payload": HELLO, "mask": False}, 1002),
        ({"payload": HELLO, "rsv": 0x40}, 1002),
        ({"payload": HELLO, "opcode": 0}, 1002),
        ({"payload": HELLO, "opcode": 3}, 1002),
        ({"payload": HELLO, "opcode": 11}, 1002),
        ({"payload": b"x" * 126, "opcode": 9}, 1002),
        ({"payload": b"", "opcode": 9, "final": False}, 1002),
        ({"payload": b"\x03", "opcode": 8}, 1002),
        ({"payload": struct.pack("!H", 1005), "opcode": 8}, 1002),
        ({"payload": struct.pack("!H", 2000), "opcode": 8}, 1002),
        ({"payload": struct.pack("!H", 1000) + b"\xff", "opcode": 8}, 1007),
    ],
)
async def test_what_breaks_the_rules_is_closed_with_the_code_that_says_so(
    server: Server, wire: Wire, frame: dict[str, object], code: int
) -> None:
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        wire.put(**frame)  # type: ignore[arg-type]
        closed, reason = await wire.closed()
        assert closed == code
        assert reason
        # Other clients are not affected.
        assert (await ada.send("lobby", "hello"))["id"]


async def test_fragments_are_too_big_together(wire: Wire) -> None:
    wire.put(b"x" * 20000, final=False)
    wire.put(b"x" * 20000, opcode=0)
    assert (await wire.closed())[0] == 1009


async def test_a_new_message_may_not_begin_within_another(wire: Wire) -> None:
    wire.put(b"x", final=False)
    wire.put(b"y")
    assert (await wire.closed())[0] == 1002


async def test_a_size_that_nobody_sends_is_not_waited_for(wire: Wire) -> None:
    wire.writer.write(b"\x81\xff" + struct.pack("!Q", 1 << 62) + b"mask")
    assert (await wire.closed())[0] == 1009


@pytest.mark.parametrize(
    "payload", [b"", struct.pack("!H", 1000) + b"bye", struct.pack("!H", 4001)]
)
async def test_a_close_is_answered_in_kind(wire: Wire, payload: bytes) -> None:
    wire.put(payload, opcode=8)
    code, _ = await wire.closed()
    assert code == int.from_bytes(payload[:2], "big")


async def test_a_client_that_vanishes_leaves_nothing_behind(server: Server, wire: Wire) -> None:
    wire.put(HELLO)
    wire.put(b'{"type":"join","room":"lobby"}')
    await wire.get()
    await wire.get()
    wire.put(b"half a fr", final=False)
    wire.writer.transport.abort()
    await until(lambda: b"chat_clients 0.0" in server.metrics_text())
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        await ada.send("lobby", "hello")


def alive(kind: type) -> int:
    gc.collect()
    return sum(isinstance(thing, kind) for thing in gc.get_objects())


async def test_once_hands_are_shaken_nothing_of_tornado_s_is_kept(replica: Replica) -> None:
    server = await replica(CHAT_TRANSPORT="fast")
    before, connections = (alive(IOStream), alive(ChatHandler)), alive(Connection)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(5):
            await stack.enter_async_context(ChatClient(server.port, f"user {number}"))
        assert (alive(IOStream), alive(ChatHandler)) == before
        assert alive(Connection) == connections + 5
    await until(lambda: alive(Connection) == connections)


async def test_a_request_is_freed_with_its_handshake_and_not_by_the_garbage_collector(
    replica: Replica,
) -> None:
    server = await replica(CHAT_TRANSPORT="fast")
    gc.collect()
    gc.disable()
    try:
        async with ChatClient(server.port, "ada"):
            await until(
                lambda: not any(isinstance(one, HTTPServerRequest) for one in gc.get_objects()),
                seconds=5,
            )
    finally:
        gc.enable()
