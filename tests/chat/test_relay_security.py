"""Brokers that require authentication, and prove their identity."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PARTITIONS, Replica, make_topic, revocations_of, signals_of, until
from kafka.admin import (
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.admin import ACLResourcePatternType as PatternType
from secured_broker import PASSWORD, Authority, SecuredBroker
from test_relay import Recorder, record

from chat import settings as chat_settings
from chat.__main__ import relay_for, revocations_for
from chat.relay.base import Relay, UnavailableError
from chat.relay.register import Kept
from chat.settings import SettingsError

# docs/operations/security.md promises that these are enough.
RIGHTS = ("READ", "WRITE", "DESCRIBE_CONFIGS")


@dataclass
class Secured:
    """A user without rights, topics created for a test, and an environment that uses them."""

    broker: SecuredBroker
    user: str
    topic: str
    environment: dict[str, str]

    def allow(self, *operations: str) -> None:
        for topic in (self.topic, signals_of(self.topic), revocations_of(self.topic)):
            self.broker.allow(self.user, topic, *operations)

    def disallow(self) -> None:
        """Revoke all rights."""
        pattern = ResourcePatternFilter(ResourceType.TOPIC, None, PatternType.ANY)
        every = ACLFilter(
            f"User:{self.user}", None, ACLOperation.ANY, ACLPermissionType.ANY, pattern
        )
        with self.broker.admin() as admin:
            admin.delete_acls([every])


@pytest.fixture
def secured(secured_broker: SecuredBroker, tmp_path: Path) -> Secured:
    name = f"chat-{uuid.uuid4().hex[:12]}"
    with contextlib.closing(secured_broker.admin()) as admin:
        make_topic(admin, name, signals_of(name), revocations_of(name))
    secured_broker.make_user(name)
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    environment = {
        "KAFKA_ENABLED": "true",
        "KAFKA_BOOTSTRAP_SERVERS": secured_broker.servers["SASL_SSL"],
        "KAFKA_TOPIC": name,
        "KAFKA_SIGNAL_TOPIC": signals_of(name),
        "KAFKA_REVOCATION_TOPIC": revocations_of(name),
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_CA_FILE": str(secured_broker.authority.file),
        "KAFKA_SASL_USERNAME": name,
        "KAFKA_SASL_PASSWORD_FILE": str(password),
    }
    return Secured(secured_broker, name, name, environment)


@contextlib.asynccontextmanager
async def started(environment: dict[str, str], listener: Recorder) -> AsyncIterator[Relay]:
    relay = relay_for(chat_settings.load(environment))
    await relay.start(listener)
    try:
        yield relay
    finally:
        await relay.stop(2)


async def test_three_rights_on_its_topics_are_all_that_the_chat_needs(
    secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    secured.allow(*RIGHTS)
    listener, other = Recorder(), Recorder()
    async with (
        started(secured.environment, listener) as relay,
        started(secured.environment, other) as second,
    ):
        await until(lambda: all(one.up and one.caught_up for one in (relay, second)))
        await relay.append(record(0))
        await until(lambda: listener.records == other.records == [record(0)])
        read = [await relay.read(partition, -1, 9) for partition in range(PARTITIONS)]
        assert [entry.record for portion in read for entry in portion.entries] == [record(0)]
        await until(lambda: relay.signal(b"here") or other.signals)
        assert relay.trouble == relay.away == ""
    assert not [line for line in caplog.messages if "may not" in line]


async def test_they_are_enough_for_revoked_tokens_too(secured: Secured) -> None:
    issuers = '[{"issuer": "https://id.example", "audience": "chat"}]'
    environment = secured.environment | {"CHAT_AUTH": "required", "CHAT_AUTH_ISSUERS": issuers}
    register = revocations_for(chat_settings.load(environment))
    taken: list[Kept] = []
    await register.start(taken.extend)
    try:
        await until(lambda: f"'{secured.user}' may not DESCRIBE topic" in register.away)
        secured.allow(*RIGHTS)
        await until(lambda: register.caught_up)
        await register.put("key", b"value")
        await until(lambda: [one.value for one in taken] == [b"value"])
    finally:
        await register.stop()


@pytest.mark.parametrize("given", [(), ("READ",), ("WRITE",)], ids="-".join)
async def test_rights_that_are_missing_are_named_until_they_are_given(
    secured: Secured, given: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    secured.allow(*given)
    missing = {(): "DESCRIBE", ("READ",): "WRITE", ("WRITE",): "READ"}[given]
    async with started(secured.environment, Recorder()) as relay:
        await until(lambda: relay.away)
        said = (
            f"KAFKA_SASL_USERNAME='{secured.user}' may not {missing} topic {secured.topic}:"
            " grant it READ, WRITE and DESCRIBE_CONFIGS there"
        )
        assert relay.away == said
        with pytest.raises(UnavailableError):
            relay.append(record(0))
        secured.allow(*RIGHTS)
        await until(lambda: relay.up and relay.caught_up)
        assert relay.away == ""
        await relay.append(record(0))
    assert [line for line in caplog.messages if "may not" in line] == [f"Kafka is away: {said}"]


async def test_without_the_right_to_read_its_settings_the_chat_works_and_warns_once(
    secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    secured.allow("READ", "WRITE")
    listener = Recorder()
    async with started(secured.environment, listener) as relay:
        await until(lambda: relay.up and relay.caught_up)
        await relay.append(record(0))
        await until(lambda: listener.records == [record(0)])
    (said,) = [line for line in caplog.messages if "may not" in line]
    assert f"may not DESCRIBE_CONFIGS topic {secured.topic}" in said


async def test_rights_that_are_taken_away_are_named(secured: Secured) -> None:
    secured.allow(*RIGHTS)
    async with started(secured.environment, Recorder()) as relay:
        await until(lambda: relay.up and relay.caught_up)
        secured.disallow()
        await until(lambda: f"may not DESCRIBE topic {secured.topic}" in relay.away)


@pytest.fixture
def wrong(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Settings with which the chat cannot connect to a broker."""
    password = tmp_path / "other"
    password.write_text("battery staple")
    stranger = Authority(tmp_path, "stranger")
    settings = {
        "password": {"KAFKA_SASL_PASSWORD_FILE": str(password)},
        "authority": {"KAFKA_CA_FILE": str(stranger.file)},
    }
    return settings.__getitem__


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (
            "password",
            "refuses KAFKA_SASL_USERNAME='{user}': the password in KAFKA_SASL_PASSWORD_FILE is"
            " wrong, or there is no such user",
        ),
        ("authority", "has a certificate of an authority that is not trusted"),
    ],
)
async def test_who_is_not_let_in_or_not_trusted_says_why_and_no_secret(
    secured: Secured,
    replica: Replica,
    wrong: Callable[[str], dict[str, str]],
    what: str,
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = await replica(secured.environment, wrong(what), ready=False)
    why = f"{secured.broker.servers['SASL_SSL']} {why.format(user=secured.user)}"
    await until(lambda: why in server.relay.away)
    assert server.look_ready().startswith("the log is not read yet: ")
    assert why in server.look_ready()
    await until(lambda: [line for line in caplog.messages if "is away" in line and why in line])
    with pytest.raises(UnavailableError):
        server.relay.append(record(0))
    assert not any("battery" in line or "horse" in line for line in caplog.messages)


def test_files_that_do_not_hold_what_they_should_are_named_at_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("client")
    _, other = authority.issue("other")
    empty, password = tmp_path / "empty", tmp_path / "password"
    empty.touch()
    password.write_text("secret")
    kafka = {"KAFKA_ENABLED": "true", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    tls = kafka | {"KAFKA_SECURITY_PROTOCOL": "SSL"}
    pair = {"KAFKA_CERTIFICATE_FILE": str(certificate), "KAFKA_KEY_FILE": str(key)}
    sasl = kafka | {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_USERNAME": "chat",
        "KAFKA_SASL_PASSWORD_FILE": str(password),
    }
    relay_for(chat_settings.load(tls | pair))
    relay_for(chat_settings.load(sasl))
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
            relay_for(chat_settings.load(wrong))
        assert str(refused.value).startswith(f"{variable}='")
        assert "\n" not in str(refused.value)
        assert "secret" not in str(refused.value)
