"""With CHAT_AUTH=required, words are for people whose token the chat has verified."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import test_server
import websockets
from chat_client import ChatClient
from conftest import Replica, until
from joserfc.jwk import OKPKey, RSAKey
from provider import Provider, ec_key, jwks, signed
from test_server import get

from chat.auth.identity import Identity, KeysUnavailableError, TokenError
from chat.auth.issuers import Issuer
from chat.auth.keys import AGAIN_SECONDS, Fetcher, KeySource, UnknownKeyError
from chat.auth.revocations import Revocations
from chat.auth.tokens import MOST_LINES, TokenVerifier
from chat.relay.register import MemoryRegister
from chat.rights import Rules
from chat.server import Server
from chat.settings import SettingsError, load

MESSAGES = "/api/rooms/lobby/messages"


async def refusal(port: int, **headers: str) -> tuple[int, Any]:
    """With what a handshake is refused: status and headers."""
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers)
    return refused.value.response.status_code, refused.value.response.headers


async def test_without_a_token_words_are_refused_and_the_page_is_shown(
    replica: Replica, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chat.auth")
    server = await replica(provider.environment())
    status, headers = await refusal(server.port)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    answer = await get(server.port, MESSAGES)
    assert (answer.code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer" in json.loads(answer.body)["error"]
    assert (await get(server.port, "/")).code == 200
    told = {one.name for one in caplog.records}
    assert "chat.auth" not in told, "who has not signed in yet is nothing to log"


async def test_with_a_token_everything_works(replica: Replica, provider: Provider) -> None:
    server = await replica(provider.environment())
    headers = provider.headers()
    async with ChatClient(server.port, additional_headers=headers) as ada:
        await ada.join("lobby")
        await ada.send("lobby", "hello")
    answer = await get(server.port, MESSAGES, **headers)
    assert [one["text"] for one in json.loads(answer.body)["messages"]] == ["hello"]


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "Ed25519"])
async def test_signatures_of_all_usual_algorithms_count(
    replica: Replica, provider: Provider, algorithm: str
) -> None:
    kind = {"RS256": RSAKey, "PS256": RSAKey, "Ed25519": OKPKey}.get(algorithm)
    if kind is not None:
        size: Any = 2048 if kind is RSAKey else "Ed25519"
        provider.key = kind.generate_key(size, {"kid": "own"})
        provider.answers["/keys"] = jwks(provider.key)
    server = await replica(provider.environment())
    token = provider.token(header={"alg": algorithm})
    assert (await get(server.port, MESSAGES, Authorization=f"Bearer {token}")).code == 200


@pytest.mark.parametrize("damage", [{"key_ops": None}, {"key_ops": 5}, {"x": 7}, {"kty": []}])
async def test_a_damaged_key_takes_no_other_with_it(
    replica: Replica, provider: Provider, damage: dict[str, Any]
) -> None:
    damaged = ec_key("second").as_dict(private=False) | damage
    good = provider.key.as_dict(private=False)
    provider.answers["/keys"] = json.dumps({"keys": [damaged, good]}).encode()
    server = await replica(provider.environment())
    assert (await get(server.port, MESSAGES, **provider.headers())).code == 200


async def test_tokens_of_several_issuers_count_also_without_a_provider(
    replica: Replica, provider: Provider, tmp_path: Path
) -> None:
    """Keys in a file are for programs, which then need no provider that is up."""
    bots = ec_key("bots")
    (tmp_path / "bots.json").write_bytes(jwks(bots))
    issuers = [
        {"issuer": provider.issuer, "audience": "chat"},
        {
            "issuer": "https://bots.example",
            "audience": "chat-bots",
            "jwks": str(tmp_path / "bots.json"),
            "name_claim": "name",
        },
    ]
    await provider.close()
    server = await replica(CHAT_AUTH="required", CHAT_AUTH_ISSUERS=json.dumps(issuers))
    bot = {"iss": "https://bots.example", "aud": ["else", "chat-bots"], "name": "backup"}
    token = provider.token(key=bots, **bot)
    assert (await get(server.port, MESSAGES, Authorization=f"Bearer {token}")).code == 200
    token = provider.token(key=bots)
    answer = await get(server.port, MESSAGES, Authorization=f"Bearer {token}")
    assert answer.code == 503, "the provider has not told whose key that is"
    assert answer.headers["Retry-After"]


async def test_the_same_host_s_clocks_may_differ_by_a_minute() -> None:
    key = ec_key("first")

    async def fetch(_: str) -> bytes:
        return jwks(key)

    now = time.time()
    issuer = Issuer("https://id.example", "chat", jwks="https://id.example/keys")
    revocations = Revocations(MemoryRegister(), 3600, lambda: now)
    verifier = TokenVerifier([issuer], ["ES256"], fetch, Rules(), revocations, lambda: now)

    async def verify(**times: float) -> Identity:
        claims = {
            "iss": "https://id.example",
            "aud": "chat",
            "sub": "1",
            "iat": now,
            "exp": now + 1,
        }
        claims |= {"preferred_username": "ada"} | times
        return await verifier.verify(signed(claims, key))

    for times in ({"exp": now - 59}, {"nbf": now + 59}, {"iat": now + 59}):
        assert (await verify(**times)).until == times.get("exp", now + 1)
    identity = await verify(iat=now - 3599, exp=now + 3600)
    assert identity.until == now + 1, "however long it is for"
    for times, words in (
        ({"exp": now - 60}, "it ended 60 s ago"),
        ({"nbf": now + 61}, "it begins in 61 s"),
        ({"iat": now + 61}, "it was issued in 61 s"),
        ({"iat": now - 3662}, "it was issued 3662 s ago, and what was revoked is known for"),
    ):
        with pytest.raises(TokenError, match=words):
            await verify(**times)


PROMISES = (
    test_server.test_everyone_in_the_room_gets_the_same_messages_in_the_same_order,
    test_server.test_a_repeat_is_shown_once_and_acknowledged_with_the_first_id,
    test_server.test_who_comes_back_gets_what_was_missed_and_nothing_twice,
)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
async def test_what_is_promised_to_everybody_is_promised_with_tokens(
    replica: Replica,
    provider: Provider,
    log: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    promise: Callable[[Server], Awaitable[None]],
) -> None:
    begin = ChatClient.__init__

    def signed_in(self: ChatClient, port: int, user: str = "ada", **options: Any) -> None:
        begin(self, port, user, additional_headers=provider.headers(user), **options)

    monkeypatch.setattr(ChatClient, "__init__", signed_in)
    await promise(await replica(log, provider.environment()))


# Who somebody is.


async def test_the_token_says_who_somebody_is_and_not_hello(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment())
    async with (
        ChatClient(server.port, "bob", additional_headers=provider.headers("ada")) as ada,
        ChatClient(server.port, None, additional_headers=provider.headers("ada")) as again,
        ChatClient(server.port, "ada", additional_headers=provider.headers("eve")) as eve,
    ):
        assert ada.welcome["user"] == "ada"
        await again.say(type="hello", user="")
        again.welcome = await again.hear("welcome")
        assert again.welcome["author"] == ada.welcome["author"], "the same person"
        assert eve.welcome["user"] == "eve"
        assert eve.welcome["author"] != ada.welcome["author"], "the key of hello counts for nothing"
        for client in (ada, again, eve):
            await client.join("lobby")
        assert (await eve.hear("presence", users=["ada", "eve"]))["count"] == 2
        await again.send("lobby", "hello")
        message = await eve.hear("message")
        assert (message["user"], message["author"]) == ("ada", ada.welcome["author"])


async def test_nothing_is_done_before_hello_with_a_token_either(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment())
    async with ChatClient(server.port, None, additional_headers=provider.headers()) as ada:
        assert (await ada.refused(type="join", room="lobby"))["code"] == "hello_required"
        await ada.say(type="hello", user="")
        await ada.hear("welcome", user="ada")
        assert (await ada.refused(type="hello", user=""))["code"] == "bad_frame"


async def test_a_name_is_its_author_s_on_all_replicas_and_stays_so_for_a_while(
    replica: Replica, provider: Provider, kafka: dict[str, str]
) -> None:
    one, other = [await replica(kafka, provider.environment()) for _ in range(2)]
    ada, eve = provider.headers("ada"), provider.headers("ada", sub="another Ada")
    async with ChatClient(one.port, additional_headers=ada) as client:
        await client.join("lobby")
        async with ChatClient(other.port, additional_headers=ada) as again:
            await again.join("lobby")
            assert (await again.hear("presence"))["count"] == 1

    async def refused() -> bool:
        async with ChatClient(other.port, additional_headers=eve) as client:
            await client.say(type="join", room="lobby")
            answer = await client.hear("joined", "error")
            return answer.get("code") == "name_taken"

    assert await refused(), "she has left, and the name is held"
    async with ChatClient(other.port, additional_headers=ada) as again:
        await again.join("lobby")


@pytest.mark.parametrize(
    ("claim", "shown"),
    [
        ("  Zoë\u202e\n", "Zoë"),
        ("x" * 5000, "x" * 32),
        ("👩‍👩‍👧‍👦" * 40, "👩‍👩‍👧‍👦" * 10),
        ("é" * 40, "é" * 32),
    ],
)
async def test_a_foreign_name_is_cut_and_cleaned(
    replica: Replica, provider: Provider, claim: str, shown: str
) -> None:
    server = await replica(provider.environment(name_claim="name"))
    headers = provider.headers(name=claim)
    async with ChatClient(server.port, additional_headers=headers) as client:
        assert client.welcome["user"] == shown


# Keys.


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def source(provider: Provider) -> tuple[KeySource, Clock]:
    clock = Clock()
    return KeySource(Issuer(provider.issuer, "chat"), Fetcher(), clock), clock


async def test_a_key_that_is_not_known_makes_the_provider_be_asked_once_in_a_while(
    provider: Provider, source: tuple[KeySource, Clock]
) -> None:
    keys, clock = source
    assert (await keys.find("first")).kid == "first"
    provider.answers["/keys"] = jwks(provider.key, ec_key("second"))
    for _ in range(10):
        with pytest.raises(UnknownKeyError):
            await keys.find("second")
    assert provider.asked.count("/keys") == 1
    clock.now += AGAIN_SECONDS
    found = await asyncio.gather(*(keys.find("second") for _ in range(10)))
    assert {key.kid for key in found} == {"second"}
    assert provider.asked.count("/keys") == 2, "those who wait share one answer"


async def test_a_key_that_the_provider_has_withdrawn_counts_no_more(
    provider: Provider, source: tuple[KeySource, Clock]
) -> None:
    keys, _ = source
    await keys.find("first")
    provider.answers["/keys"] = jwks(ec_key("second"))
    await keys.ask()
    with pytest.raises(UnknownKeyError):
        await keys.find("first")


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("/keys", None, "404"),
        ("/keys", b"<html>", "it is no JWKS"),
        ("/keys", b'{"keys": []}', "none of its 0 keys"),
        ("/keys", b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}', "none of"),
        ("/keys", b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', "it has a secret key"),
        ("/keys", b'{"keys": [' + b"{}," * 200 + b"{}]}", "more than 100 keys"),
        ("/keys", b"[" * 100_000, "it is no JWKS"),
        ("/keys", b" " * (300 << 10), "Connection closed"),
        ("/.well-known/openid-configuration", b"{}", "no discovery document"),
        (
            "/.well-known/openid-configuration",
            b'{"issuer": "https://other.example", "jwks_uri": "https://other.example/keys"}',
            "is of issuer 'https://other.example'",
        ),
    ],
)
async def test_the_old_keys_count_while_the_provider_answers_nonsense(
    provider: Provider,
    source: tuple[KeySource, Clock],
    caplog: pytest.LogCaptureFixture,
    path: str,
    answer: bytes | None,
    words: str,
) -> None:
    keys, clock = source
    good = dict(provider.answers)
    if answer is None:
        del provider.answers[path]
    else:
        provider.answers[path] = answer
    with pytest.raises(KeysUnavailableError):
        await keys.find("first")
    provider.answers = good
    clock.now += AGAIN_SECONDS
    assert (await keys.find("first")).kid == "first"
    provider.answers = {}
    await keys.ask()
    await keys.ask()
    assert (await keys.find("first")).kid == "first"
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 2, "each trouble is told once"
    assert warnings[0].startswith(f"keys of {provider.issuer}: ")
    assert re.search(words, warnings[0]), warnings[0]
    assert warnings[1].endswith("the last 1 keys count")


async def test_a_provider_that_does_not_answer_is_waited_for_so_long_and_by_nobody_else(
    replica: Replica, provider: Provider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("chat.auth.keys.FETCH_SECONDS", 0.3)
    go_on = asyncio.Event()

    async def slow() -> bytes:
        await go_on.wait()
        return b""

    provider.answers["/keys"] = slow
    bots = ec_key("bots")
    (tmp_path / "bots.json").write_bytes(jwks(bots))
    bot = {"iss": "bots", "aud": "chat"}
    issuers = json.loads(provider.environment()["CHAT_AUTH_ISSUERS"])
    issuers.append({"issuer": "bots", "audience": "chat", "jwks": str(tmp_path / "bots.json")})
    server = await replica(CHAT_AUTH="required", CHAT_AUTH_ISSUERS=json.dumps(issuers))
    waiting = asyncio.create_task(get(server.port, MESSAGES, **provider.headers()))
    await until(lambda: "/keys" in provider.asked)
    token = provider.token(key=bots, **bot)
    assert (await get(server.port, MESSAGES, Authorization=f"Bearer {token}")).code == 200
    assert not waiting.done()
    assert (await waiting).code == 503
    go_on.set()


async def test_requests_that_wait_for_keys_are_charged_already(
    replica: Replica, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.server.REQUEST_RATE", 0.01)
    monkeypatch.setattr("chat.server.REQUEST_BURST", 3)
    go_on = asyncio.Event()

    async def slow() -> bytes:
        await go_on.wait()
        return jwks(provider.key)

    provider.answers["/keys"] = slow
    # Who connects directly is charged for the connection, too.
    proxy = {"CHAT_TRUSTED_PROXIES": "127.0.0.1/32"}
    server = await replica(provider.environment() | proxy)
    headers = provider.headers() | {"X-Forwarded-For": "192.0.2.1"}
    asking = [asyncio.create_task(get(server.port, MESSAGES, **headers)) for _ in range(8)]
    await until(lambda: sum(one.done() for one in asking) == 5)
    go_on.set()
    codes = [answer.code for answer in await asyncio.gather(*asking)]
    assert sorted(codes) == [200] * 3 + [429] * 5


async def test_a_flood_of_bad_tokens_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "chat.auth")
    now = 0.0
    revocations = Revocations(MemoryRegister(), 3600)
    verifier = TokenVerifier((), ("ES256",), Fetcher(), Rules(), revocations, log_clock=lambda: now)
    for _ in range(100):
        with pytest.raises(TokenError):
            await verifier.verify("forged")
    assert len(caplog.messages) == MOST_LINES
    now += 1
    with pytest.raises(TokenError):
        await verifier.verify("forged")
    (line,) = caplog.messages[MOST_LINES:]
    assert line == (
        "refused a token: it is no JWT: three parts, separated by dots"
        f" ({100 - MOST_LINES} others were not logged)"
    )


async def test_who_leaves_while_keys_are_fetched_leaves_nothing_behind(
    replica: Replica, provider: Provider
) -> None:
    go_on = asyncio.Event()

    async def slow() -> bytes:
        await go_on.wait()
        return jwks(provider.key)

    provider.answers["/keys"] = slow
    server = await replica(provider.environment())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Authorization: Bearer " + provider.token().encode() + b"\r\n\r\n"
    )
    await until(lambda: "/keys" in provider.asked)
    writer.close()
    await writer.wait_closed()
    go_on.set()
    async with ChatClient(server.port, additional_headers=provider.headers()) as ada:
        await ada.join("lobby")
    await until(lambda: not server._clients)
    assert reader.at_eof()


# Settings.


@pytest.mark.parametrize(
    ("issuers", "words"),
    [
        ("https://id.example", "give a list in JSON, such as"),
        ("{}", "give a list in JSON"),
        ('[{"issuer": "https://id.example"}]', "audience"),
        ('[{"issuer": "https://id.example", "audience": "chat", "jwk": ""}]', "jwk"),
        ('[{"issuer": "https://id.example", "audience": ""}]', "audience is empty"),
        (
            '[{"issuer": "https://id.example", "audience": "chat", "audiences": [""]}]',
            "one of audiences is empty",
        ),
        ('[{"issuer": "http://id.example", "audience": "chat"}]', "give an https address"),
        ('[{"issuer": "id.example", "audience": "chat"}]', "give an address such as"),
        ('[{"issuer": "https://[", "audience": "chat"}]', "give an address such as"),
        (
            '[{"issuer": "a", "audience": "chat", "jwks": "http://id.example/keys"}]',
            "give an https address",
        ),
        ('[{"issuer": "a", "audience": "chat", "jwks": "/nowhere"}]', "/nowhere: give a file"),
        (
            '[{"issuer": "https://a.example", "audience": "chat"},'
            ' {"issuer": "https://a.example", "audience": "else"}]',
            "name issuer 'https://a.example' once",
        ),
    ],
)
def test_issuers_that_cannot_be_are_named_with_a_remedy(issuers: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({"CHAT_AUTH": "required", "CHAT_AUTH_ISSUERS": issuers})
    assert str(refused.value).startswith("CHAT_AUTH_ISSUERS=")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:Key size")
def test_a_file_of_keys_must_have_some_and_no_secret_ones(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    issuers = json.dumps([{"issuer": "a", "audience": "chat", "jwks": str(path)}])
    for content, words in (
        (b"-----BEGIN PUBLIC KEY-----", "it is no JWKS"),
        (json.dumps({"keys": [ec_key("a").as_dict(private=True)]}).encode(), "secret key"),
        (jwks(RSAKey.generate_key(1024, {"kid": "a"})), "none of its 1 keys"),
    ):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=words):
            load({"CHAT_AUTH": "required", "CHAT_AUTH_ISSUERS": issuers})


def test_who_asks_for_tokens_says_whose() -> None:
    with pytest.raises(SettingsError, match=r"^CHAT_AUTH_ISSUERS='': with CHAT_AUTH=required"):
        load({"CHAT_AUTH": "required"})
    issuers = '[{"issuer": "https://id.example", "audience": "chat"}]'
    with pytest.raises(SettingsError, match=r"^CHAT_AUTH='off': .* https://id.example;"):
        load({"CHAT_AUTH_ISSUERS": issuers})
    for bad in ("HS256", "none", "RS256,EdDSA"):
        with pytest.raises(SettingsError, match=r"^CHAT_AUTH_ALGORITHMS=.*give RS256"):
            load({"CHAT_AUTH_ALGORITHMS": bad})
