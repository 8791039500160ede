"""Checks of hosts and origins: which pages may use the chat. Both are compared as URLs.

A browser sends two headers that a page cannot choose: the host it connects to, and the origin of
the page. A page may read responses of its own origin, so the host must be one of ours. Otherwise
the owner of any name could point it here (DNS rebinding) and have "the same origin".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

_PORTS = {"http": 80, "https": 443}
# RFC 1035, 2.3.4. A name in another script has at most as many characters as bytes.
_LONGEST_NAME = 253
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
# IDNA 2008 keeps these characters, but Python's IDNA 2003 codec maps them to another host.
_DEVIATIONS = re.compile("[\u00df\u1e9e\u03c2\u200c\u200d]")


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int


def is_literal(host: str) -> bool:
    """Whether the host is an IP address; IPv6 is in brackets."""
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def parse_host(text: str) -> str:
    """A host without a port, as browsers write it. Raises `ValueError` if it is not a host."""
    if text.startswith("[") and text.endswith("]"):
        return f"[{ipaddress.IPv6Address(text[1:-1])}]"
    name = text.removesuffix(".")
    # Python's IDNA codec takes time quadratic in the length of a name.
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"{text[:_LONGEST_NAME]!r}… is not a host: it is too long")
    if _DEVIATIONS.search(name):
        raise ValueError(f"{text!r} differs between versions of IDNA: write it as xn--…")
    try:
        name = name.encode("idna").decode().lower()
    except UnicodeError:
        raise ValueError(f"{text!r} is not a host") from None
    if not _NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not a host")
    return name


def parse_authority(text: str) -> tuple[str, int | None]:
    """A host and its port, if it has one. Raises `ValueError`."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return parse_host(text), None
    if not re.fullmatch(r"[0-9]{0,5}", port) or int(port or 0) > 65535:
        raise ValueError(f"{text!r} has an invalid port")
    return parse_host(host), int(port) if port else None


def parse_origin(text: str) -> Origin:
    """Raises `ValueError` if it is not an origin."""
    scheme, separator, authority = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        raise ValueError(f"{text!r} is not an origin")
    host, port = parse_authority(authority)
    return Origin(scheme, host, _PORTS[scheme] if port is None else port)


class Sites:
    """The hosts under which the chat is reachable, and the other sites that may use it."""

    def __init__(self, hosts: Iterable[str], allowed: Iterable[str], own: Iterable[str]) -> None:
        """`own` are names of this machine. They are known even if no `hosts` are given."""
        self._complete = bool(hosts := frozenset(map(parse_host, hosts)))
        self._hosts = hosts | frozenset(name.lower() for name in own)
        self._allowed = frozenset(map(parse_origin, allowed))

    def knows(self, authority: str, *, local: bool) -> bool:
        """Whether a request may name this host. An IP address always may, because no DNS name is
        involved.

        If no hosts are given, only `local` requests (from this machine) to unknown names are
        refused.
        """
        try:
            host, _ = parse_authority(authority)
        except ValueError:
            return False
        if host in self._hosts or is_literal(host):
            return True
        if host == "localhost" or host.endswith(".localhost"):
            return True
        return not (self._complete or local)

    def admits(self, origin: str | None, fetch_site: str | None, authority: str) -> bool:
        """Whether a page of `origin` may use `authority`. None: the request has no Origin header.

        `fetch_site` is the Sec-Fetch-Site header of newer browsers.
        """
        if fetch_site in ("same-origin", "none"):
            return True
        if origin is None:
            # A program, unless a browser says that the request comes from another site.
            return fetch_site is None
        try:
            of_page = parse_origin(origin)
            host, port = parse_authority(authority)
        except ValueError:
            return False
        if of_page in self._allowed:
            return True
        # Behind a proxy the scheme is unknown, so a missing port means the default of the page's
        # scheme.
        default = _PORTS[of_page.scheme]
        same = (of_page.host, of_page.port) == (host, default if port is None else port)
        return same and fetch_site is None
