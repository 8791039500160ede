"""Limits on the rate of frames, and the addresses they are counted by."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest
import websockets
from chat_client import ChatClient
from conftest import Replica, until
from tornado.httpclient import AsyncHTTPClient

from chat.limits import Budgets, TokenBucket, client_address

PROXIES = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]


def test_a_bucket_allows_a_burst_and_then_its_rate() -> None:
    now = 0.0
    bucket = TokenBucket(2, 3, clock=lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    now = 100.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        # Any client can send this header.
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.1.2.3", ["198.51.100.7"], "198.51.100.7"),
        ("10.1.2.3", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.1.2.3", ["203.0.113.9", "198.51.100.7, 10.1.9.9"], "198.51.100.7"),
        ("::ffff:10.1.2.3", ["198.51.100.7"], "198.51.100.7"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["unknown"], "10.1.2.3"),
        ("fd00::1", ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", [], "2001:db8:1:2::/64"),
        ("", [], ""),
        # No client has so many proxies: one of ours wrote the header, and is charged.
        ("10.1.2.3", ["198.51.100.7", *["10.1.9.9"] * 30], "10.1.9.9"),
    ],
)
def test_a_client_s_address_is_what_trusted_proxies_say(
    peer: str, forwarded: list[str], address: str
) -> None:
    assert client_address(peer, forwarded, PROXIES) == address


def test_addresses_that_have_been_quiet_are_forgotten() -> None:
    now = 0.0
    budgets = Budgets(1, 2, clock=lambda: now)
    busy = budgets.of("busy")
    for number in range(1023):
        budgets.of(f"quiet {number}").take()
    now = 3.0
    busy.take()
    busy.take()
    budgets.of("another")
    assert len(budgets) == 2
    assert budgets.of("busy") is busy


async def test_clients_of_one_address_share_its_limit(replica: Replica) -> None:
    server = await replica(
        CHAT_ADDRESS_RATE="1", CHAT_ADDRESS_BURST="3", CHAT_TRUSTED_PROXIES="127.0.0.0/8"
    )
    first, second, other = (
        ChatClient(server.port, additional_headers={"X-Forwarded-For": address})
        for address in ("198.51.100.7", "198.51.100.7", "203.0.113.9")
    )
    async with first, second, other:
        await first.join("lobby")
        assert (await second.refused(type="join", room="lobby"))["code"] == "rate_limited"
        await other.join("lobby")


async def test_a_replica_that_is_full_is_not_ready_and_lets_nobody_more_in(
    replica: Replica,
) -> None:
    server = await replica(CHAT_CLIENTS="2")

    async def ready() -> int:
        url = f"http://127.0.0.1:{server.internal_port}/readyz"
        return (await AsyncHTTPClient().fetch(url, raise_error=False)).code

    async with ChatClient(server.port, "ada") as ada:
        assert await ready() == 200
        async with ChatClient(server.port, "bob"):
            assert await ready() == 503
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(f"ws://127.0.0.1:{server.port}/ws")
            assert refused.value.response.status_code == 503
            assert int(refused.value.response.headers["Retry-After"]) > 0
            await ada.join("lobby")
        await until(lambda: not server.full)
        assert await ready() == 200


async def test_a_request_that_does_not_come_in_time_is_none(replica: Replica) -> None:
    server = await replica(CHAT_HANDSHAKE_SECONDS="0.1", CHAT_HEADER_BYTES="1024")
    for request in (b"GET /ws HTTP/1.1\r\n", b"GET /ws HTTP/1.1\r\nX: " + b"x" * 2000):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        async with asyncio.timeout(10):
            assert b"101" not in await reader.read()
        writer.close()
