#!/usr/bin/python
"""Ansible module host_info: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_info
short_description: Gather preflight facts for a service on a host
description:
  - >-
    One call gathers all preflight facts of a role: the content of its directories, the programs on
    its ports, and which peers can be reached. It changes nothing and only needs Python. Run it as
    root: otherwise programs of other users have no name.
options:
  directories:
    description: Directories that the service will own.
    type: list
    elements: str
    default: []
  files:
    description: Files to read, if they exist.
    type: list
    elements: path
    default: []
  ports:
    description: TCP ports that the service will listen on.
    type: list
    elements: int
    default: []
  unit:
    description: The service's unit. Ports that it already uses do not count as taken.
    type: str
    required: true
  peers:
    description: Addresses that the service will connect to, as C(HOST:PORT).
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for a peer.
    type: int
    default: 5
extends_documentation_fragment: [baremetal_chat.platform.read_only]
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Look at the host
  baremetal_chat.platform.host_info:
    directories: [/var/lib/kafka/data]
    files: [/var/lib/kafka/data/meta.properties]
    ports: [9092]
    unit: kafka.service
    peers: [192.0.2.12:9092]
"""

RETURN = r"""
directories:
  description: >-
    For each directory whether it C(exists), its C(entries) without hidden ones and C(lost+found),
    why it is C(unreadable) (empty if it is readable; a disk may fail), whether it is a
    C(mount_point), whether it is C(kept_from_units) with ProtectHome, PrivateTmp and the like (or
    is a relative path), and the free space of its file system, C(free_mb), in MB.
  returned: always
  type: dict
  sample:
    /var/lib/kafka/data:
      exists: true
      entries: []
      unreadable: ""
      mount_point: false
      kept_from_units: false
      free_mb: 51200
files:
  description: Content of each file that exists.
  returned: always
  type: dict
  sample: {"/var/lib/kafka/data/meta.properties": "broker.id=1\n"}
taken:
  description: The program on each port that is in use by a program other than the unit's.
  returned: always
  type: dict
  sample: {"9092": "nginx (pid 123)"}
clock_synchronised:
  description: Whether the kernel's clock is synchronised.
  returned: always
  type: bool
  sample: true
obstacles:
  description: >-
    The error for each peer that cannot be reached. A refused connection counts as reachable: the
    host is up, only the service does not run yet.
  returned: always
  type: dict
  sample: {"kafka2.example.org:9092": "Name or service not known"}
"""

import contextlib
import ctypes
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

# The state LISTEN in /proc/net/tcp (include/net/tcp_states.h).
LISTEN = "0A"
# adjtimex(2): the clock is not synchronised. The structure has 208 bytes; a larger buffer is
# harmless.
TIME_ERROR = 5
SIZE_OF_TIMEX = 512
UNREMARKABLE = "lost+found"
# Paths that systemd.exec(5) replaces or hides for a unit with ProtectHome, PrivateTmp,
# PrivateDevices and ProtectKernelTunables.
KEPT_FROM_UNITS = ["/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev", "/proc", "/sys"]


def directory(path: Path) -> dict:
    """The values described in RETURN. The directory need not exist, and its disk may fail."""
    entries, free, unreadable = [], 0, ""
    existing = path
    # Unlike Path.exists, this treats a failing disk as missing.
    while not os.path.exists(existing):  # noqa: PTH110
        existing = existing.parent
    try:
        entries = [entry.name for entry in path.iterdir()] if path.is_dir() else []
        space = os.statvfs(existing)
        free = space.f_bavail * space.f_frsize // 2**20
    except OSError as error:
        unreadable = error.strerror or str(error)
    # Not os.path.ismount: it does not recognise a bind mount from the same file system.
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    leads_to = path.resolve()
    return {
        "exists": existing == path,
        "unreadable": unreadable,
        "entries": sorted(e for e in entries if not e.startswith(".") and e != UNREMARKABLE),
        "mount_point": str(leads_to) in mounts,
        "kept_from_units": not path.is_absolute()
        or any(leads_to.is_relative_to(place) for place in KEPT_FROM_UNITS),
        "free_mb": free,
    }


def contents(paths: list[str]) -> dict[str, str]:
    """The contents of the files that exist and are readable."""
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found[path] = Path(path).read_text()
    return found


def listeners() -> dict[str, int]:
    """The ports of listening TCP sockets, by the link target of a descriptor in /proc."""
    found = {}
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            columns = line.split()
            if columns[3] == LISTEN:
                found[f"socket:[{columns[9]}]"] = int(columns[1].rpartition(":")[2], 16)
    return found


def links(process: Path) -> set[str]:
    """The link targets of a process's descriptors. Empty if it has ended or we may not look."""
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(descriptor.readlink()))
    return found


def taken(ports: list[int], unit: str) -> dict[int, str]:
    """The owners of the ports, except for the unit."""
    sockets = {link: port for link, port in listeners().items() if port in ports}
    owners = dict.fromkeys(sockets.values(), "another program")
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        for link in links(process) & sockets.keys():
            with contextlib.suppress(OSError):
                name = (process / "comm").read_text().strip()
                ours = f"/{unit}" in (process / "cgroup").read_text()
                owners[sockets[link]] = "" if ours else f"{name} (pid {process.name})"
    return {port: owner for port, owner in owners.items() if owner}


def clock_synchronised() -> bool:
    """Whether adjtimex(2) reports a synchronised clock. The call changes nothing."""
    changes_nothing = ctypes.create_string_buffer(SIZE_OF_TIMEX)
    return ctypes.CDLL(None).adjtimex(changes_nothing) != TIME_ERROR


def obstacle(peer: str, timeout: float) -> str | None:
    """Why a peer is unreachable, or None."""
    host, _, port = peer.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    except ConnectionRefusedError:
        return None
    except TimeoutError:
        return f"no answer within {timeout} s"
    except OSError as error:
        return error.strerror or str(error)
    return None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "unit": {"type": "str", "required": True},
            "peers": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    for peer in wanted["peers"]:
        if not re.fullmatch(r".+:\d{1,5}", peer):
            module.fail_json(msg=f"'{peer}' is not a peer: write HOST:PORT")
    # In parallel, so that several silent peers take no longer than one.
    with ThreadPoolExecutor(len(wanted["peers"]) or 1) as pool:
        tried = {peer: pool.submit(obstacle, peer, wanted["timeout"]) for peer in wanted["peers"]}
    obstacles = {peer: answer.result() for peer, answer in tried.items()}
    module.exit_json(
        changed=False,
        directories={path: directory(Path(path)) for path in wanted["directories"]},
        files=contents(wanted["files"]),
        clock_synchronised=clock_synchronised(),
        taken=taken(wanted["ports"], wanted["unit"]),
        obstacles={peer: why for peer, why in obstacles.items() if why},
    )


if __name__ == "__main__":
    main()
