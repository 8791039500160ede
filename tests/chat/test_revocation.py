"""Tokens that were revoked count no more, on any replica, and their connections end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from chat_client import ChatClient
from conftest import PARTITIONS, Replica, revocations_of, until
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType
from provider import Provider, ec_key
from test_auth import refusal
from test_auth_renewal import session
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from chat import agreed
from chat.auth import revocations as module
from chat.auth.identity import TOLERANCE, Identity, Logout
from chat.auth.revocations import MOST_BYTES, Revocations
from chat.client import DisconnectedError, connect
from chat.relay.base import UnavailableError
from chat.relay.register import Kept, MemoryRegister, Note, Take, ignore
from chat.rights import ALL
from chat.room import Person
from chat.server import Server
from tests.kafka_broker import KafkaBroker

# A connection ends within this time on every replica.
SECONDS = 2.0
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@contextlib.asynccontextmanager
async def client(server: Server, headers: dict[str, str]) -> AsyncIterator[ChatClient]:
    async with ChatClient(server.port, additional_headers=headers) as one:
        await one.join("lobby")
        yield one


async def ends(*clients: ChatClient) -> None:
    async with asyncio.timeout(SECONDS):
        for one in clients:
            assert await one.closed() == (4403, "you were signed out")


async def test_signing_out_ends_one_session_on_all_replicas_also_after_they_restart(
    replica: Replica, provider: Provider, kafka: dict[str, str]
) -> None:
    environment = kafka | provider.environment()
    one, other = [await replica(environment) for _ in range(2)]
    here, there = provider.headers(sid="here"), provider.headers(sid="there")
    async with (
        client(one, here) as ada,
        client(other, here) as another_tab,
        client(one, there) as another_browser,
        # Who has shaken hands and says nothing has a place, too.
        ChatClient(other.port, None, additional_headers=here) as silent,
    ):
        assert (await session(one, "DELETE", **here)).code == 204
        await ends(ada, another_tab)
        await silent.say(type="hello", user="")
        await ends(silent)
        await another_browser.send("lobby", "still here")
        for server in (one, other):
            answer = await session(server, **here)
            assert answer.code == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
            assert "it was revoked: sign in again" in json.loads(answer.body)["error"]
            assert (await refusal(server.port, **here))[0] == 401
        error = await another_browser.refused(
            type="auth", token=here["Authorization"].removeprefix("Bearer ")
        )
        assert error["code"] == "bad_token"
    await asyncio.gather(one.drain(), other.drain())
    one, other = [await replica(environment) for _ in range(2)]
    later = provider.headers(sid="here", iat=time.time() + 30)
    for server in (one, other):
        assert (await session(server, **here)).code == 401
        assert (await session(server, **there)).code == 200
        assert (await session(server, **later)).code == 200, "who has signed in again since"
    assert b"chat_revocations 1.0" in one.metrics_text()


async def test_where_tokens_name_no_session_a_person_signs_out_everywhere(
    replica: Replica, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chat.auth")
    server = await replica(provider.environment())
    # One that is issued later counts.
    headers = provider.headers()
    async with client(server, provider.headers("bob")) as bob:
        url = f"http://127.0.0.1:{server.port}/"
        async with connect(url, token=lambda: provider.token(iat=time.time() - 5)) as ada:
            assert (await session(server, "DELETE", **headers)).code == 204
            with pytest.raises(DisconnectedError, match="4403 you were signed out"):
                async with asyncio.timeout(SECONDS):
                    await anext(ada.room("lobby"))
        await bob.send("lobby", "still here")
        author = ada.author
    assert (await session(server, "DELETE", **headers)).code == 401
    (line,) = [one for one in caplog.messages if one.startswith("sign-out: ")]
    assert author in line
    assert "eyJ" not in caplog.text, "a token is in no log"


async def test_pages_of_other_sites_sign_nobody_out(replica: Replica, provider: Provider) -> None:
    server = await replica(provider.environment())
    headers = provider.headers()
    for origin in ("https://evil.example", "http://127.0.0.1:1"):
        assert (await session(server, "DELETE", Origin=origin, **headers)).code == 403
    assert (await session(server, "DELETE")).code == 401
    assert (await session(server, **headers)).code == 200


# Back-channel logout.


async def post(server: Server, body: str, **headers: str) -> HTTPResponse:
    return await AsyncHTTPClient().fetch(
        f"http://127.0.0.1:{server.port}/api/backchannel-logout",
        method="POST",
        body=body,
        headers={"Content-Type": "application/x-www-form-urlencoded"} | headers,
        raise_error=False,
    )


def logout(**claims: Any) -> dict[str, Any]:
    told = {"jti": "1", "events": {EVENT: {}}, "sid": "here", "preferred_username": None}
    return told | claims


def logout_token(provider: Provider, **claims: Any) -> str:
    return provider.token(header={"typ": "logout+jwt"}, **logout(**claims))


async def log_out(server: Server, token: str) -> HTTPResponse:
    return await post(server, urlencode({"logout_token": token}))


@pytest.mark.parametrize(
    ("claims", "elsewhere"),
    [({"sub": None}, 200), ({"sid": None}, 401), ({}, 200)],
    ids=["session", "person", "session of a person"],
)
async def test_the_provider_ends_what_its_token_names(
    replica: Replica,
    provider: Provider,
    caplog: pytest.LogCaptureFixture,
    claims: dict[str, Any],
    elsewhere: int,
) -> None:
    caplog.set_level(logging.INFO, "chat.auth")
    server = await replica(provider.environment())
    here, there = provider.headers(sid="here"), provider.headers(sid="there")
    async with client(server, here) as ada, client(server, provider.headers("bob")) as bob:
        token = logout_token(provider, **claims)
        for _ in range(2):
            answer = await log_out(server, token)
            assert (answer.code, answer.body) == (200, b"")
            assert answer.headers["Cache-Control"] == "no-store"
        await ends(ada)
        await bob.send("lobby", "still here")
    assert (await session(server, **here)).code == 401
    assert (await session(server, **there)).code == elsewhere
    lines = [one for one in caplog.messages if one.startswith("back-channel logout of ")]
    assert len(lines) == 1, "the same again is nothing new"


Forge = Callable[[Provider], str]


def with_claims(**claims: Any) -> Forge:
    """Times are from now on."""

    def forge(provider: Provider) -> str:
        now = time.time()
        told = {name: now + it if isinstance(it, int) else it for name, it in claims.items()}
        return logout_token(provider, **told)

    return forge


BAD: dict[str, tuple[Forge, str]] = {
    "a token that signs in": (lambda p: p.token(), "missing required field `jti`"),
    "of another kind": (
        lambda p: p.token(header={"typ": "at+jwt"}, **logout()),
        "type 'at+jwt' is none that ends a session",
    ),
    "a foreign key": (
        lambda p: p.token(key=ec_key("first"), **logout()),
        "its signature does not count",
    ),
    "unsigned": (
        lambda p: p.token(**logout()).rpartition(".")[0] + ".",
        "its signature",
    ),
    "another issuer": (with_claims(iss="https://eve.example"), "is none of CHAT_AUTH_ISSUERS"),
    "another audience": (with_claims(aud="mail"), "audience 'mail' is not 'chat'"),
    "no audience": (with_claims(aud=None), "missing required field `aud`"),
    "no iat": (with_claims(iat=None), "missing required field `iat`"),
    "issued in an hour": (with_claims(iat=3600), "it was issued in 3"),
    "issued last year": (with_claims(iat=-30_000_000), "what was revoked is known for"),
    "no exp": (with_claims(exp=None), "missing required field `exp`"),
    "ended": (with_claims(exp=-3600), "it ended 36"),
    "no jti": (with_claims(jti=None), "missing required field `jti`"),
    "an empty jti": (with_claims(jti=""), "its jti is empty"),
    "no events": (with_claims(events=None), "missing required field `events`"),
    "another event": (with_claims(events={"http://x.example": {}}), "its events have no http"),
    "an event that is no object": (with_claims(events={EVENT: 1}), "its events have no http"),
    "neither sub nor sid": (with_claims(sub=None, sid=None), "it has neither sub nor sid"),
    "a nonce": (with_claims(nonce="n"), "it has a nonce"),
    "nothing": (lambda _: "", "send one logout_token"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_logout_token_ends_nothing_and_is_one_line_in_the_log(
    replica: Replica, provider: Provider, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    caplog.set_level(logging.INFO, "chat.auth")
    server = await replica(provider.environment())
    forge, reason = BAD[what]
    token = forge(provider)
    answer = await post(server, urlencode({"logout_token": token}))
    assert (answer.code, answer.headers["Cache-Control"]) == (400, "no-store")
    told = json.loads(answer.body)
    assert told["error"] == "invalid_request"
    assert reason in told["error_description"]
    lines = [one for one in caplog.messages if one.startswith("refused a token: ")]
    assert len(lines) == (1 if token else 0)
    assert len(server._revocations) == 0
    assert "eyJ" not in caplog.text


async def test_a_request_for_logout_is_bounded_and_is_no_other_kind_of_request(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment())
    token = provider.token(**logout())
    two = urlencode([("logout_token", token)] * 2)
    for body in ("\xff", two, "logout_token", "&".join("abcdefghijklmnop"), "x=" + "y" * 9000):
        assert (await post(server, body)).code == 400
    assert (await post(server, "x" * 100_000)).code == 400
    assert (await session(server, **provider.headers(**logout(sub="1")))).code == 401
    named = logout(preferred_username="ada")
    answer = await session(server, **provider.headers(**named))
    assert (answer.code, b"signs nobody in" in answer.body) == (401, True)
    assert (await session(await replica(), "DELETE")).code == 404
    assert len(server._revocations) == 0


# The register.


@pytest.fixture
def produce(kafka_broker: KafkaBroker, topic: str) -> Callable[..., None]:
    """Write records, as anybody may who reaches Kafka."""

    def produce(*values: bytes | None) -> None:
        producer = KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers)
        with contextlib.closing(producer):
            for value in values:
                sent = producer.send(revocations_of(topic), key=b"x", value=value, partition=0)
            sent.get(10)

    return produce


def record(of: str, before: float, **more: Any) -> bytes:
    return json.dumps({"v": 1, "of": of, "before": before} | more).encode()


async def test_what_others_write_stops_no_replica_and_locks_nobody_out_for_ever(
    replica: Replica, provider: Provider, kafka: dict[str, str], produce: Callable[..., None]
) -> None:
    now = int(time.time())
    ada, bob, eve = (
        Person.known(name, provider.issuer, f"subject of {name}").author
        for name in ("ada", "bob", "eve")
    )
    bad: list[bytes] = [
        b"\x00\xff",
        b"[" * 900,
        b'{"v":1}',
        record(ada, 2**60),
        record(ada, -1),
        record("everybody", now),
        record(ada, now, v=2),
        record(ada, now, more="x" * MOST_BYTES),
        b"x" * 900_000,
    ]
    environment = kafka | provider.environment()
    produce(*bad, None)
    one = await replica(environment)
    async with client(one, provider.headers()), client(one, provider.headers("bob")) as other:
        produce(
            *bad, None, record(bob, now + 10**9), record(eve, now + 30, more="of a later release")
        )
        await ends(other)
        assert (await session(one, **provider.headers("eve"))).code == 401
        assert (await session(one, **provider.headers("ada"))).code == 200
    assert one._revocations.foreign == 2 * len(bad)
    # It is what a replica writes whose clock is ahead: it counts, and locks nobody out for long.
    before = one._revocations._known[bob]
    assert now < before <= time.time() + TOLERANCE
    other_one = await replica(environment)
    assert other_one._revocations.foreign == 2 * len(bad)


async def test_a_replica_is_not_ready_before_it_knows_what_was_revoked(
    replica: Replica, provider: Provider, kafka: dict[str, str], kafka_admin: KafkaAdminClient
) -> None:
    name = kafka["KAFKA_TOPIC"] + "-later"
    environment = kafka | provider.environment() | {"KAFKA_REVOCATION_TOPIC": name}
    server = await replica(environment, ready=False)
    await until(lambda: "there is no topic" in server.look_ready())
    assert f"{name}: create it" in server.look_ready()
    answer = await session(server, **provider.headers())
    assert (answer.code, "Retry-After" in answer.headers) == (503, True)
    assert b"not read yet" in answer.body
    configs = {"cleanup.policy": "delete", "retention.ms": "60000"}
    kafka_admin.create_topics({name: {"num_partitions": PARTITIONS, "configs": configs}})
    await until(lambda: "retention.ms=60000" in server.look_ready())
    assert "at least 86700000" in server.look_ready()
    resource = ConfigResource(
        ConfigResourceType.TOPIC, name, {"retention.ms": (AlterConfigOp.SET, "86700000")}
    )
    kafka_admin.alter_configs([resource])
    await until(lambda: not server.look_ready())
    assert (await session(server, **provider.headers())).code == 200


async def test_who_cannot_be_signed_out_now_is_told_so(
    replica: Replica,
    provider: Provider,
    kafka: dict[str, str],
    kafka_broker: KafkaBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await replica(kafka | provider.environment())
    assert (await session(server, "DELETE", **provider.headers("bob"))).code == 204
    monkeypatch.setattr("chat.relay.kafka.register.PUT_SECONDS", 0.5)
    kafka_broker.pause()
    try:
        answer = await session(server, "DELETE", **provider.headers())
        assert (answer.code, "Retry-After" in answer.headers) == (503, True)
        assert (await log_out(server, logout_token(provider))).code == 503
        assert (await session(server, **provider.headers())).code == 200, "what is known counts"
    finally:
        kafka_broker.resume()
    monkeypatch.undo()
    assert (await session(server, "DELETE", **provider.headers())).code == 204


# Bounds.


def identity(author: str, issued: int) -> Identity:
    return Identity(Person("ada", "", author), issued + 300, ALL, issued, "")


async def known(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float]
) -> tuple[Revocations, Callable[..., None]]:
    monkeypatch.setattr(module, "MOST", 20)
    monkeypatch.setattr(module, "GATHER_SECONDS", 0)
    register = MemoryRegister()
    revocations = Revocations(register, 3600, clock)
    await revocations.start(lambda _: None)

    def take(*entries: tuple[int, int]) -> None:
        assert register._take is not None
        register._take([Kept(0, record(f"{of:032x}", before)) for of, before in entries])

    return revocations, take


class Shared(MemoryRegister):
    """Stores at the time of the log's clock, and delivers to all replicas, unless it is deaf."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.deaf = False
        self.takes: list[Take] = []

    async def start(self, take: Take, *, begin: Note = ignore, whole: Note = ignore) -> None:
        self.takes.append(take)
        begin()
        whole()

    async def put(self, key: str, value: bytes) -> None:
        for take in () if self.deaf else self.takes:
            take([Kept(round(1000 * self.clock()), value, key.encode())])


