"""The job that gets the chat's certificate, tested with Pebble and a stand-in for Kubernetes."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from josepy.jwk import JWKEC
from kubernetes_secrets import TOKEN, Kubernetes
from pebble import Pebble
from servers import free_port

from chat import certificate
from chat.certificate import Issued, Order, due
from chat.kubernetes import field

NAMES = ["chat.example.org", "127.0.0.1"]
SERVED = "/api/v1/namespaces/chat/secrets/chat-tls"
ACCOUNT = "/api/v1/namespaces/chat-acme/secrets/account"


class Job:
    """The job, in a cluster whose Traefik routes challenges to it."""

    def __init__(self, folder: Path, pebble: Pebble, kubernetes: Kubernetes, port: int) -> None:
        self.secrets, self.patched = kubernetes.secrets, kubernetes.patched
        (folder / "token").write_text(TOKEN)
        self._options = {
            "directory": pebble.directory,
            "secret": "chat/chat-tls",
            "account": "chat-acme/account",
            "traefik": f"http://127.0.0.1:{port}",
            "port": str(port),
            "kubernetes": kubernetes.url,
            "credentials": str(folder),
        }

    def run(self, *names: str, **options: str) -> int:
        changed = self._options | options
        given = [f"--{name}={value}" for name, value in changed.items()]
        return certificate.main([*given, *(names or NAMES)])

    @property
    def order(self) -> Order:
        return Order(self._options["directory"], NAMES)

    def served(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(field(self.secrets[SERVED], "tls.crt"))


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Pebble]:
    with Pebble(tmp_path_factory.mktemp("pebble"), "127.0.0.1", "127.0.0.1", port) as running:
        yield running


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, pebble: Pebble, port: int) -> Iterator[Job]:
    """A job that has run once."""
    with pytest.MonkeyPatch.context() as patch, Kubernetes() as kubernetes:
        patch.setenv("REQUESTS_CA_BUNDLE", str(pebble.ca_file))
        # There is only one Traefik.
        patch.setattr(certificate, "LED_EVERYWHERE", 0)
        patch.setattr(certificate, "LED_WITHIN", 1)
        for path in ("chat/chat-tls", "chat-acme/account"):
            kubernetes.make(path)
        # The CA of the role's own authority.
        kubernetes.secrets[SERVED]["data"] = {"ca.crt": "b3du"}
        job = Job(tmp_path_factory.mktemp("job"), pebble, kubernetes, port)
        assert job.run() == 0
        yield job


def test_clients_of_the_authority_trust_every_name(
    job: Job, pebble: Pebble, tmp_path: Path
) -> None:
    assert set(job.secrets[SERVED]["data"]) == {"tls.crt", "tls.key"}
    (tmp_path / "root.crt").write_text(pebble.root)
    chain, key = (field(job.secrets[SERVED], name) for name in ("tls.crt", "tls.key"))
    (tmp_path / "chain.crt").write_bytes(chain)
    for way in ("-verify_hostname chat.example.org", "-verify_ip 127.0.0.1"):
        openssl(f"verify -CAfile root.crt -untrusted chain.crt {way}", chain, tmp_path)
    public = openssl("x509 -noout -pubkey", chain, tmp_path)
    assert openssl("pkey -pubout", key, tmp_path) == public


def test_a_good_certificate_is_kept(job: Job) -> None:
    # First the unused account, then the certificate.
    assert job.patched == [ACCOUNT, SERVED]
    assert job.run() == 0
    assert job.patched == [ACCOUNT, SERVED]


def openssl(command: str, given: bytes, folder: Path) -> bytes:
    return subprocess.run(
        ["openssl", *command.split()], input=given, check=True, capture_output=True, cwd=folder
    ).stdout


def test_it_is_replaced_by_the_same_account_with_a_new_key(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, account = job.served(), dict(job.secrets[ACCOUNT]["data"])
    late = before.not_valid_before_utc + timedelta(days=61)

    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return late if tz else datetime.now()

    monkeypatch.setattr(certificate, "datetime", Late)
    assert job.run() == 0
    assert job.served().serial_number != before.serial_number
    assert job.served().public_key() != before.public_key()
    assert job.secrets[ACCOUNT]["data"] == account


def test_a_third_of_the_lifetime_is_left_when_it_is_due(job: Job) -> None:
    secret, ends = job.secrets[SERVED], job.served().not_valid_after_utc
    third = (ends - job.served().not_valid_before_utc) / 3
    assert due(secret, job.order, ends - third - timedelta(minutes=1)) == ""
    assert due(secret, job.order, ends - third + timedelta(minutes=1)).startswith("it ends ")
    now = datetime.now(UTC)
    other = "it is of another authority, or for other names"
    assert due(secret, job.order._replace(names=["other.example.org"]), now) == other
    assert due(secret, job.order._replace(directory="https://other/dir"), now) == other
    assert due({"metadata": {}}, job.order, now) == "there is none"


def signed(key: ec.EllipticCurvePrivateKey, *names: str, days: float = 90, ago: float = 0) -> bytes:
    """A certificate in PEM that became valid `ago` days ago."""
    begins = datetime.now(UTC) - timedelta(days=ago)
    by = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    builder = x509.CertificateBuilder(by, by, key.public_key(), 1).not_valid_before(begins)
    builder = builder.not_valid_after(begins + timedelta(days=days))
    if names:
        held = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(held, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


OWN, ANOTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
NAME = "chat.example.org"


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (b"<html>maintenance</html>", "it cannot be read"),
        (signed(OWN, NAME) + signed(OWN).replace(b"MII", b"MIJ"), "it cannot be read"),
        (signed(ANOTHER, NAME), "the key is not its key"),
        (signed(OWN), f"it lacks {NAME}"),
        (signed(OWN, "other.example.org"), f"it lacks {NAME}"),
        (signed(OWN, NAME, days=1, ago=2), "it is valid from "),
        (signed(OWN, NAME, ago=-2), "it is valid from "),
    ],
)
def test_what_clients_would_refuse_is_not_served(
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chain: bytes,
    words: str,
) -> None:
    before = json.dumps(job.secrets)
    monkeypatch.setattr(certificate, "obtain", lambda *_: Issued(chain, pem(OWN)))
    assert job.run(NAME) == 1
    assert f"what it issued is not served: {words}" in capsys.readouterr().out
    assert json.dumps(job.secrets) == before


@pytest.mark.parametrize(
    ("chain", "key", "why"),
    [
        (b"spoilt", pem(OWN), "it cannot be read"),
        (signed(OWN), b"spoilt", "its key cannot be read"),
        (signed(OWN), b"", "its key cannot be read"),
        (signed(OWN), pem(ANOTHER), "the key is not its key"),
        (signed(OWN), pem(OWN), ""),
    ],
)
def test_a_spoilt_certificate_is_replaced(chain: bytes, key: bytes, why: str) -> None:
    assert why_due(chain, key) == why


def why_due(chain: bytes, key: bytes) -> str:
    order = Order("https://acme.example.org/dir", [NAME])
    data = {"tls.crt": b64encode(chain).decode(), "tls.key": b64encode(key).decode()}
    secret = {"metadata": {"annotations": {certificate.ANSWERS: order.text}}, "data": data}
    return due(secret, order, datetime.now(UTC))


@pytest.mark.parametrize("hours", [25, 30, 36, 38, 48, 60, 72, 144])
def test_two_runs_try_before_a_certificate_of_some_days_ends(hours: int) -> None:
    # Each run is twelve hours, and some seconds, after the one that got the certificate.
    runs = [run * 12 + 0.1 for run in range(hours // 12 + 1) if run * 12 + 0.1 < hours]
    tried = [run for run in runs if why_due(signed(OWN, days=hours / 24, ago=run / 24), pem(OWN))]
    assert len(tried) >= 2


@pytest.mark.parametrize("hours", [6, 24, 48, 144, 2160])
def test_a_new_certificate_is_kept_however_short_it_lives(hours: int) -> None:
    days = hours / 24
    assert why_due(signed(OWN, days=days, ago=days / 5), pem(OWN)) == ""


def test_one_of_a_day_is_replaced_at_the_next_run() -> None:
    assert why_due(signed(OWN, days=1, ago=0.499), pem(OWN)).startswith("it ends ")


def test_jobs_at_once_answer_each_others_challenges(job: Job, port: int) -> None:
    # Let the challenges of the second job arrive at the first.
    account = serialization.load_pem_private_key(field(job.secrets[ACCOUNT], "account.key"), None)
    with certificate.answering(port, JWKEC(key=account)):
        assert job.run("two.example.org", port=str(free_port())) == 0


def test_only_challenges_are_answered(port: int) -> None:
    account = JWKEC(key=OWN)
    with certificate.answering(port, account):
        for path, status in (
            ("/.well-known/acme-challenge/a-Token_1", 200),
            ("/.well-known/acme-challenge/<script>", 404),
            ("/.well-known/acme-challenge/" + 129 * "a", 404),
            ("/.well-known/acme-challenge/", 404),
            ("/", 404),
        ):
            assert requests.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code == status


def test_jobs_at_once_share_the_first_ones_account(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another job stores its key while this one creates its own.
    account = job.secrets[ACCOUNT]
    first = account.pop("data")

    def slow() -> bytes:
        account["data"] = first
        account["metadata"]["resourceVersion"] += "1"
        return pem(OWN)

    keys = []

    def refused(_: Order, key: bytes, *__: object) -> None:
        keys.append(key)
        raise OSError

    monkeypatch.setattr(certificate, "new_key", slow)
    monkeypatch.setattr(certificate, "obtain", refused)
    assert job.run("three.example.org") == 1
    assert account["data"] == first
    assert keys == [field(account, "account.key")]


def test_what_fails_leaves_the_certificate_and_says_why(
    job: Job, pebble: Pebble, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.dumps(job.secrets)
    nowhere = free_port()
    away = f"https://127.0.0.1:{nowhere}/dir"
    for names, options, words in (
        # The authority is unreachable.
        ([], {"directory": away}, f"no certificate from {away}: "),
        # Challenges do not reach the job.
        (
            ["a.example.org"],
            {"traefik": f"http://127.0.0.1:{nowhere}"},
            "for a.example.org does not lead here: ",
        ),
        # Challenges reach the job through Traefik, but not from the authority.
        (
            ["b.example.org"],
            {"traefik": f"http://127.0.0.1:{nowhere}", "port": str(nowhere)},
            "the authority refuses b.example.org: ",
        ),
        (["under_score"], {}, f"no certificate from {pebble.directory}: "),
    ):
        capsys.readouterr()
        assert job.run(*names, **options) == 1
        said = capsys.readouterr().out
        assert words in said
        assert said.count("\n") == 1
        assert json.dumps(job.secrets) == before
