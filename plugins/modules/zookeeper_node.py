#!/usr/bin/python
"""Ansible module zookeeper_node: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: zookeeper_node
short_description: Read a node of ZooKeeper's tree
description:
  - >-
    Asks the servers one after the other until one that is part of a quorum answers. It changes
    nothing and needs nothing but Python.
options:
  path:
    description: Path of the node, with the chroot.
    type: str
    required: true
extends_documentation_fragment:
  - baremetal_chat.platform.zookeeper
  - baremetal_chat.platform.read_only
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Ask which cluster the ensemble knows
  baremetal_chat.platform.zookeeper_node:
    servers: [192.0.2.11:2181, 192.0.2.12:2181, 192.0.2.13:2181]
    path: /kafka/cluster/id
  register: node
"""

RETURN = r"""
answered:
  description: Whether a server answered, so that a node that is not C(found) does not exist.
  returned: always
  type: bool
  sample: true
found:
  description: Whether the node exists.
  returned: always
  type: bool
  sample: true
content:
  description: Content of the node; empty, if it was not found.
  returned: always
  type: str
  sample: '{"version":"1","id":"nFq3kXW5QqSvFz0kVyfRhw"}'
failed_servers:
  description: Why a server did not answer, for each that was asked and did not.
  returned: always
  type: dict
  sample: {"192.0.2.13:2181": "Connection refused"}
"""

import struct
from typing import TYPE_CHECKING, BinaryIO

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal_chat.platform.plugins.module_utils import zookeeper

if TYPE_CHECKING:
    import socket

# ZooKeeper's protocol (zookeeper.jute, and ZooDefs.java for the numbers): frames with their length
# in front, everything in network order.
GET_DATA = 4
CLOSE = -11
NO_NODE = -101
SESSION_MILLISECONDS = 10_000
# As ZooKeeper's own limit (jute.maxbuffer), in bytes.
LARGEST = 2**20


def send(connection: socket.socket, frame: bytes) -> None:
    connection.sendall(struct.pack(">i", len(frame)) + frame)


def receive(stream: BinaryIO) -> bytes:
    """The next frame; raises OSError when the server, which may be no ZooKeeper, sends none."""
    header = stream.read(4)
    if len(header) < 4:
        raise OSError("closed the connection without an answer")
    (length,) = struct.unpack(">i", header)
    frame = stream.read(length) if 0 < length <= LARGEST else b""
    if not frame or len(frame) < length:
        raise OSError("does not answer as ZooKeeper does")
    return frame


def content(module: AnsibleModule, server: str) -> bytes | None:
    """Content of the node, None if there is none; raises OSError with the reason when it fails."""
    name = module.params["path"].encode()
    with (
        zookeeper.connect(module, server) as connection,
        connection.makefile("rb") as stream,
    ):
        # Protocol, last transaction seen, timeout, session, its password, whether to read only.
        new_session = (0, 0, SESSION_MILLISECONDS, 0, 16, b"", False)
        send(connection, struct.pack(">iqiqi16s?", *new_session))
        receive(stream)
        # Number of the request, its kind; path, whether to watch it.
        get = (1, GET_DATA, len(name), name, False)
        send(connection, struct.pack(f">iii{len(name)}s?", *get))
        answer = receive(stream)
        send(connection, struct.pack(">ii", 2, CLOSE))
    # Number of the request, transaction, error; length of the content, and the content.
    _, _, error = struct.unpack_from(">iqi", answer)
    if error == NO_NODE:
        return None
    if error:
        raise OSError(f"answers with ZooKeeper's error {error}")
    (length,) = struct.unpack_from(">i", answer, 16)
    return answer[20 : 20 + max(length, 0)]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=zookeeper.OPTIONS | {"path": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    failed = {}
    for server in zookeeper.servers(module):
        try:
            node = content(module, server)
        except OSError as error:
            failed[server] = zookeeper.reason(error)
            continue
        except struct.error as error:
            failed[server] = str(error)
            continue
        module.exit_json(
            changed=False,
            answered=True,
            found=node is not None,
            content=(node or b"").decode(errors="replace"),
            failed_servers=failed,
        )
    module.exit_json(changed=False, answered=False, found=False, content="", failed_servers=failed)


if __name__ == "__main__":
    main()
