"""How a client connects to Kafka: TLS and SASL. Secrets go into the client and nowhere else.

The Ansible modules use this file, too: `plugins/module_utils/kafka_security.py` is a link to it. So
it imports nothing of the chat, and error messages name options as its user does.
"""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class SecurityError(ValueError):
    """A file has invalid content. The text names the option, the value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Security:
    """Files are in PEM format. `names` maps these options to the user's names for them."""

    security_protocol: str = "PLAINTEXT"
    # Empty: the system's CAs.
    ca_file: str = ""
    certificate_file: str = ""
    # The key must not have a passphrase.
    key_file: str = ""
    sasl_mechanism: str = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: str = dataclasses.field(default="", repr=False)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        return self.security_protocol.startswith("SASL_")

    def name(self, option: str) -> str:
        """The user's name for an option."""
        return self.names.get(option, option)

    def shown(self, option: str) -> str:
        """The name and value of an option that is not secret."""
        return f"{self.name(option)}='{getattr(self, option)}'"

    @property
    def who(self) -> str:
        """The client's name in messages about ACLs."""
        return self.shown("sasl_username") if self.sasl else "this client"

    def client_options(self) -> dict[str, Any]:
        """The options for kafka-python's clients. Raises `SecurityError`, also for missing options.

        Brokers must have a certificate for the name or address under which clients reach them.
        """
        for option in ("sasl_username", "sasl_password"):
            if self.sasl and not getattr(self, option):
                raise SecurityError(
                    f"{self.name(option)} is empty: {self.shown('security_protocol')} needs a user"
                    " and a password"
                )
        options: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.tls:
            options["ssl_context"] = self.tls_context()
        if self.sasl:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password
        return options

    def tls_context(self) -> ssl.SSLContext:
        """The trusted CAs and the client's certificate. Raises `SecurityError`."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise SecurityError(
                f"{self.shown('ca_file')}: give a file with certificates in PEM{_why(error)}"
            ) from None
        if self.certificate_file or self.key_file:
            try:
                # An empty passphrase, because otherwise OpenSSL asks for one on the terminal.
                context.load_cert_chain(self.certificate_file, self.key_file, password="")
            except OSError as error:
                raise SecurityError(
                    f"{self.shown('certificate_file')}: give a certificate in PEM, and in"
                    f" {self.shown('key_file')} its key without a passphrase{_why(error)}"
                ) from None
        return context


def _why(error: OSError) -> str:
    """The system's error text. OpenSSL's texts about invalid files do not help anybody."""
    return "" if isinstance(error, ssl.SSLError) else f" ({error.strerror})"


PLAINTEXT = Security()
