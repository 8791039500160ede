#!/usr/bin/python
"""Ansible module zookeeper_info: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: zookeeper_info
short_description: Get the modes of ZooKeeper servers
description:
  - >-
    Sends the four letter word C(srvr) to each server. A server answers with its mode only while it
    is part of a quorum. It changes nothing and only needs Python.
  - >-
    A standalone server serves, but is not part of an ensemble: among several servers it counts as
    failed.
extends_documentation_fragment:
  - baremetal_chat.platform.zookeeper
  - baremetal_chat.platform.read_only
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Wait until all servers serve
  baremetal_chat.platform.zookeeper_info:
    servers: [192.0.2.11:2181, 192.0.2.12:2181, 192.0.2.13:2181]
  register: ensemble
  until: ensemble.failed_servers | length == 0
  retries: 30
  delay: 1
"""

RETURN = r"""
modes:
  description: Mode of each server that serves. C(leader), C(follower), C(observer), C(standalone).
  returned: always
  type: dict
  sample: {"192.0.2.11:2181": follower, "192.0.2.12:2181": leader}
leaders:
  description: The leaders, or the single standalone server. A healthy ensemble has one.
  returned: always
  type: list
  elements: str
  sample: ["192.0.2.12:2181"]
failed_servers:
  description: The error of each server that does not serve.
  returned: always
  type: dict
  sample: {"192.0.2.13:2181": "Connection refused"}
"""

import re
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal_chat.platform.plugins.module_utils import zookeeper


def mode(module: AnsibleModule, server: str, *, alone: bool) -> str:
    """Mode of a server, which may be `alone`; raises OSError with the reason when it fails."""
    with zookeeper.connect(module, server) as connection:
        connection.sendall(b"srvr")
        with connection.makefile(encoding="utf-8", errors="replace") as answer:
            text = answer.read()
    found = re.search(r"^Mode: (\w+)", text, re.MULTILINE)
    if not found:
        raise OSError(text.strip() or "closed the connection without an answer")
    if found[1] == "standalone" and not alone:
        raise OSError("stands alone, and is no member of the ensemble")
    return found[1]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=zookeeper.OPTIONS, supports_check_mode=True)
    servers = zookeeper.servers(module)
    modes, failed = {}, {}
    # All at once, so that several silent servers take no longer than one.
    with ThreadPoolExecutor(len(servers) or 1) as pool:
        alone = len(servers) == 1
        asked = {server: pool.submit(mode, module, server, alone=alone) for server in servers}
    for server, answer in asked.items():
        try:
            modes[server] = answer.result()
        except OSError as error:
            failed[server] = zookeeper.reason(error)
    leaders = [server for server, role in modes.items() if role in ("leader", "standalone")]
    module.exit_json(changed=False, modes=modes, leaders=leaders, failed_servers=failed)


if __name__ == "__main__":
    main()
