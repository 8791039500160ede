"""Shared by the ZooKeeper modules: options, and connections to servers."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from ansible.module_utils.basic import AnsibleModule

OPTIONS: dict[str, Any] = {
    "servers": {"type": "list", "elements": "str", "required": True},
    "timeout": {"type": "int", "default": 5},
}


def servers(module: AnsibleModule) -> list[str]:
    """Return the given servers, or fail the module if one has no port."""
    given: list[str] = module.params["servers"]
    for server in given:
        if not re.fullmatch(r".+:\d{1,5}", server):
            module.fail_json(msg=f"'{server}' is not a server: write HOST:PORT")
    return given


def connect(server: str, timeout: float) -> socket.socket:
    """Return a connection to HOST:PORT, also of IPv6; raises OSError."""
    host, _, port = server.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout)


def reason(error: OSError) -> str:
    """Why a server does not answer."""
    return error.strerror or str(error)
