"""Clients that ask and do not read: what waits for them, and for all of them, is bounded."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from test_connection import LIMITS, Client, Transport, masked

from chat.websocket.connection import Connection, Endpoint
from chat.websocket.wheel import Wheel


class SlowTransport(Transport):
    """Takes what is written into a buffer that nobody empties."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.buffered = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        if self.buffered == 0 and data:
            self.buffered = len(data)
            self.connection.pause_writing()
        else:
            self.buffered += len(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def abort(self) -> None:
        if not self.ended:
            super().abort()
            self.buffered = 0
            self.connection.connection_lost(None)


class SlowClient(Client):
    def __init__(self, endpoint: Endpoint | None = None) -> None:
        super().__init__(LIMITS)
        if endpoint is not None:
            self.endpoint = endpoint
            self.wheel = endpoint.wheel
        self.connection = Connection(self.endpoint)
        self.receiver.connection = self.connection
        self.transport = SlowTransport(self.connection)
        self.connection.serve(self.receiver)
        self.connection.connection_made(self.transport)


async def test_what_the_transport_holds_counts_as_what_waits() -> None:
    client = SlowClient()
    client.connection.push(b"x" * 90)
    await asyncio.sleep(0)
    assert client.connection.waiting == 90
    client.connection.push(b"y" * 20)
    client.connection.push(b"too much")
    # Ninety bytes are in the transport, and only the last words follow them.
    assert client.connection.waiting == 90 + len(b"\x88\x06\x03\xf5slow")


async def test_the_largest_waiting_clients_are_given_up_when_too_much_waits_for_all() -> None:
    first = SlowClient()
    endpoint = first.endpoint
    endpoint.limits = replace(LIMITS, outbox_bytes=10_000, total_bytes=1000)
    clients = [first, *(SlowClient(endpoint) for _ in range(4))]
    for number, client in enumerate(clients):
        client.connection.push(b"x" * 10)
        await asyncio.sleep(0)
        client.connection.push(b"y" * 100 * number)
    assert endpoint.waiting == 50 + 1000
    await asyncio.sleep(0)
    # 450 and 310 bytes waited for the last two: one is enough.
    told = [client.transport.written[-1].endswith(b"slow") for client in clients]
    assert told == [False, False, False, False, True]
    assert endpoint.waiting <= 900
    # Who was told and does not even read that is cut off when there is no room once more.
    clients[0].connection.push(b"z" * 900)
    await asyncio.sleep(0)
    assert endpoint.waiting <= 900
    for client in clients:
        client.connection.connection_lost(None)
    assert endpoint.waiting == 0


async def test_who_reads_a_little_slowly_is_not_given_up_for_what_the_largest_ones_hold() -> None:
    first = SlowClient()
    endpoint = first.endpoint
    endpoint.limits = replace(LIMITS, outbox_bytes=10_000, total_bytes=1000)
    for _ in range(3):
        first.connection.push(b"x" * 10)
        await asyncio.sleep(0)
    large = [SlowClient(endpoint) for _ in range(4)]
    for client in large:
        # All of it is in the transport, which keeps it until the connection has ended.
        client.connection.push(b"y" * 300)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    told = [client.transport.written[-1].endswith(b"slow") for client in (first, *large)]
    assert told.count(True) == 2
    assert not told[0]


async def test_nothing_is_counted_for_clients_that_read() -> None:
    client = Client()
    client.connection.push(b"x" * 90)
    assert client.endpoint.waiting == 0
    client.connection.pause_writing()
    client.connection.push(b"x" * 90)
    assert client.endpoint.waiting == 90
    client.connection.resume_writing()
    assert client.endpoint.waiting == 0


async def test_who_reads_slowly_is_heard_while_a_frame_is_held_and_is_cut_if_it_says_nothing() -> (
    None
):
    client = SlowClient(Endpoint(LIMITS, Wheel(on_lag=lambda _: None)))
    go_on = asyncio.Event()

    async def held() -> None:
        await go_on.wait()

    client.receiver.answer = lambda _: held()
    client.connection.accept()
    client.connection.push(b"x" * 10)
    await asyncio.sleep(0)
    # Its second frame waits for what it asked for first, and its pongs do not.
    client.says("since", "later")
    for _ in range(2 * LIMITS.ping_seconds):
        client.wait(1)
        client.connection.data_received(masked(b"", 0x8A))
    assert client.receiver.heard == ["since"]
    assert not client.transport.ended
    assert not client.connection._closing
    client.wait(2 * LIMITS.ping_seconds)
    assert client.connection._closing
    client.connection.connection_lost(None)
    await asyncio.sleep(0)
