"""Filter in_ipv4_network: whether a host of a network can have an address.

The network is what the facts of an interface say, for example
{'network': '192.0.2.0', 'netmask': '255.255.255.0'}.
A name, an IPv6 address, the network's own address and its broadcast address are refused.
"""

import ipaddress
from collections.abc import Callable, Mapping


def in_ipv4_network(address: str, interface: Mapping[str, str]) -> bool:
    """Whether the address is a literal IPv4 address of a host in the network of the interface."""
    network = ipaddress.IPv4Network((interface["network"], interface["netmask"]))
    try:
        host = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return host in network and host not in (network.network_address, network.broadcast_address)


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[[str, Mapping[str, str]], bool]]:
        return {"in_ipv4_network": in_ipv4_network}
