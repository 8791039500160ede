"""The history of a room over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlencode

import pytest
from chat_client import ChatClient
from conftest import Replica, until
from test_server import get
from tornado.httpclient import HTTPResponse

from chat.relay.base import Portion, UnavailableError
from chat.server import Server


async def ask(server: Server, room: str = "lobby", **query: str) -> dict[str, Any]:
    path = f"/api/rooms/{room}/messages?{urlencode(query)}"
    answer = await get(server.port, path)
    assert answer.code == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    page: dict[str, Any] = json.loads(answer.body)
    return page


async def refusal(server: Server, room: str = "lobby", **query: str) -> tuple[int, str]:
    answer = await get(server.port, f"/api/rooms/{room}/messages?{urlencode(query)}")
    return answer.code, json.loads(answer.body)["error"]


async def said(server: Server, count: int) -> list[dict[str, Any]]:
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        for number in range(count):
            await ada.send("lobby", f"text {number}")
        return [await ada.hear("message") for _ in range(count)]


async def test_an_export_has_every_message_once_forwards_and_backwards(
    replica: Replica, log: dict[str, str]
) -> None:
    server = await replica(log, CHAT_WINDOW="10", CHAT_PAGE="7")
    messages = await said(server, 40)
    page = await ask(server, after="oldest", limit="5")
    forwards = page["messages"]
    while page["more"]:
        page = await ask(server, after=page["position"], limit="5")
        assert page["recovered"]
        forwards += page["messages"]
    page = await ask(server)
    backwards = page["messages"]
    while page["more"]:
        page = await ask(server, before=page["position"])
        backwards = page["messages"] + backwards
    assert forwards == backwards == messages
    assert (await ask(server, after=messages[-2]["id"]))["messages"] == messages[-1:]
    assert (await ask(server, "empty", after="oldest"))["messages"] == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"limit": "many"}, "limit='many': give a whole number"),
        ({"limit": "0"}, "limit='0': give a whole number"),
        ({"limit": "-1"}, "limit='-1': give a whole number"),
        ({"limit": ""}, "limit='': give a whole number"),
        ({"befor": "x"}, "'befor' cannot be asked for: give before, after or limit"),
        ({"before": "x"}, "no position of lobby: take one"),
        ({"after": "x"}, "no position of lobby: take one"),
        ({"before": "x", "after": "y"}, "before or after, not both"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused_with_a_remedy(
    replica: Replica, query: dict[str, str], words: str
) -> None:
    server = await replica()
    status, error = await refusal(server, **query)
    assert status == 400
    assert words in error


async def test_a_room_that_cannot_be_is_refused(replica: Replica) -> None:
    status, error = await refusal(await replica(), "a%20b")
    assert status == 400
    assert "A room is named by" in error


async def test_when_the_log_does_not_answer_there_is_a_time_to_come_again(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica(CHAT_WINDOW="5")
    await said(server, 30)

    async def away(partition: int, after: int, upto: int) -> Portion:
        raise UnavailableError(f"{partition}, {after} to {upto}: it is away.")

    monkeypatch.setattr(server._hub._history._archive, "_read", away)
    answer = await get(server.port, "/api/rooms/lobby/messages")
    assert (answer.code, answer.headers["Retry-After"]) == (503, "1")
    assert "it is away" in json.loads(answer.body)["error"]


async def test_more_than_may_read_at_once_are_told_to_come_again(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica(
        CHAT_WINDOW="5", CHAT_API_REQUESTS="2", CHAT_TRUSTED_PROXIES="127.0.0.1/32"
    )
    await said(server, 30)
    read, asked, go_on = server._hub._history._archive._read, asyncio.Event(), asyncio.Event()

    async def slow(partition: int, after: int, upto: int) -> Portion:
        asked.set()
        await go_on.wait()
        return await read(partition, after, upto)

    monkeypatch.setattr(server._hub._history._archive, "_read", slow)

    def of(address: str) -> Awaitable[HTTPResponse]:
        path = "/api/rooms/lobby/messages"
        return get(server.port, path, **{"X-Forwarded-For": address})

    waiting = [asyncio.create_task(of("192.0.2.1"))]
    await asked.wait()
    answer = await of("192.0.2.1")
    assert (answer.code, answer.headers["Retry-After"]) == (429, "1")
    waiting.append(asyncio.create_task(of("192.0.2.2")))
    turns = server._turns
    await until(lambda: turns.taken == 2)
    answer = await of("192.0.2.3")
    assert (answer.code, answer.headers["Retry-After"]) == (503, "1")
    go_on.set()
    for answer in await asyncio.gather(*waiting):
        assert len(json.loads(answer.body)["messages"]) == 30
    assert not turns.taken, "everybody has given back"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://friend.example"}, True),
        ({"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
    ],
)
async def test_pages_of_other_sites_may_read_where_they_may_connect(
    replica: Replica, headers: dict[str, str], allowed: bool
) -> None:
    server = await replica(CHAT_ALLOWED_ORIGINS="https://friend.example")
    answer = await get(server.port, "/api/rooms/lobby/messages", **headers)
    assert answer.code == (200 if allowed else 403)
    expected = headers.get("Origin") if allowed else None
    assert answer.headers.get("Access-Control-Allow-Origin") == expected
