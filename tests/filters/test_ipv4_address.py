"""A host that cannot be asked has the address that its name has for the controller."""

import socket
from collections.abc import Callable

import pytest

KNOWN = {"chat2.example.org": "192.0.2.12", "192.0.2.13": "192.0.2.13", "localhost": "127.0.0.1"}


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("chat2.example.org", "192.0.2.12"),
        ("192.0.2.13", "192.0.2.13"),
        ("chat4.example.org", ""),
        ("localhost", ""),
    ],
)
def test_an_address_or_a_name_that_resolves_is_an_address(
    name: str,
    address: str,
    load_filter: Callable[[str], Callable[[str], str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(host: str) -> str:
        if host not in KNOWN:
            raise socket.gaierror(-2, "Name or service not known")
        return KNOWN[host]

    monkeypatch.setattr(socket, "gethostbyname", resolve)
    assert load_filter("ipv4_address")(name) == address
