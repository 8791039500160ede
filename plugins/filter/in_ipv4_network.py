"""Filter in_ipv4_network: whether an address belongs to a host in a network.

The network comes from the facts of an interface, for example {'network': '192.0.2.0', 'netmask':
'255.255.255.0'}.
Names, IPv6 addresses, the network address and the broadcast address are refused.
"""

import ipaddress
from collections.abc import Callable, Mapping


def in_ipv4_network(address: str, interface: Mapping[str, str]) -> bool:
    """Whether the address is an IPv4 address of a host in the interface's network."""
    network = ipaddress.IPv4Network((interface["network"], interface["netmask"]))
    try:
        host = ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return host in network and host not in (network.network_address, network.broadcast_address)


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[[str, Mapping[str, str]], bool]]:
        return {"in_ipv4_network": in_ipv4_network}
