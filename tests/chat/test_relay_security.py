"""Brokers that want to know who asks, and show who they are."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import make_topic, until
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion
from kafka_broker import ALONE, KafkaBroker, free_port
from test_relay import Recorder, record

from chat import settings as chat_settings
from chat.__main__ import relay_for
from chat.relay.base import UnavailableError
from chat.relay.security import security
from chat.settings import SettingsError

SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@dataclass
class Guarded:
    """A broker with a listener for SASL over TLS, and what its clients need."""

    server: str
    certificate: Path
    key: Path
    password: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "KAFKA_ENABLED": "true",
            "KAFKA_BOOTSTRAP_SERVERS": self.server,
            "KAFKA_TOPIC": "guarded",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_CA_FILE": str(self.certificate),
            "KAFKA_SASL_USERNAME": "chat",
            "KAFKA_SASL_PASSWORD_FILE": str(self.password),
        } | more


@pytest.fixture(scope="module")
def guarded(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    certificate, key = make_certificate(folder, "broker")
    both = folder / "broker.pem"
    both.write_text(key.read_text() + certificate.read_text())
    password = folder / "password"
    password.write_text("correct horse\n")
    server = f"127.0.0.1:{free_port()}"
    settings = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": SCRAM,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(both),
    }
    broker = KafkaBroker(
        kafka_home, folder, settings=ALONE | settings, listener=f"SASL_SSL://{server}"
    )
    try:
        broker.start()
        with contextlib.closing(
            KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        ) as admin:
            user = UserScramCredentialUpsertion(
                "chat", ScramMechanism.SCRAM_SHA_512, "correct horse"
            )
            admin.alter_user_scram_credentials([user])
            make_topic(admin, "guarded", "chat-signals")
        yield Guarded(server, certificate, key, password)
    finally:
        broker.close()


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, for 127.0.0.1, and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return certificate, key


async def test_messages_go_through_tls_with_a_password(guarded: Guarded) -> None:
    relay = relay_for(chat_settings.load(guarded.environment()))
    listener = Recorder()
    await relay.start(listener)
    try:
        await until(lambda: relay.up and relay.caught_up)
        await relay.append(record(0))
        await until(lambda: listener.records == [record(0)])
        (entry,) = [entry for p in range(3) for entry in (await relay.read(p, -1, 9)).entries]
        assert entry.record == record(0)
    finally:
        await relay.stop(2)


@pytest.mark.parametrize("wrong", ["password", "authority"])
async def test_who_is_not_let_in_or_not_trusted_says_so_and_no_secret(
    guarded: Guarded, wrong: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    password = tmp_path / "password"
    password.write_text("battery staple")
    stranger, _ = make_certificate(tmp_path, "stranger")
    more = {
        "password": {"KAFKA_SASL_PASSWORD_FILE": str(password)},
        "authority": {"KAFKA_CA_FILE": str(stranger)},
    }[wrong]
    relay = relay_for(chat_settings.load(guarded.environment(**more)))
    await relay.start(Recorder())
    try:
        await until(lambda: [line for line in caplog.messages if "Kafka is away" in line])
        with pytest.raises(UnavailableError):
            relay.append(record(0))
    finally:
        await relay.stop(1)
    (said,) = [line for line in caplog.messages if "Kafka is away" in line]
    assert "SASL_SSL: see to certificates and password" in said
    assert not any("battery" in line or "horse" in line for line in caplog.messages)


def test_files_that_do_not_hold_what_they_should_are_named_at_the_start(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "client")
    _, other = make_certificate(tmp_path, "other")
    empty, password = tmp_path / "empty", tmp_path / "password"
    empty.touch()
    password.write_text("secret")
    tls = {"KAFKA_SECURITY_PROTOCOL": "SSL"}
    pair = {"KAFKA_CERTIFICATE_FILE": str(certificate), "KAFKA_KEY_FILE": str(key)}
    sasl = {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_USERNAME": "chat",
        "KAFKA_SASL_PASSWORD_FILE": str(password),
    }
    security(chat_settings.load(tls | pair))
    security(chat_settings.load(sasl))
    for wrong, variable in (
        (tls | {"KAFKA_CA_FILE": str(password)}, "KAFKA_CA_FILE"),
        (tls | {"KAFKA_CA_FILE": str(tmp_path / "none")}, "KAFKA_CA_FILE"),
        (tls | pair | {"KAFKA_KEY_FILE": str(other)}, "KAFKA_CERTIFICATE_FILE"),
        (tls | pair | {"KAFKA_KEY_FILE": ""}, "KAFKA_CERTIFICATE_FILE"),
        (pair, "KAFKA_CERTIFICATE_FILE"),
        (sasl | {"KAFKA_SASL_PASSWORD_FILE": str(empty)}, "KAFKA_SASL_PASSWORD_FILE"),
        (sasl | {"KAFKA_SASL_PASSWORD_FILE": ""}, "KAFKA_SASL_PASSWORD_FILE"),
        (sasl | {"KAFKA_SASL_USERNAME": ""}, "KAFKA_SASL_USERNAME"),
        ({"KAFKA_SASL_USERNAME": "chat"}, "KAFKA_SASL_USERNAME"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL"),
        (sasl | {"KAFKA_SASL_MECHANISM": "GSSAPI"}, "KAFKA_SASL_MECHANISM"),
    ):
        with pytest.raises(SettingsError) as refused:
            security(chat_settings.load(wrong))
        assert str(refused.value).startswith(f"{variable}='")
        assert "\n" not in str(refused.value)
        assert "secret" not in str(refused.value)
