"""Filter certificate_names_refused: names that a certificate would tell in another form.

A certificate is renewed when it lacks a wanted name. A name that it tells in another form is never
found in it, so every run would renew it and restart the service.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable

# As role kafka_tls tells addresses from names.
ADDRESS = re.compile(r"[0-9.]+$|.*:")
LABEL = r"[a-z0-9_-]{1,63}"
HOST_NAME = re.compile(rf"(\*\.)?{LABEL}(\.{LABEL})*")


def obstacle(name: str) -> str | None:
    """Why this name cannot be, with the remedy, or None. Upper case is not one."""
    if not ADDRESS.match(name):
        if HOST_NAME.fullmatch(name.lower()):
            return None
        return (
            f"{name} is no host name: write it without a dot at its end, of a-z, 0-9, '.', '_' and"
            " '-', and names of other characters in their ASCII form (xn--...)"
        )
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return f"{name} is no IP address: correct it"
    # In a certificate, an address has no interface.
    if getattr(address, "scope_id", None):
        return f"{name} is no IP address: remove the interface after '%'"
    return None if name.lower() == address.compressed else f"{name}: write {address.compressed}"


def certificate_names_refused(names: Iterable[str]) -> list[str]:
    """Each name that cannot be, with the remedy."""
    return [why for name in names if (why := obstacle(str(name)))]


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[[Iterable[str]], list[str]]]:
        return {"certificate_names_refused": certificate_names_refused}
