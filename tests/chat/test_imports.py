"""The dependencies between the modules of chat/, and their list in docs/architecture.md."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import ROOT

PACKAGE = ROOT / "chat"

# The modules that each module may import. No module knows who uses it.
ALLOWED: dict[str, set[str]] = {
    "bounds": set(),
    "protocol": {"bounds"},
    "rights": {"bounds", "protocol"},
    "metrics": set(),
    "auth.identity": {"rights", "room"},
    "auth.issuers": {"auth.keys"},
    "auth.keys": {"auth.identity", "auth.issuers"},
    "auth.tokens": {
        "auth.identity",
        "auth.issuers",
        "auth.keys",
        "limits",
        "protocol",
        "rights",
        "room",
    },
    "auth.leases": {"auth.identity", "room"},
    "auth.bearer": {"auth.identity", "headers"},
    "settings": {"auth", "bounds", "origins", "rights"},
    "logs": set(),
    "relay.base": set(),
    "relay.memory": {"relay.base"},
    "relay.kafka.batches": set(),
    "relay.kafka.pace": set(),
    "relay.kafka.record": {"bounds", "relay.base", "relay.kafka.batches"},
    "relay.kafka.client": {"relay.kafka.batches"},
    "relay.kafka.producer": {"relay.base", "relay.kafka.client", "relay.kafka.record"},
    "relay.kafka.watcher": {
        "relay.kafka.client",
        "relay.kafka.producer",
        "relay.refusal",
        "relay.security",
    },
    "relay.kafka.reader": {
        "relay.base",
        "relay.kafka.batches",
        "relay.kafka.client",
        "relay.kafka.pace",
        "relay.kafka.record",
        "relay.kafka.watcher",
    },
    "relay.kafka.readback": {
        "relay.base",
        "relay.kafka.batches",
        "relay.kafka.client",
        "relay.kafka.record",
        "relay.kafka.watcher",
    },
    "relay.kafka.relay": {
        "relay.security",
        "relay.base",
        "relay.kafka.client",
        "relay.kafka.producer",
        "relay.kafka.readback",
        "relay.kafka.reader",
        "relay.kafka.record",
        "relay.kafka.watcher",
    },
    "limits": set(),
    "websocket.frames": {"protocol"},
    "websocket.wheel": set(),
    "websocket.budget": {"websocket.wheel"},
    "websocket.connection": {
        "protocol",
        "websocket.budget",
        "websocket.frames",
        "websocket.wheel",
    },
    "websocket.transport": {"websocket.connection"},
    "times": set(),
    "room": {"protocol", "relay.base", "rights", "times", "websocket.frames"},
    "presence.names": {"protocol"},
    "presence.occupants": {"presence.names", "protocol"},
    "presence.signals": {"presence.occupants"},
    "presence.peers": {"presence.occupants", "presence.signals"},
    "presence.reservations": {"presence.names", "presence.occupants", "presence.signals"},
    "presence.presence": {
        "presence.occupants",
        "presence.peers",
        "presence.reservations",
        "presence.signals",
        "protocol",
        "room",
    },
    "repeats": {"room"},
    "window": {"repeats", "room", "times", "protocol", "relay.base"},
    "turns": {"relay.base"},
    "archive": {"turns", "window", "room", "protocol", "relay.base"},
    "history": {"archive", "window", "protocol", "relay.base"},
    "acks": {"room", "protocol", "relay.base", "metrics"},
    "announcer": {"room", "presence", "protocol", "relay.base"},
    "positions": {"room", "window", "protocol"},
    "hub": {
        "acks",
        "announcer",
        "archive",
        "history",
        "limits",
        "positions",
        "window",
        "room",
        "presence",
        "protocol",
        "relay.base",
        "metrics",
    },
    "origins": set(),
    "headers": {"limits", "listener", "origins"},
    "api": {"auth.bearer", "auth.leases", "hub", "archive", "limits", "protocol", "rights"},
    "session": {
        "auth.identity",
        "auth.leases",
        "hub",
        "limits",
        "rights",
        "room",
        "protocol",
        "metrics",
        "websocket.connection",
    },
    "drain": set(),
    "certificate": set(),
    "descriptors": set(),
    "listener": set(),
    "server": {
        "api",
        "auth.bearer",
        "auth.identity",
        "auth.leases",
        "descriptors",
        "drain",
        "listener",
        "origins",
        "limits",
        "headers",
        "session",
        "hub",
        "protocol",
        "rights",
        "websocket.budget",
        "websocket.connection",
        "websocket.transport",
        "websocket.wheel",
        "relay.base",
        "metrics",
        "settings",
    },
    "client.room": {"protocol"},
    "client.connection": {"client.room", "protocol"},
    "client.pipe": {"client.connection", "client.room", "protocol"},
    "client.terminal": {"client.connection", "client.room", "protocol"},
    "client.__main__": {
        "client.connection",
        "client.room",
        "client.pipe",
        "client.terminal",
        "protocol",
    },
    "relay.security": set(),
    "relay.refusal": {"relay.security"},
    "__main__": {
        "descriptors",
        "server",
        "settings",
        "logs",
        "relay.base",
        "relay.kafka",
        "relay.memory",
        "relay.security",
    },
}


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }


def test_imports_point_one_way() -> None:
    """server → session → hub → room → protocol, relays beside them."""
    assert modules().keys() == ALLOWED.keys()
    for name, path in modules().items():
        forbidden = imports(path) - ALLOWED[name]
        assert not forbidden, f"{name} imports {forbidden}"


def test_the_map_of_the_code_lists_each_module_once() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text()
    section = document.split("## Map of the code\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `([\w./]+)\.py` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(name.replace(".", "/") for name in modules())


def imports(path: Path) -> set[str]:
    text = path.read_text()
    found = set(re.findall(r"^from chat\.([\w.]+) import", text, re.MULTILINE))
    for names in re.findall(r"^from chat import (.*)$", text, re.MULTILINE):
        found |= {name.split(" as ")[0].strip() for name in names.split(",")}
    return found
