"""What a socket costs Traefik: memory, and how evenly new clients are spread over the replicas.

Traefik of the sandbox's image runs with TLS in front of replicas without Kafka. It has those rules
of the roles that matter here: a cookie for sticky sessions, and a retry. New clients connect from
many addresses, join a room and stay. Then each sends a message, so that all buffers have been used
once, and finally all disconnect.

    .venv/bin/python bench/edge.py --clients 10000
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import re
import resource
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websockets.asyncio.client as websockets

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

from kafka_broker import free_port  # noqa: E402
from traefik import traefik  # noqa: E402

from bench.run import cpu_seconds  # noqa: E402

# Clients per address. On Linux, all of 127.0.0.0/8 is loopback.
PER_ADDRESS = 250
CONNECTING_AT_ONCE = 50
IN_A_ROOM = 4
SETTLE_SECONDS = 3.0


def routing(replicas: list[int]) -> dict[str, Any]:
    """The routing rules of role `chat`."""
    return {
        "http": {
            "routers": {
                "chat": {
                    "rule": "PathPrefix(`/`)",
                    "service": "chat",
                    "middlewares": ["retry"],
                    "tls": {},
                }
            },
            "middlewares": {"retry": {"retry": {"attempts": 3}}},
            "services": {
                "chat": {
                    "loadBalancer": {
                        "servers": [{"url": f"http://127.0.0.1:{each}"} for each in replicas],
                        "sticky": {"cookie": {"name": "chat", "secure": True}},
                    }
                }
            },
        }
    }


@contextlib.contextmanager
def replica(log: Path) -> Iterator[tuple[int, int]]:
    """The process id and the port of a replica."""
    environment = os.environ | {
        "KAFKA_ENABLED": "false",
        "CHAT_ADDRESS": "127.0.0.1",
        "CHAT_PORT": "0",
        "CHAT_INTERNAL_PORT": "0",
        "CHAT_REPLICA": log.stem,
        "CHAT_TRUSTED_PROXIES": "127.0.0.1/32",
        "CHAT_LOG_LEVEL": "info",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "chat"], cwd=ROOT, env=environment, stderr=output
        )
    try:
        while not (found := re.search(r"page on port (\d+)", log.read_text())):
            if process.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.05)
        yield process.pid, int(found[1])
    finally:
        process.terminate()
        process.wait()


def resident(process: int) -> float:
    """Resident memory in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    (size,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(size) / 1024


async def come(
    number: int, port: int, context: ssl.SSLContext, turns: asyncio.Semaphore
) -> tuple[websockets.ClientConnection, str]:
    """Connect a client and join a room. Returns the client and its replica."""
    block, host = divmod(number // PER_ADDRESS, 250)
    async with turns:
        client = await websockets.connect(
            f"wss://127.0.0.1:{port}/ws",
            ssl=context,
            local_addr=(f"127.1.{block}.{host + 1}", 0),
            compression=None,
            ping_interval=None,
            open_timeout=60,
        )
        await client.send(json.dumps({"type": "hello", "user": f"user-{number}"}))
        welcome = json.loads(await client.recv())
        await client.send(json.dumps({"type": "join", "room": f"room-{number // IN_A_ROOM}"}))
        while json.loads(await client.recv())["type"] != "joined":
            pass
    return client, welcome["replica"]


async def discard(client: websockets.ClientConnection) -> None:
    async for _ in client:
        pass


async def measure(traefik: int, port: int, count: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    turns = asyncio.Semaphore(CONNECTING_AT_ONCE)
    before = resident(traefik)
    spent, began = cpu_seconds(traefik), time.monotonic()

    def report(what: str) -> None:
        memory = resident(traefik)
        print(f"{what}: {memory:.0f} MiB, {(memory - before) * 1024 / count:.1f} KiB a socket")

    print(f"Traefik alone: {before:.0f} MiB")
    came = await asyncio.gather(*(come(n, port, context, turns) for n in range(count)))
    clients = [client for client, _ in came]
    print(
        f"{count} clients came in {time.monotonic() - began:.0f} s; each took"
        f" {(cpu_seconds(traefik) - spent) / count * 1e3:.2f} ms of Traefik's CPU time"
    )
    spread = collections.Counter(replica for _, replica in came)
    print("new clients of each replica:", *sorted(spread.values()))
    listening = [asyncio.create_task(discard(client)) for client in clients]
    await asyncio.sleep(SETTLE_SECONDS)
    report("all are silent")
    for number, client in enumerate(clients):
        text = {
            "type": "send",
            "room": f"room-{number // IN_A_ROOM}",
            "cid": "1",
            "text": "x" * 100,
        }
        await client.send(json.dumps(text))
        # Let the clients receive, too.
        await asyncio.sleep(0)
    await asyncio.sleep(SETTLE_SECONDS)
    report("each has spoken, and heard its room")
    for client in clients:
        client.transport.abort()
    await asyncio.gather(*listening, return_exceptions=True)
    await asyncio.sleep(SETTLE_SECONDS)
    report("all have gone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000, help="sockets (10000)")
    parser.add_argument("--replicas", type=int, default=4, help="replicas of the chat (4)")
    options = parser.parse_args()
    # Traefik needs two files per socket. Child processes inherit the limit.
    files = 2 * options.clients + 1000
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    except ValueError:
        sys.exit(f"edge.py: {files} open files are not allowed here: see `ulimit -Hn`")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as ending:
        folder = Path(name)
        replicas = [
            ending.enter_context(replica(folder / f"replica-{number}.log"))[1]
            for number in range(options.replicas)
        ]
        port = free_port()
        settings = {
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "accessLog": {"format": "json"},
            "entryPoints": {"websecure": {"address": f"127.0.0.1:{port}"}},
        }
        process = ending.enter_context(traefik(folder, port, settings, routing(replicas)))
        asyncio.run(measure(process.pid, port, options.clients))


if __name__ == "__main__":
    main()
