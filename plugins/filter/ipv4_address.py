"""Filter ipv4_address: the address that a name has for the controller, '' if it has none.

For hosts that are not in the run or do not answer, whose own address nobody can ask. A loopback
address means the controller alone, so it is none.
"""

import ipaddress
import socket
from collections.abc import Callable


def ipv4_address(name: str) -> str:
    """The IPv4 address of a host by its name or address."""
    try:
        address = socket.gethostbyname(name)
    except OSError:
        return ""
    return "" if ipaddress.ip_address(address).is_loopback else address


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[[str], str]]:
        return {"ipv4_address": ipv4_address}
