"""Filter ipv4_address: the address to which the controller resolves a name, or ''.

For hosts that are not in the run or do not answer, and so cannot report their own address. A
loopback address would mean the controller itself, so the result is then ''.
"""

import ipaddress
import socket
from collections.abc import Callable


def ipv4_address(name: str) -> str:
    """The IPv4 address of a host, by its name or address."""
    try:
        address = socket.gethostbyname(name)
    except OSError:
        return ""
    return "" if ipaddress.ip_address(address).is_loopback else address


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[[str], str]]:
        return {"ipv4_address": ipv4_address}
