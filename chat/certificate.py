"""`python -m chat.certificate`: get the chat's certificate from an authority by ACME (RFC 8555).

Role chat runs this as a job of the cluster, twice a day, on any host and never inside a replica. It
answers the authority's HTTP-01 challenges itself: Traefik leads them here from port 80 of every
host. It keeps nothing on disk. The account's key and the certificate are in two Secrets, which are
all that its service account may read and write.

Nothing is written before the authority has issued a certificate. If it does not, the certificate
that is there stays, and the next run tries again. Each run asks for one certificate at most, so
that an authority that limits requests is asked twice a day, whatever fails.

Exit codes: 0: the certificate is good, or was replaced. 1: it could not be replaced; the last line
says why. 2: an argument is invalid.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.b64 import b64encode as jose_b64encode
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from chat.kubernetes import CREDENTIALS, URL, Secrets, field

# The annotation of a Secret that says for which directory and names its certificate was asked.
ANSWERS = "baremetal-chat/acme"
ACCOUNT_KEY = "account.key"
# The path of a challenge, with its token.
CHALLENGE = rf"/{re.escape(challenges.HTTP01.URI_ROOT_PATH)}/([A-Za-z0-9_-]{{1,128}})"
# The time of two runs, and some more: one of them may fail.
TWO_RUNS = timedelta(hours=25)
# Seconds until Traefik has to lead challenges here; after that, until all others do, too. Each of
# them takes changes over every two seconds (providersThrottleDuration).
LED_WITHIN = 60
LED_EVERYWHERE = 3
# Seconds for the authority to validate the names and to issue the certificate.
ISSUED_WITHIN = 240


class Order(NamedTuple):
    """What is asked for."""

    directory: str
    names: list[str]

    @property
    def text(self) -> str:
        """The same in one line, for the annotation."""
        return " ".join([self.directory, *self.names])


class Issued(NamedTuple):
    """A certificate with its chain, and its key, both in PEM."""

    chain: bytes
    key: bytes

    @property
    def certificate(self) -> x509.Certificate:
        """The first of the chain. ValueError: something cannot be read, or the key is another's."""
        try:
            certificate, *_ = x509.load_pem_x509_certificates(self.chain)
            public = certificate.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError("it cannot be read") from error
        try:
            own = serialization.load_pem_private_key(self.key, None).public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ValueError("its key cannot be read") from error
        if public != own:
            raise ValueError("the key is not its key")
        return certificate

    def check(self, names: list[str], now: datetime) -> x509.Certificate:
        """Return the certificate if clients accept it for these names; ValueError says why not."""
        certificate = self.certificate
        held: set[str] = set()
        with suppress(x509.ExtensionNotFound):
            signed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            held = {str(name.value).lower() for name in signed.value}
        wanted = [name for kind in identifiers(names).values() for name in kind]
        missing = [str(name) for name in wanted if str(name).lower() not in held]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begins <= now < ends:
            valid = " to ".join(f"{moment:%Y-%m-%d %H:%M}" for moment in (begins, ends))
            raise ValueError(f"it is valid from {valid}, and now is {now:%Y-%m-%d %H:%M} UTC")
        return certificate


def due(secret: dict[str, Any], order: Order, now: datetime) -> str:
    """Say why a Secret's certificate is to be replaced; an empty text if it is not.

    It is replaced when a third of its lifetime is left, whatever that is: 90 days, 45 or 6. One
    that lives for some days only is replaced earlier, so that two runs can try it.
    """
    chain = field(secret, "tls.crt")
    if not chain:
        return "there is none"
    if (secret["metadata"].get("annotations") or {}).get(ANSWERS) != order.text:
        return "it is of another authority, or for other names"
    try:
        certificate = Issued(chain, field(secret, "tls.key")).certificate
    except ValueError as error:
        return str(error)
    ends = certificate.not_valid_after_utc
    lifetime = ends - certificate.not_valid_before_utc
    # Never in its first quarter: one of a day would be replaced by each run made by hand.
    if ends - now < min(max(lifetime / 3, TWO_RUNS), lifetime * 3 / 4):
        return f"it ends {ends:%Y-%m-%d %H:%M} UTC"
    return ""


# --- the authority ----------------------------------------------------------------------------


class LedElsewhereError(OSError):
    """A challenge does not arrive here."""


class Traefik(NamedTuple):
    """The way by which challenges come: from Traefik's address in the cluster to a port here."""

    url: str
    port: int

    def wait(self, name: str, path: str, answer: bytes) -> None:
        """Wait until a request for `path` arrives here; raise LedElsewhereError if none does."""
        last = ""
        deadline = time.monotonic() + LED_WITHIN
        while time.monotonic() < deadline:
            try:
                last = self._ask(name, path)
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
            if last == answer.decode():
                return
            time.sleep(0.2)
        raise LedElsewhereError(f"{self.url}{path} for {name} does not lead here: {last[:200]}")

    def _ask(self, name: str, path: str) -> str:
        # Not followed: until Traefik knows the route, it redirects to HTTPS.
        there = urlsplit(self.url)
        connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=5)
        try:
            connection.request("GET", path, headers={"Host": name})
            response = connection.getresponse()
            said = response.read(1024).decode(errors="replace")
            return said if response.status == 200 else f"{response.status} {response.reason}"
        finally:
            connection.close()