async def test_a_replica_whose_clock_is_ahead_locks_nobody_out_and_ends_later_sessions() -> None:
    now = 1_800_000_000
    register = Shared(lambda: now)
    ahead = Revocations(register, 3600, lambda: now + 600)
    right = Revocations(register, 3600, lambda: now)
    for one in (ahead, right):
        await one.start(lambda _: None)
    token = identity("a" * 32, now - 10)
    await ahead.sign_out(token)
    assert ahead.cover(token)
    assert right.cover(token)
    now += TOLERANCE + 1
    again = identity("a" * 32, now)
    assert not right.cover(again)
    assert not ahead.cover(again), "who has signed in again is locked out there only"
    await ahead.log_out(Logout("provider", "a" * 32, "", now))
    assert ahead.cover(again)
    assert right.cover(again), "the logout was answered, and not written"


async def test_a_sign_out_is_answered_when_this_replica_obeys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_800_000_000
    register = Shared(lambda: now)
    one = Revocations(register, 3600, lambda: now)
    await one.start(lambda _: None)
    token = identity("a" * 32, now)
    register.deaf = True
    signing_out = asyncio.create_task(one.sign_out(token))
    await until(lambda: one._put)
    await asyncio.sleep(0)
    assert not signing_out.done()
    (value,) = one._put
    register.takes[0]([Kept(1000 * now, record("b" * 32, now)), Kept(1000 * now, value)])
    await signing_out
    assert one.cover(token)
    monkeypatch.setattr(agreed, "BACK_SECONDS", 0.01)
    with pytest.raises(UnavailableError, match="It may count, or not: Kafka does not give it back"):
        await one.sign_out(identity("c" * 32, now))
    assert one._put == {}, "nothing is kept"


async def test_the_oldest_are_forgotten_if_there_are_too_many_and_count_no_more_for_that(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1_800_000_000
    revocations, take = await known(monkeypatch, lambda: now)
    take(*((of, now - 1000 + of) for of in range(21)))
    assert 15 < len(revocations) <= 20
    assert now - 1000 <= revocations.floor < now - 995
    assert "more than 20 revocations" in caplog.text
    for of in range(21):
        token = identity(f"{of:032x}", now - 1000 + of)
        assert revocations.cover(token) or token.issued <= revocations.floor
    assert not revocations.cover(identity("f" * 32, now - 900))


async def test_they_are_forgotten_when_no_token_can_be_that_old(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1_800_000_000
    revocations, take = await known(monkeypatch, lambda: now)
    take(*((of, now + of) for of in range(20)))
    now += 3600 + TOLERANCE + 30
    take((30, now), (1, now - 3600 - TOLERANCE - 1))
    assert (len(revocations), caplog.messages) == (1, [])
    assert revocations.floor == now - 3600 - TOLERANCE
