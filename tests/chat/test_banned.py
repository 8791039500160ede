"""Moderators ban people from the whole chat: on all replicas, whatever the way in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from chat_client import ChatClient, Frame
from conftest import Replica, until
from provider import Provider
from test_api_send import send as post
from test_audit import told
from test_auth import refusal
from test_auth_renewal import session
from test_members import make
from test_rights import client
from test_sanctions import (
    ADA,
    BOB,
    DAN,
    Clock,
    World,
    author_of,
    clock,
    record,
    server_clock,
    shows_nothing,
    world,
)
from test_server import get

from chat import sanctions as module
from chat.client import DisconnectedError, RefusedError, connect
from chat.protocol import EVERYWHERE, ErrorCode
from chat.server import Server
from chat.settings import SettingsError, load

__all__ = ["clock", "server_clock", "world"]

RULES = [
    {"rooms": "audit", "read": ["heads"], "write": []},
    {"rooms": "*", "moderate": ["desk"]},
]
# A ban counts on every replica within this time.
SECONDS = 2.0


@pytest.fixture
def environment(provider: Provider) -> dict[str, str]:
    return provider.environment(groups_claim="groups") | {
        "CHAT_ROOMS": json.dumps(RULES),
        "CHAT_SANCTIONS": "true",
        "CHAT_MODERATORS": '["heads", "owners"]',
        "CHAT_AUDIT_ROOM": "audit",
        "CHAT_PRIVATE_ROOMS": "true",
    }


@pytest.fixture
async def server(replica: Replica, environment: dict[str, str]) -> Server:
    return await replica(environment)


async def ban(one: ChatClient, author: str, seconds: int = 600) -> None:
    cid = f"ban {time.monotonic_ns()}"
    await one.say(type="ban", room=EVERYWHERE, author=author, seconds=seconds, cid=cid)
    assert await one.hear("ack", "error", cid=cid) == {"type": "ack", "cid": cid, "id": author}


async def listed(one: ChatClient, room: str = EVERYWHERE) -> Frame:
    await one.say(type="sanctions", room=room, cid="l")
    return await one.hear("sanctions", "error", cid="l")


async def put_out(*clients: ChatClient) -> None:
    async with asyncio.timeout(SECONDS):
        for one in clients:
            code, reason = await one.closed()
            assert (code, reason[:38]) == (4403, "you are banned from this chat until 20")


async def test_who_is_banned_is_out_of_all_replicas_also_after_they_restart_until_it_is_lifted(
    replica: Replica, environment: dict[str, str], provider: Provider, kafka: dict[str, str]
) -> None:
    one, other = [await replica(kafka, environment) for _ in range(2)]
    eve, headers = author_of(provider, "eve"), provider.headers("eve")
    async with (
        client(one, provider, "fay", "heads") as fay,
        client(one, provider, "eve") as here,
        client(other, provider, "eve") as there,
        client(other, provider, "bob") as bob,
        # Who has shaken hands and says nothing is somebody, too.
        ChatClient(other.port, None, additional_headers=headers) as silent,
    ):
        assert fay.welcome["moderator"] is True
        assert "moderator" not in bob.welcome
        for client_ in (here, there, bob):
            await client_.join("lobby")
        private = await make(here)
        await ban(fay, eve)
        await put_out(here, there)
        await bob.hear("presence", left=["eve"])
        await silent.say(type="hello", user="")
        await put_out(silent)
        await bob.send("lobby", "still here")
        answer = await listed(fay)
        assert (list(answer["banned"]), answer["muted"]) == ([eve], {})
        assert 590_000 < answer["banned"][eve] - time.time() * 1000 < 610_000
    await asyncio.gather(one.drain(), other.drain())
    third = await replica(kafka, environment)
    # Also a token that was issued later.
    for token in (headers, provider.headers("eve", groups=["desk"])):
        assert (await refusal(third.port, **token))[0] == 403
        answers = [
            await session(third, **token),
            await session(third, "POST", **token),
            await get(third.port, "/api/rooms/lobby/messages", **token),
        ]
        for one_answer in answers:
            error = json.loads(one_answer.body)["error"]
            assert (one_answer.code, error[:29]) == (403, "you are banned from this chat")
        assert (await post(third, {"text": "x", "cid": "1"}, **token))[0] == 403
    async with client(third, provider, "fay", "owners") as fay:
        await ban(fay, eve, 0)
        assert (await listed(fay))["banned"] == {}
        async with client(third, provider, "eve") as back:
            assert (await back.join("lobby"))["messages"][-1]["text"] == "still here"
            await back.join(private)


async def test_it_ends_by_itself(server: Server, provider: Provider, server_clock: Clock) -> None:
    async with client(server, provider, "fay", "heads") as fay:
        await ban(fay, author_of(provider, "eve"))
        assert (await session(server, **provider.headers("eve"))).code == 403
        server_clock.now += 601
        assert (await listed(fay))["banned"] == {}
        await until(lambda: len(server._sanctions or ()) == 0)
        assert (await session(server, **provider.headers("eve"))).code == 200


async def test_only_those_may_whom_the_site_names_and_they_are_not_touched(
    server: Server, provider: Provider
) -> None:
    async with (
        client(server, provider, "fay", "heads") as fay,
        client(server, provider, "dan", "desk") as dan,
        client(server, provider, "gus", "owners") as gus,
    ):
        await dan.join("lobby")
        assert (await dan.refused(type="join", room=EVERYWHERE))["code"] == "bad_room"
        for frame in ({"type": "ban", "author": ADA, "seconds": 60}, {"type": "sanctions"}):
            error = await dan.refused(**frame, room=EVERYWHERE, cid="1")
            assert error["code"] == "not_moderator"
        await ban(fay, author_of(provider, "gus"))
        await ban(fay, author_of(provider, "dan"))
        await put_out(dan)
        await gus.join("lobby")
        await gus.send("lobby", "I am not touched")
        # Until they are none any more.
        token = provider.token("gus", groups=["desk"])
        error = await gus.refused(type="auth", token=token)
        assert (error["code"], "you are banned" in error["message"]) == ("bad_token", True)
        assert (await session(server, Authorization=f"Bearer {token}")).code == 403


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"type": "mute"}, "bad_room"),
        ({"author": "own"}, "bad_author"),
        ({"author": "x"}, "bad_author"),
        ({"cid": ""}, "bad_cid"),
        ({"seconds": -1}, "bad_frame"),
        ({"room": "lobby"}, "not_joined"),
        ({"type": "sanctions", "room": "lobby"}, "not_joined"),
        ({"type": "sanctions", "room": "no room"}, "bad_room"),
        ({"type": "sanctions", "cid": ""}, "bad_cid"),
    ],
)
async def test_what_cannot_be_is_refused(
    server: Server, provider: Provider, given: Frame, code: str
) -> None:
    given = {key: author_of(provider, "fay") if it == "own" else it for key, it in given.items()}
    async with client(server, provider, "fay", "heads") as fay:
        frame = {"type": "ban", "room": EVERYWHERE, "author": ADA, "seconds": 60, "cid": "1"}
        assert (await fay.refused(**frame | given))["code"] == code
        assert server._sanctions is not None
        assert len(server._sanctions) == 0


async def test_those_who_moderate_a_room_see_who_is_muted_and_banned_there(
    server: Server, provider: Provider
) -> None:
    eve, bob = author_of(provider, "eve"), author_of(provider, "bob")
    async with (
        client(server, provider, "dan", "desk") as dan,
        client(server, provider, "ann") as ann,
    ):
        for one in (dan, ann):
            await one.join("lobby")
        await dan.join("garden")
        for what, author in (("ban", eve), ("mute", bob)):
            frame = {"room": "lobby", "author": author, "seconds": 60, "cid": what}
            await dan.say(type=what, **frame)
            await dan.hear("ack", cid=what)
        answer = await listed(dan, "lobby")
        assert (list(answer["muted"]), list(answer["banned"])) == ([bob], [eve])
        nobody: dict[str, Any] = {"type": "sanctions", "cid": "l", "muted": {}, "banned": {}}
        assert await listed(dan, "garden") == nobody | {"room": "garden"}
        assert (await listed(ann, "lobby"))["code"] == "not_moderator"


async def test_the_audit_room_is_told(server: Server, provider: Provider) -> None:
    eve, by = author_of(provider, "eve"), author_of(provider, "fay")
    async with client(server, provider, "fay", "heads") as fay:
        await fay.join("audit")
        for seconds in (600, 0):
            await ban(fay, eve, seconds)
            lines = ["ban", "room: *", f"author: {eve}", f"seconds: {seconds}", f"by: {by} fay"]
            assert await told(fay) == lines


async def test_a_ban_while_the_log_is_read_shows_nothing(
    replica: Replica,
    environment: dict[str, str],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await replica(environment, CHAT_WINDOW="3")
    async with (
        client(server, provider, "fay", "heads") as fay,
        client(server, provider, "bob") as bob,
        client(server, provider, "eve") as eve,
    ):
        out = ban(fay, author_of(provider, "eve"))
        with pytest.raises(Exception, match="4403"):
            await shows_nothing(
                server, provider, monkeypatch, "request", "lobby", out, writer=bob, eve=eve
            )
        assert "secret" not in json.dumps(eve.inbox)


async def test_a_bot_bans_and_lists_and_one_that_is_banned_ends(
    server: Server, provider: Provider
) -> None:
    url = f"http://127.0.0.1:{server.port}/"
    async with connect(url, token=provider.token("fay", groups=["heads"])) as bot:
        async with connect(url, token=provider.token("eve")) as eve:
            lobby = eve.room("lobby")
            await lobby.joined()
            with pytest.raises(RefusedError) as refused:
                await eve.ban(bot.author, 60)
            assert refused.value.code is ErrorCode.NOT_MODERATOR
            await bot.ban(eve.author, 60)
            with pytest.raises(DisconnectedError, match="you are banned from this chat until"):
                await anext(lobby)
            assert (await bot.sanctions()).banned.keys() == {eve.author}
        with pytest.raises(DisconnectedError, match="403"):
            async with connect(url, token=provider.token("eve")):
                pass


def banned(world: World, authors: Sequence[str]) -> list[str]:
    """Those of these who see no room."""
    return [one for one in authors if "r" not in world.may(one)]


async def test_moderators_of_rooms_take_no_places_of_bans_from_the_whole_chat(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 20)
    # It ends first, and was made first.
    world.take(record(ADA, clock.now + 60, room=EVERYWHERE))
    for n in range(50):
        world.take(record(f"{n:032x}", clock.now + 1000, "mute", f"room{n}"))
    assert banned(world, [ADA]) == [ADA]
    assert 1 + 18 <= len(world.sanctions) <= 1 + 20
    put = asyncio.create_task(world.sanctions.put("ban", EVERYWHERE, BOB, 60, DAN))
    await until(lambda: world.sanctions._put)
    world.take(*world.sanctions._put)
    await put
    assert banned(world, [ADA, BOB]) == [ADA, BOB]


async def test_replicas_that_ban_the_last_at_the_same_moment_forget_nobody(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_IN_ROOM", 10)
    monkeypatch.setattr(module, "MOST_EVERYWHERE", 20)
    authors = [f"{n:032x}" for n in range(21)]
    bans = [record(one, clock.now + 60 + n, room=EVERYWHERE) for n, one in enumerate(authors)]
    world.take(record(ADA, clock.now + 30, "mute"), *bans[:11])
    with pytest.raises(RefusedError, match="11 people are banned from the whole chat: lift some"):
        await world.sanctions.put("ban", EVERYWHERE, BOB, 60, DAN)
    assert banned(world, authors) == authors[:11]
    # Whoever writes to the topic fills no memory, and takes no places of rooms.
    world.take(*bans[11:])
    assert (
        "more than 20 bans from the whole chat: the 3 that end first are forgotten" in caplog.text
    )
    assert banned(world, authors) == authors[3:]
    assert world.may(ADA) == "r"


async def test_a_mute_of_the_whole_chat_is_none(world: World, clock: Clock) -> None:
    world.take(record(ADA, clock.now + 60, "mute", EVERYWHERE))
    assert (world.may(ADA), world.sanctions.foreign) == ("rw", 1)
    world.take(record(ADA, clock.now + 60, "ban", EVERYWHERE))
    assert world.may(ADA)[:1] != "r"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"CHAT_SANCTIONS": "false"}, "CHAT_MODERATORS names the group 'heads'"),
        ({"CHAT_MODERATORS": "heads"}, "give a list in JSON, such as"),
        ({"CHAT_MODERATORS": '[""]'}, "a group's name is empty"),
        ({"CHAT_MODERATORS": "[1]"}, "give a list in JSON"),
    ],
)
def test_moderators_that_cannot_be_are_refused(
    environment: dict[str, str], given: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load(environment | given)
    assert load(environment).moderators == {"heads", "owners"}


def test_moderators_need_groups(provider: Provider) -> None:
    environment = {"CHAT_SANCTIONS": "true", "CHAT_MODERATORS": '["heads"]'}
    remedy = "CHAT_ROOMS or CHAT_MODERATORS names the group 'heads', and nobody is in a group"
    with pytest.raises(SettingsError, match=remedy):
        load(provider.environment() | environment)
