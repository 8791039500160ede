"""Shared by the ZooKeeper modules: options, and connections to servers."""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from ansible.module_utils.basic import AnsibleModule

OPTIONS: dict[str, Any] = {
    "servers": {"type": "list", "elements": "str", "required": True},
    "timeout": {"type": "int", "default": 5},
    "ca_file": {"type": "path"},
    "certificate_file": {"type": "path"},
    "key_file": {"type": "path"},
}


def servers(module: AnsibleModule) -> list[str]:
    """Return the given servers, or fail the module if one has no port."""
    given: list[str] = module.params["servers"]
    for server in given:
        if not re.fullmatch(r".+:\d{1,5}", server):
            module.fail_json(msg=f"'{server}' is not a server: write HOST:PORT")
    return given


def connect(module: AnsibleModule, server: str) -> socket.socket:
    """Return a connection to HOST:PORT, also of IPv6; raises OSError.

    Over TLS if the module is told what to trust. Its files may come with the server, and are an
    error of that server's until then.
    """
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    timeout: int = module.params["timeout"]
    if not module.params["ca_file"]:
        return socket.create_connection((host, int(port)), timeout)
    context = _context(*(module.params[f"{name}_file"] for name in ("ca", "certificate", "key")))
    plain = socket.create_connection((host, int(port)), timeout)
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except OSError:
        plain.close()
        raise


def _context(ca: str, certificate: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate:
            # An empty passphrase, so that nobody is asked for one on the terminal.
            context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError:
        raise OSError(
            f"ca_file='{ca}', certificate_file='{certificate}', key_file='{key}': give"
            " certificates in PEM, and a key without a passphrase"
        ) from None
    except OSError as error:
        raise OSError(
            f"ca_file='{ca}', certificate_file='{certificate}', key_file='{key}': {error.strerror}"
        ) from None
    return context


def reason(error: OSError) -> str:
    """Why a server does not answer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (
            f"ends TLS ({error.reason or error.strerror}): see whether it speaks TLS, and give"
            " certificate_file and key_file of an authority that it trusts"
        )
    return error.strerror or str(error)
