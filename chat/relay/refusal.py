"""Finds out why brokers refuse a client. kafka-python reports every such case as "Unable to
bootstrap".

The probe opens its own connection and takes the steps of a client one by one: address, TLS, SASL.
The Ansible modules use this file, too: `plugins/module_utils/kafka_refusal.py` is a link to it. So
it imports nothing of the chat.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    KafkaProtocolError,
    NoError,
    SaslAuthenticationFailedError,
    for_code,
)
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

if TYPE_CHECKING:
    from chat.relay.security import Security

# Answers to the probe are far smaller. A server that sends more is not Kafka.
ANSWER_BYTES = 65_536
# OpenSSL's error numbers for a refused certificate (x509_vfy.h). All others mean: not trusted.
NOT_YET_VALID, EXPIRED, OTHER_HOST, OTHER_ADDRESS = 9, 10, 62, 64


def explain(servers: Sequence[str], security: Security, seconds: float) -> str:
    """Why `servers` (HOST:PORT) refuse a client with these options; empty if none of them does.

    Takes about `seconds` in total at most. Never raises, and never reveals the password.
    """
    deadline = time.monotonic() + seconds
    told = []
    for place, server in enumerate(servers):
        # Leave time for the servers that follow, even if this one hangs.
        share = (deadline - time.monotonic()) / (len(servers) - place)
        try:
            _take_the_steps(server, security, max(share, 0.1))
        except _RefusedError as why:
            told.append(f"{server} {why}")
    return "; ".join(told)


def missing_rights(described: Mapping[str, Any], needed: Collection[str]) -> list[str]:
    """Which of the `needed` operations the client is not allowed on a topic.

    `described` is the topic's entry in the result of `describe_topics`. A cluster without ACLs
    allows everything.
    """
    allowed = described["authorized_operations"]
    return [] if allowed is None else [right for right in needed if right not in allowed]


class _RefusedError(Exception):
    """The text says what a server does, and the remedy."""


class _Probe:
    """A connection that sends requests one after the other, until a deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._protocol = KafkaProtocol(client_id="probe", receive_message_max_bytes=ANSWER_BYTES)

    def ask(self, request: Any) -> Any:
        """Send a request and return the answer. Raises `OSError`, or `KafkaError` if the answer is
        not Kafka's.
        """
        self._protocol.send_request(request)
        self._connection.settimeout(_left(self._deadline))
        self._connection.sendall(self._protocol.send_bytes())
        while True:
            self._connection.settimeout(_left(self._deadline))
            received = self._connection.recv(ANSWER_BYTES)
            if not received:
                raise ConnectionResetError
            try:
                responses = self._protocol.receive_bytes(received)
            except (ValueError, LookupError, struct.error) as error:
                raise KafkaProtocolError(str(error)) from None
            for _, response in responses:
                return response

    def handshake(self, mechanism: str) -> Any:
        """Every Kafka listener answers this request, even without SASL."""
        return self.ask(SaslHandshakeRequest(mechanism=mechanism, version=1))


