"""Clients that never read: the memory for them is bounded, and they are told why they are
closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from pathlib import Path

import pytest
from chat_client import ChatClient
from conftest import Process, until
from test_rfc6455 import text

CLIENTS = 200
OUTBOX = 65_536


def resident(replica: Process) -> int:
    """Resident memory of a replica, in bytes."""
    status = Path(f"/proc/{replica.popen.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


@pytest.mark.parametrize("transport", ["fast", "tornado"])
async def test_many_clients_that_never_read_cost_little_and_disturb_nobody(
    process: object, transport: str
) -> None:
    assert callable(process)
    replica = process(
        CHAT_TRANSPORT=transport,
        CHAT_OUTBOX_BYTES=str(OUTBOX),
        CHAT_TEXT_GRAPHEMES="8192",
        CHAT_HISTORY="10",
        CHAT_WINDOW="10",
    )
    request = (
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        async with ChatClient(replica.port, "ada") as ada:
            await ada.join("lobby")
            for number in range(CLIENTS):
                slow = stack.enter_context(socket.socket())
                # Small buffers in between, so that the replica has to hold the rest.
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.connect(("127.0.0.1", replica.port))
                slow.sendall(request)
                slow.sendall(text(b'{"type":"hello","user":"slow %d"}' % number))
                slow.sendall(text(b'{"type":"join","room":"lobby"}'))
            await ada.hear("presence", count=CLIENTS + 1)
            before = most = resident(replica)
            closed, sent = 0.0, 0
            while closed < CLIENTS:
                # Each round is more than may wait for one client.
                for _ in range(20):
                    await ada.send("lobby", "x" * 8000, cid=str(sent))
                    sent += 1
                most = max(most, resident(replica))
                closed = await asyncio.to_thread(slow_closes, replica)
            print(f"\n{transport}: {(most - before) / CLIENTS / 1024:.0f} KiB per client")
            # Clients share the same bytes. A copy for each, in the connection and its transport,
            # would take a multiple.
            assert most - before < CLIENTS * 2 * OUTBOX
            await until(lambda: b"chat_clients 1.0" in metrics(replica))
            assert (await ada.send("lobby", "still here"))["id"]


def metrics(replica: Process) -> bytes:
    with socket.create_connection(("127.0.0.1", replica.internal_port), timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def slow_closes(replica: Process) -> float:
    counted = re.search(rb'chat_closes_total\{code="1013"\} (\S+)', metrics(replica))
    return float(counted[1]) if counted else 0.0
