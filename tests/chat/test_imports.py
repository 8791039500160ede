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
    "auth.revocations": {"agreed", "auth.identity", "bounds", "relay.register"},
    "auth.tokens": {
        "agreed",
        "auth.identity",
        "auth.issuers",
        "auth.keys",
        "auth.revocations",
        "limits",
        "protocol",
        "rights",
        "room",
    },
    "auth.leases": {"auth.identity", "auth.revocations", "rights", "room"},
    "auth.bearer": {"auth.identity", "headers"},
    "auth.backchannel": {
        "auth.bearer",
        "auth.identity",
        "auth.revocations",
        "headers",
        "relay.base",
    },
    "token": set(),
    "settings": {"auth", "bounds", "origins", "rights"},
    "logs": set(),
    "relay.base": set(),
    "relay.memory": {"relay.base"},
    "relay.register": set(),
    "relay.kafka.batches": set(),
    "relay.kafka.brokers": set(),
    "relay.kafka.pace": set(),
    "relay.kafka.record": {"bounds", "relay.base", "relay.kafka.batches"},
    "relay.kafka.client": {
        "relay.handshake",
        "relay.kafka.batches",
        "relay.kafka.brokers",
        "relay.security",
    },
    "relay.kafka.register": {
        "relay.base",
        "relay.kafka.batches",
        "relay.kafka.client",
        "relay.refusal",
        "relay.register",
        "relay.security",
    },
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
    "revisions": {"relay.base"},
    "window": {"repeats", "revisions", "room", "times", "protocol", "relay.base"},
    "turns": {"relay.base"},
    "archive": {"revisions", "turns", "window", "room", "protocol", "relay.base"},
    "history": {"archive", "revisions", "room", "window", "protocol", "relay.base"},
    "acks": {"room", "protocol", "relay.base", "metrics"},
    "announcer": {"room", "presence", "protocol", "relay.base"},
    "positions": {"room", "window", "protocol"},
    "slow": {"protocol", "rights"},
    "sanctions": {"agreed", "bounds", "limits", "protocol", "relay.register", "rights"},
    "agreed": {"protocol", "relay.base", "relay.register", "rights"},
    "members": {
        "agreed",
        "bounds",
        "limits",
        "protocol",
        "relay.base",
        "relay.register",
        "rights",
    },
    "waiting": {"protocol", "rights", "room", "websocket.frames"},
    "hub": {
        "acks",
        "announcer",
        "archive",
        "history",
        "limits",
        "positions",
        "slow",
        "window",
        "room",
        "presence",
        "protocol",
        "relay.base",
        "metrics",
    },
    "origins": set(),
    "headers": {"limits", "listener", "origins"},
    "api": {
        "archive",
        "auth.bearer",
        "auth.leases",
        "auth.revocations",
        "hub",
        "limits",
        "protocol",
        "relay.base",
        "rights",
    },
    "sending": {
        "api",
        "auth.identity",
        "drain",
        "hub",
        "limits",
        "listener",
        "protocol",
        "waiting",
    },
    "audit": {"hub", "limits", "protocol", "rights", "room", "waiting"},
    "session": {
        "audit",
        "auth.identity",
        "auth.leases",
        "hub",
        "limits",
        "members",
        "rights",
        "room",
        "sanctions",
        "protocol",
        "metrics",
        "websocket.connection",
    },
    "drain": set(),
    "certificate": {"kubernetes"},
    "kubernetes": set(),
    "descriptors": set(),
    "listener": set(),
    "server": {
        "agreed",
        "api",
        "audit",
        "auth.backchannel",
        "auth.bearer",
        "auth.identity",
        "auth.leases",
        "auth.revocations",
        "descriptors",
        "drain",
        "listener",
        "origins",
        "limits",
        "headers",
        "members",
        "sanctions",
        "sending",
        "session",
        "hub",
        "protocol",
        "rights",
        "slow",
        "websocket.budget",
        "websocket.connection",
        "websocket.transport",
        "websocket.wheel",
        "relay.base",
        "relay.register",
        "metrics",
        "settings",
    },
    "client.room": {"protocol"},
    "client.connection": {"client.room", "protocol"},
    "client.device": {"client.room", "protocol"},
    "client.pipe": {"client.connection", "client.room", "protocol"},
    "client.terminal": {"client.connection", "client.room", "protocol"},
    "client.__main__": {
        "client.connection",
        "client.device",
        "client.room",
        "client.pipe",
        "client.terminal",
        "protocol",
    },
    "webhook.events": {"client"},
    "webhook.signature": set(),
    "webhook.config": {"client.device", "protocol", "webhook.events", "webhook.signature"},
    "webhook.state": {"webhook.events"},
    "webhook.folder": {"webhook.state"},
    "webhook.secret": {"kubernetes", "webhook.state"},
    "webhook.metrics": set(),
    "webhook.receiver": {"webhook.events", "webhook.signature"},
    "webhook.reader": {"client", "webhook.events"},
    "webhook.sender": {
        "client",
        "webhook.config",
        "webhook.events",
        "webhook.metrics",
        "webhook.reader",
        "webhook.receiver",
        "webhook.state",
    },
    "webhook.__main__": {
        "kubernetes",
        "logs",
        "webhook.config",
        "webhook.folder",
        "webhook.metrics",
        "webhook.receiver",
        "webhook.secret",
        "webhook.sender",
        "webhook.state",
    },
    "relay.handshake": set(),
    "relay.security": set(),
    "relay.refusal": {"relay.security"},
    "__main__": {
        "bounds",
        "descriptors",
        "server",
        "settings",
        "logs",
        "relay.base",
        "relay.kafka",
        "relay.memory",
        "relay.register",
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
