"""TLS and SASL settings of the Kafka client. Secrets come from files, and go nowhere else."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from chat.settings import Settings, SettingsError


def security(settings: Settings) -> dict[str, Any]:
    """kafka-python's settings. Raises `SettingsError` for a file that does not hold what it should.

    Brokers must have a certificate for the name or address by which they are reached.
    """
    protocol = settings.kafka_security_protocol
    told: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        told["ssl_context"] = _tls(settings)
    if protocol.startswith("SASL_"):
        told["sasl_mechanism"] = settings.kafka_sasl_mechanism
        told["sasl_plain_username"] = settings.kafka_sasl_username
        told["sasl_plain_password"] = _password(settings)
    return told


def _tls(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file or None)
    except ssl.SSLError:
        raise SettingsError(
            f"KAFKA_CA_FILE='{settings.kafka_ca_file}': give a file with certificates in PEM"
        ) from None
    if settings.kafka_certificate_file:
        try:
            # An empty passphrase, so that nobody is asked for one on the terminal.
            context.load_cert_chain(
                settings.kafka_certificate_file, settings.kafka_key_file, password=""
            )
        except ssl.SSLError:
            raise SettingsError(
                f"KAFKA_CERTIFICATE_FILE='{settings.kafka_certificate_file}': give a certificate in"
                f" PEM, and in KAFKA_KEY_FILE='{settings.kafka_key_file}' its key without a"
                " passphrase"
            ) from None
    return context


def _password(settings: Settings) -> str:
    file = settings.kafka_sasl_password_file
    try:
        password = Path(file).read_text().rstrip("\r\n")
    except UnicodeDecodeError:
        password = ""
    if not password:
        raise SettingsError(
            f"KAFKA_SASL_PASSWORD_FILE='{file}': give a file that holds the password as text"
        )
    return password