def _take_the_steps(server: str, security: Security, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with _connected(server, deadline) as plain:
        if not security.tls:
            _speak(server, _Probe(plain, deadline), security, deadline)
            return
        try:
            secured = _wrapped(plain, security.tls_context(), _host(server))
        except ssl.SSLCertVerificationError as error:
            raise _RefusedError(_distrust(error, security)) from None
        except TimeoutError:
            raise _RefusedError(
                f"does not answer the TLS handshake within {seconds:.1f} s"
            ) from None
        except OSError as error:
            if _speaks(server, security, deadline, tls=False):
                raise _RefusedError(
                    f"does not speak TLS, and {security.shown('security_protocol')} does: give the"
                    " port of a listener with TLS, or the protocol of this listener"
                ) from None
            raise _RefusedError(_unfinished(error, security)) from None
        with secured:
            _speak(server, _Probe(secured, deadline), security, deadline)


def _speak(server: str, probe: _Probe, security: Security, deadline: float) -> None:
    """The steps after TCP and TLS."""
    try:
        answer = probe.handshake(security.sasl_mechanism)
    except TimeoutError:
        raise _RefusedError(
            "takes the connection and does not answer: see whether the broker hangs"
        ) from None
    except (OSError, KafkaError) as error:
        if security.tls:
            # With TLS 1.3, the server's verdict on the client's certificate arrives after the
            # handshake.
            raise _RefusedError(_unfinished(error, security)) from None
        if _speaks(server, security, deadline, tls=True):
            raise _RefusedError(
                f"speaks TLS, and {security.shown('security_protocol')} does not: say SSL or"
                " SASL_SSL, as the listener does"
            ) from None
        raise _RefusedError("closes the connection: see whether it is a port of Kafka") from None
    demanded = answer.error_code != IllegalSaslStateError.errno
    if demanded and not security.sasl:
        raise _RefusedError(
            f"demands a user and a password (SASL: {', '.join(answer.mechanisms)}), and"
            f" {security.shown('security_protocol')} has none: say"
            f" {'SASL_SSL' if security.tls else 'SASL_PLAINTEXT'}, and give"
            f" {security.name('sasl_username')} and {security.name('sasl_password')}"
        )
    if security.sasl and not demanded:
        raise _RefusedError(
            f"takes no user and password, and {security.shown('security_protocol')} has them: say"
            f" {'SSL' if security.tls else 'PLAINTEXT'}, or give the port of a listener with SASL"
        )
    if security.sasl:
        _authenticate(_host(server), probe, security, answer)


def _authenticate(host: str, probe: _Probe, security: Security, answer: Any) -> None:
    if for_code(answer.error_code) is not NoError:
        raise _RefusedError(
            f"does not take {security.shown('sasl_mechanism')}: say one of"
            f" {', '.join(answer.mechanisms)}, which it takes"
        )
    mechanism = get_sasl_mechanism(security.sasl_mechanism)(
        host=host,
        sasl_mechanism=security.sasl_mechanism,
        sasl_plain_username=security.sasl_username,
        sasl_plain_password=security.sasl_password,
    )
    try:
        while not mechanism.is_done():
            token = SaslAuthenticateRequest(auth_bytes=mechanism.auth_bytes(), version=1)
            answer = probe.ask(token)
            if answer.error_code:
                raise for_code(answer.error_code)
            mechanism.receive(answer.auth_bytes)
    except SaslAuthenticationFailedError:
        raise _RefusedError(
            f"refuses {security.shown('sasl_username')}: the password in"
            f" {security.name('sasl_password')} is wrong, or there is no such user for"
            f" {security.sasl_mechanism}; brokers do not say which"
        ) from None
    except (OSError, KafkaError, ValueError, KeyError) as error:
        raise _RefusedError(
            f"does not finish the authentication of {security.shown('sasl_username')}"
            f" ({type(error).__name__}): see the broker's log"
        ) from None


def _distrust(error: ssl.SSLCertVerificationError, security: Security) -> str:
    """Why we do not accept the server's certificate."""
    says = error.verify_message.rstrip(".")
    if error.verify_code in (OTHER_HOST, OTHER_ADDRESS):
        return (
            f"has a certificate for other names ({says}): give a name or address that the"
            " certificate has, or give the broker a certificate that has this one"
        )
    if error.verify_code == EXPIRED:
        return "has a certificate that has expired: renew it, and see whether the clocks are right"
    if error.verify_code == NOT_YET_VALID:
        return "has a certificate that is not valid yet: see whether the clocks are right"
    return (
        f"has a certificate of an authority that is not trusted ({says}): give its CA's"
        f" certificate, and {security.shown('ca_file')} is not it"
    )


def _unfinished(error: Exception, security: Security) -> str:
    """Why the server ended TLS. An alert that it sent before closing the connection is the
    reason.
    """
    reason = getattr(error, "reason", None) or type(error).__name__
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return (
            f"does not accept {security.shown('certificate_file')} as the client's certificate"
            f" ({reason}): give one, with its key, of an authority that the broker trusts"
        )
    return (
        f"ends the connection during TLS ({reason}): see the broker's log, and whether the listener"
        " demands a client's certificate"
    )


def _speaks(server: str, security: Security, deadline: float, *, tls: bool) -> bool:
    """Whether the server speaks Kafka (without TLS) or TLS at all, on a new connection."""
    with (
        contextlib.suppress(OSError, KafkaError, _RefusedError),
        _connected(server, deadline) as plain,
    ):
        if not tls:
            _Probe(plain, deadline).handshake(security.sasl_mechanism)
            return True
        # Only find out whether the server speaks TLS; send nothing.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with _wrapped(plain, context, _host(server)):
            return True
    return False


@contextlib.contextmanager
def _connected(server: str, deadline: float) -> Iterator[socket.socket]:
    host, _, port = server.rpartition(":")
    seconds = _left(deadline)
    try:
        connection = socket.create_connection((_host(server), int(port)), seconds)
    except socket.gaierror:
        raise _RefusedError(f"is not known: no address is found for {host}") from None
    except ConnectionRefusedError:
        raise _RefusedError(
            "refuses connections: nothing listens there. See whether the broker runs, and the port"
        ) from None
    except TimeoutError:
        raise _RefusedError(
            f"does not answer within {seconds:.1f} s: see whether the host is up, and firewalls"
        ) from None
    except (OSError, ValueError, OverflowError) as error:
        raise _RefusedError(
            f"cannot be reached: {getattr(error, 'strerror', None) or error}"
        ) from None
    with connection:
        yield connection


def _wrapped(plain: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_hostname=host)


def _host(server: str) -> str:
    return server.rpartition(":")[0].strip("[]")


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.01)
