"""A host that does not respond has the address to which its name resolves on the controller."""

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
def test_addresses_and_resolvable_names_give_an_address(
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
