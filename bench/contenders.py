"""The measured servers and how each is started: ours, and peers as small as the chats in their
documentation, each with its best settings for this purpose.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
ARTIFACTS = ROOT / ".artifacts"
PEERS = ROOT / "bench" / "peers"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A server that `wsload` can talk to.

    `command` gets the port to listen on. `version` is what was measured. `artifact` is what
    `sandbox/build --from bench/peers` must build, if anything. `ready` is a path that answers 200
    once clients may join, for a server that listens earlier than that.
    """

    name: str
    dialect: str
    command: Callable[[int], list[str]]
    version: Callable[[], str]
    artifact: str | None = None
    environment: Callable[[int], Mapping[str, str]] = field(default=lambda _port: {})
    note: str = ""
    ready: str | None = None


def _ours(port: int) -> dict[str, str]:
    """One process with its relay in memory. Client limits are lifted, because the few clients of
    the load send as much as many would.
    """
    return {
        "KAFKA_ENABLED": "false",
        "CHAT_ADDRESS": "127.0.0.1",
        "CHAT_PORT": str(port),
        "CHAT_INTERNAL_PORT": "0",
        "CHAT_REPLICA": "bench",
        "CHAT_LOG_LEVEL": "warning",
        "CHAT_RATE": "100000",
        "CHAT_BURST": "100000",
    }


def _our_version() -> str:
    git = ["git", "-c", "safe.directory=*"]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "chat"], cwd=ROOT, check=False)
    changes = " with changes" if changed.returncode else ""
    return f"commit {commit}{changes}, {_python()}, {_package('uvloop')}"


def _python() -> str:
    return f"CPython {sys.version.split()[0]}"


def _package(name: str) -> str:
    return f"{name} {metadata.version(name)}"


def _node(name: str, *packages: str) -> Callable[[], str]:
    def version() -> str:
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        modules = ARTIFACTS / name / "node_modules"
        found = [
            f"{package} {json.loads((modules / package / 'package.json').read_text())['version']}"
            for package in packages
        ]
        return ", ".join([*found, f"Node {node.stdout.strip().removeprefix('v')}"])

    return version


def _centrifuge_version() -> str:
    server = str(ARTIFACTS / "centrifuge" / "server")
    built = subprocess.run(
        ["go", "version", "-m", server], capture_output=True, text=True, check=True
    ).stdout
    go = built.split()[1].removeprefix("go")
    module = next(line for line in built.splitlines() if "centrifugal/centrifuge\t" in line)
    return f"centrifuge {module.split()[2].removeprefix('v')}, Go {go}"


CHAT = Contender(
    name="chat",
    dialect="chat",
    command=lambda _port: [sys.executable, "-m", "chat"],
    environment=_ours,
    version=_our_version,
    note="ours, with all it promises: log, history, limits, acknowledgements, positions",
)
CHAT_ON_KAFKA = Contender(
    name="chat",
    dialect="chat",
    command=CHAT.command,
    environment=lambda port: {**_ours(port), "KAFKA_ENABLED": "true"},
    version=lambda: f"{_our_version()}, {_package('kafka-python')}",
    note="ours, two replicas",
    ready="/api/rooms/room0/messages",
)
NODE_KAFKA = Contender(
    name="node-ws + kafkajs",
    dialect="plain",
    artifact="node-kafka",
    command=lambda port: ["node", str(ARTIFACTS / "node-kafka" / "server.js"), str(port)],
    version=_node("node-kafka", "ws", "kafkajs", "bufferutil"),
    note="the same relay: acks=all, room as key, every replica reads all partitions; two replicas",
)
SEND_LOOP = Contender(
    name="send-loop",
    dialect="plain",
    artifact="send-loop",
    command=lambda port: [str(ARTIFACTS / "send-loop" / "server"), str(port)],
    version=lambda: "C, gcc -O2",
    note="the floor for one write per message: a loop of `send()` and nothing else",
)
TORNADO = Contender(
    name="tornado",
    dialect="plain",
    command=lambda port: [sys.executable, str(PEERS / "tornado" / "server.py"), str(port)],
    version=lambda: f"{_package('tornado')}, {_package('uvloop')}, {_python()}",
    note="`write_message` to each member",
)
WEBSOCKETS = Contender(
    name="websockets",
    dialect="plain",
    command=lambda port: [sys.executable, str(PEERS / "websockets" / "server.py"), str(port)],
    version=lambda: f"{_package('websockets')}, {_package('uvloop')}, {_python()}",
    note="`broadcast`",
)
NODE_WS = Contender(
    name="node-ws",
    dialect="plain",
    artifact="node-ws",
    command=lambda port: ["node", str(ARTIFACTS / "node-ws" / "server.js"), str(port)],
    version=_node("node-ws", "ws", "bufferutil"),
    note="`send` to each member",
)
SOCKET_IO = Contender(
    name="socket.io",
    dialect="socket.io",
    artifact="socket.io",
    command=lambda port: ["node", str(ARTIFACTS / "socket.io" / "server.js"), str(port)],
    version=_node("socket.io", "socket.io", "ws"),
    note="`io.to(room).emit`",
)


def _centrifuge(*options: str) -> Callable[[int], list[str]]:
    server = str(ARTIFACTS / "centrifuge" / "server")
    return lambda port: [server, f"-address=127.0.0.1:{port}", *options]


CENTRIFUGE = Contender(
    name="centrifuge",
    dialect="centrifuge",
    artifact="centrifuge",
    command=_centrifuge(),
    version=_centrifuge_version,
    note="a channel on the memory broker, no history",
)
CENTRIFUGE_TUNED = Contender(
    name="centrifuge, tuned",
    dialect="centrifuge",
    artifact="centrifuge",
    # The cheapest of: no delay, 2 ms and 10 ms; 16 messages per frame and any number.
    command=_centrifuge("-write-delay=2ms", "-frame=-1"),
    version=_centrifuge_version,
    note="the same with a write delay of 2 ms, and frames of all messages that wait",
)
