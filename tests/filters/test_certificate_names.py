"""Names must have the form that certificates use: others would never be found in one."""

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("FD00:0::1", "FD00:0::1: write fd00::1"),
        ("fd00::0:1%eth0", "fd00::0:1%eth0 is no IP address"),
        ("192.0.2.300", "192.0.2.300 is no IP address"),
        ("192.0.2.0/24", "192.0.2.0/24 is no host name"),
        ("bücher.example", "bücher.example is no host name"),
        ("chat1.example.org.", "chat1.example.org. is no host name"),
        ("chat1, chat2", "chat1, chat2 is no host name"),
    ],
)
def test_a_name_that_certificates_write_differently_is_refused(
    name: str, said: str, load_filter: Callable[..., Callable[[list[str]], list[str]]]
) -> None:
    refused = load_filter("certificate_names", "certificate_names_refused")
    (words,) = refused(["chat1.example.org", name])
    assert words.startswith(said)


@pytest.mark.parametrize(
    "name",
    ["fd00::1", "FD00::1", "192.0.2.1", "Chat1", "*.example.org", "xn--bcher-kva.example", "a_b.c"],
)
def test_a_name_in_the_form_of_certificates_is_accepted(
    name: str, load_filter: Callable[..., Callable[[list[str]], list[str]]]
) -> None:
    assert load_filter("certificate_names", "certificate_names_refused")([name]) == []