@contextmanager
def answering(port: int, account: JWKEC) -> Iterator[None]:
    """Serve the answers to this account's challenges within the block: those of other jobs, too.

    If several run, Traefik leads each challenge to any of them. An answer is the challenge's token
    with the thumbprint of the account's key, so it helps nobody with another account.
    """
    thumbprint = jose_b64encode(account.thumbprint())

    class Answer(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            token = re.fullmatch(CHALLENGE, self.path)
            self.send_response(200 if token else 404)
            self.end_headers()
            if token:
                self.wfile.write(token[1].encode() + b"." + thumbprint)

        def log_message(self, *_: object) -> None:
            """Say nothing: the last line is the command's."""

    server = HTTPServer(("", port), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def new_key() -> bytes:
    """A new private key, in PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def signed_in(directory: str, account: JWKEC) -> client.ClientV2:
    """A client of the authority, with the account of this key, which is opened if there is none."""
    net = client.ClientNetwork(account, alg=ES256, user_agent="baremetal-chat")
    authority = client.ClientV2(client.ClientV2.get_directory(directory, net), net)
    try:
        authority.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True))
    except errors.ConflictError as there:
        net.account = messages.RegistrationResource(
            body=messages.Registration(), uri=there.location
        )
    return authority


def identifiers(names: list[str]) -> dict[str, Any]:
    """Names and addresses, as a request for a certificate has them."""
    domains: list[str] = []
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for name in names:
        try:
            addresses.append(ipaddress.ip_address(name))
        except ValueError:
            domains.append(name)
    return {"domains": domains, "ipaddrs": addresses}


def obtain(order: Order, account_key: bytes, traefik: Traefik) -> Issued:
    """Get a certificate; raises acme's errors, and those of `reason`."""
    account = JWKEC(key=serialization.load_pem_private_key(account_key, None))
    authority = signed_in(order.directory, account)
    key = new_key()
    open_order = authority.new_order(crypto_util.make_csr(key, **identifiers(order.names)))
    # Those that the authority has validated before have nothing to answer.
    pending = {
        authorization.body.identifier.value: challenge
        for authorization in open_order.authorizations
        if authorization.body.status == messages.STATUS_PENDING
        for challenge in authorization.body.challenges
        if isinstance(challenge.chall, challenges.HTTP01)
    }
    with answering(traefik.port, account):
        for name, challenge in pending.items():
            traefik.wait(name, challenge.chall.path, challenge.validation(account).encode())
        if pending:
            time.sleep(LED_EVERYWHERE)
        for challenge in pending.values():
            authority.answer_challenge(challenge, challenge.response(account))
        # acme compares it with the local time.
        deadline = datetime.now() + timedelta(seconds=ISSUED_WITHIN)
        return Issued(authority.poll_and_finalize(open_order, deadline).fullchain_pem.encode(), key)


def reason(error: Exception) -> str:
    """Why there is no certificate, on one line."""
    if isinstance(error, errors.ValidationError):
        failed = [
            f"{authorization.body.identifier.value}: {challenge.error.detail}"
            for authorization in error.failed_authzrs
            for challenge in authorization.body.challenges
            if challenge.error
        ]
        return "the authority refuses " + "; ".join(failed)
    if isinstance(error, errors.TimeoutError):
        return f"the authority has not answered within {ISSUED_WITHIN} s"
    return " ".join(str(error).split()) or type(error).__name__


# --- the command ------------------------------------------------------------------------------


def account_key(secrets: Secrets, name: str) -> bytes:
    """The account's key in PEM; made, and kept in the Secret `name`, if there is none."""
    secret = secrets.read(name)
    if not field(secret, ACCOUNT_KEY):
        # Before it is used: accounts are limited, too. If another job has made one, that counts.
        version = secret["metadata"]["resourceVersion"]
        try:
            secrets.write(name, {ACCOUNT_KEY: new_key()}, resourceVersion=version)
        except requests.HTTPError as refused:
            if refused.response is None or refused.response.status_code != HTTPStatus.CONFLICT:
                raise
        secret = secrets.read(name)
    return field(secret, ACCOUNT_KEY)


def keep(secrets: Secrets, name: str, account: str, order: Order, traefik: Traefik) -> str:
    """Replace the certificate in the Secret `name` if it is due; return what was done."""
    why = due(secrets.read(name), order, datetime.now(UTC))
    if not why:
        return "the certificate is good"
    issued = obtain(order, account_key(secrets, account), traefik)
    try:
        ends = issued.check(order.names, datetime.now(UTC)).not_valid_after_utc
    except ValueError as error:
        raise ValueError(f"what it issued is not served: {error}") from error
    # The chat's own authority is none of this certificate's.
    data = {"tls.crt": issued.chain, "tls.key": issued.key, "ca.crt": None}
    secrets.write(name, data, annotations={ANSWERS: order.text})
    return f"the certificate was replaced, because {why}; the new one ends {ends:%Y-%m-%d}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chat.certificate", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="host names of the chat")
    parser.add_argument("--directory", required=True, help="URL of the authority's directory")
    parser.add_argument("--secret", required=True, help="Secret of the certificate, NAMESPACE/NAME")
    parser.add_argument("--account", required=True, help="Secret of the account's key")
    parser.add_argument("--traefik", required=True, help="URL of Traefik's port for HTTP")
    parser.add_argument("--port", type=int, default=8080, help="where challenges arrive (8080)")
    parser.add_argument("--kubernetes", default=URL, help="its API")
    parser.add_argument(
        "--credentials",
        type=Path,
        default=CREDENTIALS,
        help="folder with the service account's token and ca.crt",
    )
    given = parser.parse_args(arguments)
    secrets = Secrets(given.kubernetes, given.credentials)
    order = Order(given.directory, given.names)
    try:
        done = keep(secrets, given.secret, given.account, order, Traefik(given.traefik, given.port))
    except (errors.Error, messages.Error, JoseError, OSError, ValueError) as error:
        print(f"{given.secret}: no certificate from {order.directory}: {reason(error)}")
        return 1
    print(f"{given.secret}: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
