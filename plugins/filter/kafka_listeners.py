"""Filter kafka_listeners: the listeners that a broker has, by the names that Kafka knows.

With TLS, a listener of the inventory has another name, NAME_TLS. So plaintext and TLS can be there
at once, and a running cluster moves from one to the other: Kafka tells a client the addresses of
the listener that it uses, by name, and no name ever changes its protocol. While both are there, the
ones that came later have other ports, so that no client of those before is disturbed.
"""

from collections.abc import Callable, Mapping
from typing import Any

SUFFIX = "_TLS"
# Listeners whose clients have a certificate, and no password.
BY_CERTIFICATE = ("INTERNAL", "CLIENT")

Listener = Mapping[str, Any]


def kafka_listeners(
    listeners: Mapping[str, Listener],
    security: str,
    stage: str,
    address: str = "",
    interim_ports: int = 0,
    newer: str = "tls",
) -> dict[str, dict[str, Any]]:
    """Return the listeners at a stage on the way to `security` (see security_stage.py), each with
    its `protocol`, `bind_address` and `port`, and with what it has `advertised`.

    While there are both, the ports of those that came later are `interim_ports` higher: `newer`
    says which these are, "plaintext" or "tls".
    """
    found = {}
    higher = {newer: interim_ports} if stage not in ("plaintext", "tls") else {}
    if stage != "tls":
        for name, listener in listeners.items():
            # A site's own TLS, by settings.
            given = listener.get("protocol") if stage == security else None
            found[name] = _listener(
                listener, given or "PLAINTEXT", address, higher.get("plaintext", 0)
            )
    if stage != "plaintext":
        for name, listener in listeners.items():
            given = str(listener.get("protocol") or "")
            # On the way back, it says what plaintext is to be.
            if security != "tls" and "SSL" not in given:
                given = ""
            default = "SSL" if name in BY_CERTIFICATE else "SASL_SSL"
            found[name + SUFFIX] = _listener(
                listener, given or default, address, higher.get("tls", 0)
            )
    return found


def _listener(listener: Listener, protocol: str, address: str, higher: int) -> dict[str, Any]:
    host = listener.get("advertised_host") or address
    port = _port(listener.get("port"), higher)
    return {
        "protocol": protocol,
        "bind_address": listener.get("bind_address", "0.0.0.0"),
        "port": port,
        "advertised": f"{host}:{_port(listener.get('advertised_port'), higher) or port}",
    }


def _port(given: Any, higher: int) -> int:
    """The port; 0 where none is given, or what cannot be one, which the role refuses."""
    return int(given) + higher if str(given).isdecimal() else 0


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., dict[str, dict[str, Any]]]]:
        return {"kafka_listeners": kafka_listeners}
