"""Connections that nobody needs: more than the process may open, or all from one address."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import websockets
from chat_client import ChatClient
from conftest import Process, Replica, until
from test_server import get
from test_slow_readers import metrics

from chat import descriptors

Start = Callable[..., Process]


def connect(stack: contextlib.ExitStack, port: int, number: int) -> list[socket.socket]:
    """Open connections that say nothing, as far as the kernel takes them."""
    made = []
    for _ in range(number):
        one = stack.enter_context(socket.socket())
        one.connect(("127.0.0.1", port))
        made.append(one)
    return made


def opened(replica: Process) -> set[int]:
    """Its descriptors."""
    return {int(path.name) for path in Path(f"/proc/{replica.popen.pid}/fd").iterdir()}


async def alive(port: int) -> bool:
    return (await get(port, "/livez")).code == 200


async def test_idle_connections_beyond_its_descriptors_neither_stop_nor_fill_a_replica(
    process: Start,
) -> None:
    replica = process(descriptors=256)
    assert "CHAT_CLIENTS=20000: this process may open 256 files" in replica.log.read_text()
    with contextlib.ExitStack() as stack:
        connect(stack, replica.port, 300)
        for _ in range(20):
            assert await alive(replica.internal_port)
        async with ChatClient(replica.port, "ada") as ada:
            await ada.join("lobby")
            assert (await ada.send("lobby", "still here"))["id"]
        assert len(opened(replica)) < 256
    assert len(replica.log.read_text().splitlines()) < 10


async def test_without_a_descriptor_accepting_rests_and_goes_on_when_there_is_one(
    process: Start,
) -> None:
    replica = process(descriptors=256)
    pid = replica.popen.pid
    assert await alive(replica.internal_port)
    # Others took all the rest: none above those that are open may be had, nor one between them.
    lowest_free = next(number for number in range(256) if number not in opened(replica))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, 256))
    with contextlib.ExitStack() as stack:
        connect(stack, replica.port, 30)
        await until(lambda: "no file descriptor is left" in replica.log.read_text())
        assert await alive(replica.internal_port)
        refused = re.search(rb'descriptors"} (\S+)', await asyncio.to_thread(metrics, replica))
        assert refused
        # Two ports, two looks a second: a busy loop makes thousands of them.
        assert float(refused[1]) < 30
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (256, 256))
    async with ChatClient(replica.port, "ada") as ada:
        assert ada.welcome
    assert len(replica.log.read_text().splitlines()) < 10


async def test_pending_connections_are_bounded_and_the_oldest_makes_room(
    replica: Replica,
) -> None:
    server = await replica(CHAT_PENDING="10", CHAT_ADDRESS_PENDING="5")
    with contextlib.ExitStack() as stack:
        idle = connect(stack, server.port, 8)
        await until(lambda: server._public_listener.pending == 5)
        # The first three have been closed for the last three.
        for one in idle[:3]:
            assert await asyncio.to_thread(one.recv, 1) == b""
        async with ChatClient(server.port, "ada") as ada:
            await ada.join("lobby")
            # Who has become a WebSocket is pending no more.
            assert server._public_listener.pending == 4
        assert b'{reason="address_pending"} 4.0' in server.metrics_text()


async def test_pending_connections_are_charged_to_a_network_as_all_else_is(
    replica: Replica,
) -> None:
    """A site has all addresses of an IPv6 network, and none of them more than the others."""
    server = await replica(CHAT_TRUSTED_PROXIES="192.0.2.0/24")
    assert server._charged("2001:db8::1") == server._charged("2001:db8::2") == "2001:db8::/64"
    assert server._charged("2001:db8:0:1::1") == "2001:db8:0:1::/64"
    assert server._charged("198.51.100.1") == "198.51.100.1"
    assert server._charged("192.0.2.1") is None


@pytest.mark.parametrize("transport", ["fast", "tornado"])
async def test_an_address_has_so_many_clients_at_most(replica: Replica, transport: str) -> None:
    server = await replica(CHAT_ADDRESS_CLIENTS="2", CHAT_TRANSPORT=transport)
    async with ChatClient(server.port, "ada"):
        async with ChatClient(server.port, "bob"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(f"ws://127.0.0.1:{server.port}/ws")
            assert refused.value.response.status_code == 429
            assert server._public_listener.pending <= 1
        await until(lambda: len(server._clients) == 1)
        async with ChatClient(server.port, "bob") as bob:
            assert bob.welcome


def test_descriptors_are_shared_by_clients_and_those_that_are_none_yet() -> None:
    assert descriptors.share(1_000_000, 20_000, 1000) == (20_000, 1000)
    assert descriptors.share(20_000, 20_000, 1000) == (18_872, 1000)
    assert descriptors.share(256, 20_000, 1000) == (144, 48)
    assert descriptors.share(32, 20_000, 1000) == (18, 6)
    with pytest.raises(OSError, match="ulimit -n"):
        descriptors.share(31, 20_000, 1000)
