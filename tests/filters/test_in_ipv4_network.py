"""A virtual IP must be a literal host address in the network of the interface."""

from collections.abc import Callable, Mapping

import pytest

INTERFACE = {"network": "192.0.2.64", "netmask": "255.255.255.192"}


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("192.0.2.65", True),
        ("192.0.2.126", True),
        ("192.0.2.64", False),
        ("192.0.2.127", False),
        ("192.0.2.128", False),
        ("chat.example.org", False),
        ("192.0.2.66/26", False),
        ("2001:db8::1", False),
        ("", False),
    ],
)
def test_only_host_addresses_of_the_network_are_accepted(
    address: str,
    fits: bool,
    load_filter: Callable[[str], Callable[[str, Mapping[str, str]], bool]],
) -> None:
    assert load_filter("in_ipv4_network")(address, INTERFACE) is fits
