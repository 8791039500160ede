"""Each way in which a broker refuses a client has its own message, which names the remedy."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kafka_broker import free_port
from secured_broker import PASSWORD, Authority, SecuredBroker

from chat.relay.refusal import explain
from chat.relay.security import Security

SECONDS = 20.0


@pytest.fixture(scope="module")
def security(secured_broker: SecuredBroker) -> Security:
    """The options of a client for `SASL_SSL`."""
    secured_broker.make_user("ada")
    return Security(
        security_protocol="SASL_SSL",
        ca_file=str(secured_broker.authority.file),
        sasl_username="ada",
        sasl_password=PASSWORD,
    )


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_who_is_let_in_is_not_refused(
    secured_broker: SecuredBroker, security: Security, protocol: str
) -> None:
    right = replace(security, security_protocol=protocol)
    assert explain([secured_broker.servers[protocol]], right, SECONDS) == ""


@pytest.mark.parametrize(
    ("listener", "options", "words"),
    [
        (
            "PLAINTEXT",
            {},
            "does not speak TLS, and security_protocol='SASL_SSL' does: give the port of a"
            " listener with TLS, or the protocol of this listener",
        ),
        (
            "SASL_SSL",
            {"security_protocol": "PLAINTEXT"},
            "speaks TLS, and security_protocol='PLAINTEXT' does not: say SSL or SASL_SSL",
        ),
        (
            "SASL_SSL",
            {"security_protocol": "SASL_PLAINTEXT"},
            "speaks TLS, and security_protocol='SASL_PLAINTEXT' does not",
        ),
        (
            "SASL_SSL",
            {"ca_file": ""},
            "has a certificate of an authority that is not trusted (unable to get local issuer"
            " certificate): give its CA's certificate, and ca_file='' is not it",
        ),
        (
            "ELSEWHERE",
            {"security_protocol": "SSL"},
            "has a certificate for other names (IP address mismatch, certificate is not valid for"
            " '127.0.0.1'): give a name or address that the certificate has",
        ),
        (
            "EXPIRED",
            {"security_protocol": "SSL"},
            "has a certificate that has expired: renew it, and see whether the clocks are right",
        ),
        (
            "SASL_SSL",
            {"security_protocol": "SSL"},
            "demands a user and a password (SASL: SCRAM-SHA-512), and security_protocol='SSL' has"
            " none: say SASL_SSL, and give sasl_username and sasl_password",
        ),
        (
            "SASL_PLAINTEXT",
            {"security_protocol": "PLAINTEXT"},
            "demands a user and a password (SASL: SCRAM-SHA-512), and"
            " security_protocol='PLAINTEXT' has none: say SASL_PLAINTEXT",
        ),
        (
            "SSL",
            {},
            "takes no user and password, and security_protocol='SASL_SSL' has them: say SSL",
        ),
        (
            "SASL_SSL",
            {"sasl_mechanism": "PLAIN"},
            "does not take sasl_mechanism='PLAIN': say one of SCRAM-SHA-512, which it takes",
        ),
        (
            "SASL_SSL",
            {"sasl_mechanism": "SCRAM-SHA-256"},
            "does not take sasl_mechanism='SCRAM-SHA-256': say one of SCRAM-SHA-512",
        ),
        (
            "SASL_SSL",
            {"sasl_password": "battery staple"},
            "refuses sasl_username='ada': the password in sasl_password is wrong, or there is no"
            " such user for SCRAM-SHA-512; brokers do not say which",
        ),
        (
            "SASL_SSL",
            {"sasl_username": "nobody"},
            "refuses sasl_username='nobody': the password in sasl_password is wrong, or there is"
            " no such user",
        ),
        (
            "MUTUAL",
            {"security_protocol": "SSL"},
            "does not accept certificate_file='' as the client's certificate",
        ),
    ],
)
def test_a_refusal_names_address_value_and_remedy(
    secured_broker: SecuredBroker,
    security: Security,
    listener: str,
    options: dict[str, str],
    words: str,
) -> None:
    server = secured_broker.servers[listener]
    said = explain([server], replace(security, **options), SECONDS)  # type: ignore[arg-type]
    assert said.startswith(f"{server} {words}"), said
    assert "\n" not in said
    assert PASSWORD not in said
    assert "staple" not in said


def test_a_clients_certificate_is_accepted_from_the_authority_that_the_broker_trusts(
    secured_broker: SecuredBroker, security: Security, tmp_path: Path
) -> None:
    server = secured_broker.servers["MUTUAL"]
    for authority, words in (
        (secured_broker.authority, ""),
        (Authority(tmp_path, "stranger"), f"{server} does not accept certificate_file='/"),
    ):
        certificate, key = map(str, authority.issue("client"))
        own = replace(security, security_protocol="SSL", certificate_file=certificate, key_file=key)
        said = explain([server], own, SECONDS)
        assert said.startswith(words), said
        assert bool(said) == bool(words), said


def test_addresses_where_no_broker_is_are_told_apart(security: Security) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    assert explain([nobody, "no.such.host.invalid:9092"], security, SECONDS) == (
        f"{nobody} refuses connections: nothing listens there. See whether the broker runs, and the"
        " port; no.such.host.invalid:9092 is not known: no address is found for"
        " no.such.host.invalid"
    )


@contextlib.contextmanager
def peer(sends: bytes, *, closes: bool) -> Iterator[str]:
    """A server that is not Kafka."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as open_ones:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    open_ones.enter_context(connection)
                    connection.recv(1000)
                    connection.sendall(sends)
                    if closes:
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_SSL"])
def test_one_that_hangs_is_not_waited_for(security: Security, protocol: str) -> None:
    with peer(b"", closes=False) as server:
        began = time.monotonic()
        said = explain([server], replace(security, security_protocol=protocol), 0.5)
        assert "does not answer" in said
        # Several times what an idle machine needs; the time limit itself is 0.5 s.
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize(
    "sends", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x06" + b"\0" * 6, b"\xff" * 400]
)
def test_what_is_not_kafka_is_said_not_to_be(
    security: Security, protocol: str, sends: bytes
) -> None:
    with peer(sends, closes=True) as server:
        said = explain([server], replace(security, security_protocol=protocol), SECONDS)
    assert said.startswith(f"{server} "), said
    assert "port of Kafka" in said or "during TLS" in said, said
