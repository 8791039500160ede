"""A connection lives longer than its token only if another token of the same person renews it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from chat_client import ChatClient
from conftest import Replica, until
from provider import Provider
from test_auth import refusal
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from chat.client import Away, DisconnectedError, Message, connect
from chat.client import connection as library
from chat.server import Server

# A token that ended so long ago counts for a second more or less.
NEARLY = 59.5
# A connection looks with each ping whether its token has ended.
PINGS = {"CHAT_PING_SECONDS": "1", "CHAT_PONG_SECONDS": "0.2"}


async def session(
    server: Server, method: str = "GET", query: str = "", **headers: str
) -> HTTPResponse:
    return await AsyncHTTPClient().fetch(
        f"http://127.0.0.1:{server.port}/api/session{query}",
        method=method,
        body="" if method == "POST" else None,
        headers=headers,
        raise_error=False,
    )


def short(provider: Provider, user: str = "ada") -> dict[str, str]:
    """A token that ends soon."""
    return provider.headers(user, exp=time.time() - NEARLY)


@pytest.fixture(params=["fast", "tornado"])
async def server(replica: Replica, provider: Provider, request: pytest.FixtureRequest) -> Server:
    return await replica(provider.environment(), PINGS, CHAT_TRANSPORT=request.param)


async def test_a_connection_ends_with_its_token(server: Server, provider: Provider) -> None:
    async with ChatClient(server.port, additional_headers=short(provider)) as ada:
        await ada.join("lobby")
        code, reason = await ada.closed()
    assert code == 4401
    assert "connect again with a new one" in reason


async def test_a_frame_renews_it(server: Server, provider: Provider) -> None:
    async with ChatClient(server.port, additional_headers=short(provider)) as ada:
        assert abs(ada.welcome["until"] / 1000 + NEARLY - time.time()) < 5
        claims = provider.claims()
        await ada.say(type="auth", token=provider.token(exp=claims["exp"]))
        assert (await ada.hear("renewed"))["until"] == claims["exp"] * 1000
        assert server._leases.find(ada.welcome["connection"]).until == claims["exp"]


async def test_a_token_that_does_not_count_changes_nothing(
    server: Server, provider: Provider
) -> None:
    async with ChatClient(server.port, additional_headers=short(provider)) as ada:
        for token in (
            provider.token("eve"),
            provider.token(exp=time.time() - 3600),
            provider.token(aud="mail"),
            "secret",
        ):
            assert (await ada.refused(type="auth", token=token))["code"] == "bad_token"
        assert (await ada.refused(type="auth", token=7))["code"] == "bad_frame"
        assert (await ada.closed())[0] == 4401, "the old token counts, and not longer"


async def test_a_request_renews_it(server: Server, provider: Provider) -> None:
    """As a page does, which has no token in its hands."""
    async with ChatClient(server.port, additional_headers=short(provider)) as ada:
        connection = ada.welcome["connection"]
        holder = server._leases.find(connection)
        until = holder.until
        for query, status, headers in (
            (f"?connection={connection}", 401, {}),
            (f"?connection={connection}", 409, provider.headers("eve")),
            (f"?connection={connection}", 403, {**provider.headers(), "Origin": "http://evil"}),
            ("", 404, provider.headers()),
            ("?connection=" + "9" * 5000, 404, provider.headers()),
            (f"?connection={connection.partition('-')[0]}-0", 404, provider.headers()),
            (f"?connection=ffffffff-{connection.partition('-')[2]}", 404, provider.headers()),
        ):
            answer = await session(server, "POST", query, **headers)
            assert answer.code == status
            assert "error" in json.loads(answer.body)
            assert holder.until == until
        claims = provider.claims()
        query = f"?connection={connection}"
        answer = await session(server, "POST", query, **provider.headers(exp=claims["exp"]))
        assert answer.code == 200
        assert json.loads(answer.body)["until"] == claims["exp"] * 1000
        assert holder.until == claims["exp"]


async def test_who_is_signed_in_can_be_asked(server: Server, provider: Provider) -> None:
    answer = await session(server)
    assert (answer.code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    claims = provider.claims()
    answer = await session(server, **provider.headers(exp=claims["exp"]))
    assert answer.code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    who = json.loads(answer.body)
    async with ChatClient(server.port, additional_headers=provider.headers()) as ada:
        wanted: dict[str, Any] = {"user": "ada", "author": ada.welcome["author"]}
        assert who == wanted | {"until": claims["exp"] * 1000}


async def test_the_connection_of_another_replica_is_not_renewed_here(
    replica: Replica, provider: Provider
) -> None:
    one, other = [await replica(provider.environment()) for _ in range(2)]
    async with ChatClient(one.port, additional_headers=provider.headers()) as ada:
        query = f"?connection={ada.welcome['connection']}"
        answer = await session(other, "POST", query, **provider.headers())
    assert answer.code == 404
    assert "is on another replica" in json.loads(answer.body)["error"]


async def test_without_required_tokens_there_is_nothing_to_renew(replica: Replica) -> None:
    server = await replica()
    assert (await session(server)).code == 404
    async with ChatClient(server.port) as ada:
        assert not {"until", "connection"} & ada.welcome.keys()
        assert (await ada.refused(type="auth", token="x"))["code"] == "bad_frame"


async def test_who_does_not_say_hello_is_sent_away_as_ever(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment(), CHAT_HELLO_SECONDS="0.1")
    async with ChatClient(server.port, None, additional_headers=provider.headers()) as ada:
        error = await ada.refused(type="auth", token=provider.token())
        assert error["code"] == "hello_required"
        assert (await ada.closed())[0] == 1008


async def test_a_token_for_ever_is_no_trouble(replica: Replica, provider: Provider) -> None:
    server = await replica(provider.environment())
    for exp in (1e308, 10**30):
        async with ChatClient(server.port, additional_headers=provider.headers(exp=exp)) as ada:
            await ada.join("lobby")


async def test_many_who_renew_at_once_leave_nothing_behind(
    server: Server, provider: Provider
) -> None:
    async def come_and_go() -> None:
        async with ChatClient(server.port, additional_headers=provider.headers()) as ada:
            for _ in range(5):
                await ada.say(type="auth", token=provider.token())
            await ada.hear("renewed")

    await asyncio.gather(*(come_and_go() for _ in range(10)))
    await until(lambda: not server._clients)
    assert (await refusal(server.port))[0] == 401


# The client library.


class Tokens:
    """Gives tokens that count for so many seconds, and counts them."""

    def __init__(self, provider: Provider, seconds: float) -> None:
        self.given = 0
        self._provider = provider
        self._seconds = seconds

    async def __call__(self) -> str:
        self.given += 1
        return self._provider.token(exp=time.time() - 60 + self._seconds)


async def test_a_bot_goes_on_through_the_lives_of_many_tokens(
    replica: Replica, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Early, so that a busy machine does not miss it: twelve tokens last for three of their lives.
    monkeypatch.setattr(library, "RENEW_SHARE", 0.25)
    monkeypatch.setattr(library, "RENEW_SECONDS", 0.2)
    server = await replica(provider.environment(), PINGS)
    tokens = Tokens(provider, 2)
    async with connect(f"http://127.0.0.1:{server.port}/", token=tokens) as bot:
        assert bot.user == "ada"
        room = bot.room("lobby", events=True)
        sent = 0
        while tokens.given < 12:
            sent += 1
            await bot.send("lobby", f"{sent}")
            await asyncio.sleep(0.02)
        heard: list[str] = []
        while len(heard) < sent:
            match await anext(room):
                case Message() as message:
                    heard.append(message.text)
                case Away() as away:
                    pytest.fail(f"it was disconnected: {away.reason}")
    assert heard == [str(number) for number in range(1, sent + 1)]
    assert server._metrics.closes.labels("4401")._value.get() == 0


async def test_a_bot_whose_token_has_ended_comes_back_with_another(
    replica: Replica, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "RENEW_SECONDS", 60)
    server = await replica(provider.environment(), PINGS)
    tokens = Tokens(provider, 0.3)
    async with connect(f"http://127.0.0.1:{server.port}/", token=tokens) as bot:
        room = bot.room("lobby")
        sent = 0
        # On a busy machine, a token may also end before it is used (401): that is another matter.
        ended = server._metrics.closes.labels("4401")._value
        while tokens.given < 3 or ended.get() < 2:
            sent += 1
            await bot.send("lobby", f"{sent}")
            await asyncio.sleep(0.02)
        heard = [(await anext(room)).text for _ in range(sent)]
    assert heard == [str(number) for number in range(1, sent + 1)]


async def test_a_bot_without_a_source_of_tokens_is_told_why_it_ends(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment(), PINGS)
    url = f"http://127.0.0.1:{server.port}/"
    with pytest.raises(DisconnectedError, match="401"):
        async with connect(url, "ada"):
            pass
    token = provider.token(exp=time.time() - NEARLY)
    async with connect(url, token=token) as bot:
        with pytest.raises(DisconnectedError, match="4401 your token has ended"):
            await anext(bot.room("lobby"))


async def test_a_source_that_fails_for_a_while_is_asked_again(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment())
    failures = iter(range(2))

    def token() -> str:
        if next(failures, None) is not None:
            raise OSError("the provider is away")
        return provider.token()

    async with connect(f"http://127.0.0.1:{server.port}/", token=token) as bot:
        await bot.send("lobby", "hello")
