"""Rooms that are not everybody's: CHAT_ROOMS says whose, and every way to a room's words obeys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest
from chat_client import ChatClient, Frame
from conftest import Replica, until
from provider import Provider, ec_key, jwks, signed
from test_auth_renewal import session
from test_server import get

from chat.client import Message, RefusedError, connect
from chat.protocol import ErrorCode
from chat.rights import MOST_RULES, Rights, Rules, parse
from chat.server import Server
from chat.settings import SettingsError, load

RULES = [
    {"rooms": "staff-*", "read": ["/staff"]},
    {"rooms": "news", "write": ["/press"], "moderate": ["/desk"]},
    {"rooms": "closed-*", "read": []},
    {"rooms": "*"},
]


def rights(rules: list[dict[str, Any]], *groups: str) -> Rights:
    return Rules(parse(json.dumps(rules))).rights(frozenset(groups))


def allowed(rules: list[dict[str, Any]], room: str, *groups: str) -> str:
    its = rights(rules, *groups)
    return "r" * its.may_read(room) + "w" * its.may_write(room)


@pytest.fixture
def environment(provider: Provider) -> dict[str, str]:
    return provider.environment(groups_claim="groups") | {
        "CHAT_ROOMS": json.dumps(RULES),
        "CHAT_REVISIONS": "true",
    }


@contextlib.asynccontextmanager
async def client(
    server: Server, provider: Provider, user: str, *groups: str
) -> AsyncIterator[ChatClient]:
    headers = provider.headers(user, groups=list(groups))
    async with ChatClient(server.port, additional_headers=headers) as one:
        yield one


# The rules.


@pytest.mark.parametrize(
    ("room", "groups", "may"),
    [
        ("lobby", (), "rw"),
        ("staff-1", (), "w"),
        ("staff-1", ("a",), "rw"),
        ("staff-x-1", ("a",), "w"),
        ("staff-x-1", ("b",), "rw"),
        ("staff-x", ("b",), "w"),
        ("staff-x", ("c", "z"), "rw"),
        ("staff-xy", ("c",), "w"),
        ("staff-", ("a",), "rw"),
        ("staff", (), "rw"),
        ("STAFF-X", ("c",), "rw"),
        ("Staff-2", ("b", "c"), "w"),
        ("news", (), "r"),
        ("news", ("a",), "rw"),
    ],
)
@pytest.mark.parametrize("step", [1, -1])
def test_the_longest_pattern_that_fits_counts_whatever_their_order_and_case(
    room: str, groups: tuple[str, ...], may: str, step: int
) -> None:
    rules: list[dict[str, Any]] = [
        {"rooms": "*"},
        {"rooms": "Staff-*", "read": ["a"]},
        {"rooms": "staff-x-*", "read": ["b"]},
        {"rooms": "staff-x", "read": ["c"]},
        {"rooms": "news", "write": ["a"]},
    ]
    assert allowed(rules[::step], room, *groups) == may


def test_an_empty_list_is_nobody_and_none_is_everybody() -> None:
    rules = [{"rooms": "a", "read": []}, {"rooms": "b", "write": []}, {"rooms": "*"}]
    assert not rights(rules, "x").may_read("a")
    assert allowed(rules, "b", "x") == "r"
    assert allowed([{"rooms": "*", "read": []}], "lobby", "x") == "w"


def test_people_of_the_same_groups_share_what_is_known_of_them() -> None:
    rules = Rules(parse(json.dumps(RULES)))
    many = frozenset(f"group {number}" for number in range(3000))
    one, other = rules.rights(many | {"/staff"}), rules.rights(frozenset(["/staff"]))
    assert one is other
    assert len(rules._known) == 1
    del one, other
    assert len(rules._known) == 0, "nobody is left who needs it"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("staff", "give a list in JSON"),
        ('{"rooms": "*"}', "give a list in JSON"),
        ("[" * 100_000, "give a list in JSON"),
        ('[{"rooms": "*", "reed": []}]', "unknown field `reed`"),
        ('[{"rooms": "*", "read": null}]', "Expected `array`, got `null`"),
        ('[{"rooms": "*", "read": "staff"}]', "Expected `array`, got `str`"),
        ('[{"rooms": "*", "read": [["staff"]]}]', "Expected `str`, got `array`"),
        ('[{"rooms": "*", "read": [""]}]', "a group's name is empty"),
        ('[{"read": []}]', "missing required field `rooms`"),
        ('[{"rooms": "", "read": []}]', "'': give the name of a room"),
        ('[{"rooms": "*-staff"}]', "'*-staff': give the name of a room"),
        ('[{"rooms": "a*b*"}]', "'a*b*': give the name of a room"),
        ('[{"rooms": "café"}]', "'café': give the name of a room"),
        (json.dumps([{"rooms": 65 * "x"}]), "give the name of a room (1 to 64"),
        ('[{"rooms": "a"}, {"rooms": "A"}]', "'a' and 'A': give one rule for these rooms"),
        ('[{"rooms": "a*"}, {"rooms": "a*"}]', "'a*' and 'a*': give one rule for these rooms"),
        ('[{"rooms": "a"}]', "say who may use all other rooms"),
        (json.dumps([{"rooms": f"{n}"} for n in range(MOST_RULES + 1)]), "at most 1000 rules"),
    ],
)
def test_rules_that_cannot_work_are_refused_with_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=re.escape(remedy)):
        parse(text)


@pytest.mark.parametrize(
    ("issuer", "remedy"),
    [
        (None, "CHAT_AUTH='off': CHAT_ROOMS has 4 rules, and nobody is known"),
        ({}, "names the group '/desk', and nobody is in a group; give groups_claim"),
        ({"groups_prefix": "x"}, "give groups_claim with groups_prefix, or neither"),
    ],
)
def test_rules_need_people_with_groups(issuer: dict[str, str] | None, remedy: str) -> None:
    environment = {"CHAT_ROOMS": json.dumps(RULES)}
    if issuer is not None:
        issuers = [{"issuer": "https://id.example", "audience": "chat"} | issuer]
        environment |= {"CHAT_AUTH": "required", "CHAT_AUTH_ISSUERS": json.dumps(issuers)}
    with pytest.raises(SettingsError, match=re.escape(remedy)):
        load(environment)


# Groups of a token.


@pytest.mark.parametrize(
    ("groups", "status"),
    [
        (["/staff"], 200),
        ("/staff", 200),
        ([*(f"{n}" for n in range(1200)), "/staff"], 200),
        (["/Staff", "staff", "/staff/", " /staff", "/staff\u200b", "/\u0455taff", ""], 400),
        ("/press,/staff", 400),
        ([], 400),
        (None, 400),
        ({"/staff": True}, 401),
        ([["/staff"]], 401),
        (["/staff", {"name": "/staff"}], 401),
        (7, 401),
        (True, 401),
    ],
)
async def test_groups_are_names_in_a_list_or_one_name(
    server: Server, provider: Provider, groups: object, status: int
) -> None:
    answer = await get(
        server.port, "/api/rooms/staff-1/messages", **provider.headers(groups=groups)
    )
    assert answer.code == status


async def test_a_claim_that_is_null_is_no_group(server: Server, provider: Provider) -> None:
    claims = provider.claims() | {"groups": None}
    headers = {"Authorization": f"Bearer {signed(claims, provider.key)}"}
    assert (await get(server.port, "/api/rooms/lobby/messages", **headers)).code == 200
    assert (await get(server.port, "/api/rooms/staff-1/messages", **headers)).code == 400


async def test_another_issuer_s_group_of_that_name_is_another_group(
    replica: Replica, provider: Provider, tmp_path: Any
) -> None:
    partner = ec_key("partner")
    (tmp_path / "keys.json").write_bytes(jwks(partner))
    issuers = json.loads(provider.environment(groups_claim="groups")["CHAT_AUTH_ISSUERS"])
    issuers += [
        {"issuer": name, "audience": "chat", "jwks": str(tmp_path / "keys.json")} | more
        for name, more in (
            ("silent", {}),
            ("partner", {"groups_claim": "roles", "groups_prefix": "partner:"}),
        )
    ]
    rules = [{"rooms": "ours", "read": ["staff"]}, {"rooms": "theirs", "read": ["partner:staff"]}]
    server = await replica(
        provider.environment(),
        CHAT_AUTH_ISSUERS=json.dumps(issuers),
        CHAT_ROOMS=json.dumps([*rules, {"rooms": "*"}]),
    )
    for issuer, key, may in (
        (provider.issuer, None, "ours"),
        ("partner", partner, "theirs"),
        ("silent", partner, None),
    ):
        token = provider.token(key=key, iss=issuer, groups=["staff"], roles=["staff"])
        for room in ("ours", "theirs"):
            headers = {"Authorization": f"Bearer {token}"}
            answer = await get(server.port, f"/api/rooms/{room}/messages", **headers)
            assert (answer.code == 200) == (room == may), (issuer, room)


# All ways to a room's words.


async def every_answer(server: Server, provider: Provider, room: str, since: str) -> list[Any]:
    """What somebody without groups gets on each way to a room, without what they said of it."""
    answers: list[Any] = []
    # A position that this replica may be about to read is waited for, where somebody may join.
    ahead = ":".join([*since.split(":")[:2], "1000000"])
    async with client(server, provider, "eve") as eve:
        for frame in (
            {"type": "join"},
            {"type": "join", "since": since},
            {"type": "join", "since": ahead},
            {"type": "join", "since": "nonsense"},
            {"type": "send", "text": "hello", "cid": "1"},
            {"type": "send", "text": "", "cid": ""},
            {"type": "delete", "id": since, "cid": "1"},
            {"type": "edit", "id": "nonsense", "text": "", "cid": ""},
            {"type": "typing"},
            {"type": "history", "before": since},
            {"type": "history", "before": "nonsense", "limit": 1},
            {"type": "leave"},
        ):
            answers.append(await eve.refused(**frame, room=room))
            answers[-1].pop("room", None)
        await eve.say(type="ping")
        await eve.hear("pong")
        assert eve.inbox == []
    queries: list[dict[str, str]] = [
        {},
        {"before": since},
        {"after": since},
        {"after": "oldest"},
        {"after": "oldest", "before": "x", "limit": "-1", "mood": "good"},
    ]
    for query in queries:
        path = f"/api/rooms/{room}/messages?{urlencode(query)}"
        answer = await get(server.port, path, **provider.headers("eve"))
        answers.append((answer.code, answer.body, sorted(answer.headers)))
    return answers


async def test_a_room_that_one_may_not_read_is_answered_like_a_name_that_cannot_be(
    replica: Replica, environment: dict[str, str], provider: Provider, log: dict[str, str]
) -> None:
    one, other = await replica(log, environment), await replica(log, environment, CHAT_WINDOW="1")
    async with client(one, provider, "ada", "/staff") as ada:
        await ada.join("staff-1")
        await ada.send("staff-1", "secret")
        since = (await ada.send("staff-1", "also secret"))["id"]
        for server in (one, other):
            wanted = await every_answer(server, provider, "no%20room", since)
            codes = {answer["code"] for answer in wanted if isinstance(answer, dict)}
            assert codes == {"bad_room"}
            assert {answer[0] for answer in wanted if isinstance(answer, tuple)} == {400}
            for room in ("staff-1", "staff-2", "STAFF-1", "closed-1"):
                assert await every_answer(server, provider, room, since) == wanted, room
        await ada.say(type="ping")
        await ada.hear("pong")
        assert "eve" not in json.dumps(ada.inbox)


async def test_neither_metrics_nor_the_log_name_rooms(
    server: Server, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with client(server, provider, "ada", "/staff") as ada:
        await ada.join("staff-1")
        await ada.send("staff-1", "hello")
        await ada.say(type="auth", token=provider.token())
        await ada.hear("left")
        assert b"staff" not in server.metrics_text()
    assert "staff" not in caplog.text


async def test_who_may_only_read_is_told_so_and_may_not_write(
    server: Server, provider: Provider
) -> None:
    async with (
        client(server, provider, "ada", "/press") as ada,
        client(server, provider, "bob", "/staff") as bob,
    ):
        assert (await ada.join("news"))["read_only"] is False
        assert (await bob.join("news"))["read_only"] is True
        error = await bob.refused(type="send", room="news", text="hello", cid="1")
        wanted = {"type": "error", "code": "read_only", "cid": "1", "room": "news"}
        assert error == wanted | {"message": "You may read news, but not write in it."}
        await bob.say(type="typing", room="news")
        await ada.send("news", "extra")
        assert await bob.texts("news", 1) == ["extra"]
        assert not [one for one in ada.inbox if one["type"] == "typing"]
        assert not [one for one in bob.inbox if one["type"] == "error"], "nobody waits for that"


async def test_who_may_moderate_deletes_what_others_wrote(
    server: Server, provider: Provider
) -> None:
    """And nobody else does: the answer is the same whether or not there is such a message."""
    async with (
        client(server, provider, "ada", "/press") as ada,
        client(server, provider, "bob", "/press") as bob,
        client(server, provider, "eve") as eve,
        client(server, provider, "dan", "/desk") as dan,
    ):
        assert "moderator" not in await ada.join("news")
        for one in (bob, eve):
            await one.join("news")
        assert (await dan.join("news"))["moderator"] is True
        of = (await ada.send("news", "hello"))["id"]
        nothing = of.rsplit(":", 2)[0] + ":1000:1"
        wanted = {"type": "error", "code": "no_message", "cid": "1", "room": "news"}
        wanted["message"] = "There is no such message, or it is not yours."
        for absent in (of, nothing):
            frame = {"type": "edit", "room": "news", "id": absent, "text": "x", "cid": "1"}
            assert await bob.refused(**frame) == wanted
            assert (await dan.refused(**frame))["code"] == "read_only"
        for absent in (of, nothing):
            frame = {"type": "delete", "room": "news", "id": absent, "cid": "1"}
            assert await bob.refused(**frame) == wanted
            assert await eve.refused(**frame) == wanted
        for _ in range(2):
            await dan.say(type="delete", room="news", id=of, cid="1")
            assert await dan.hear("ack") == {"type": "ack", "cid": "1", "id": of}
        for one in (ada, bob, eve):
            assert (await one.hear("deleted"))["id"] == of
        await ada.say(type="edit", room="news", id=of, text="back again", cid="2")
        assert (await ada.hear("error"))["code"] == "no_message"
        assert (await bob.join("news"))["messages"] == []
        await dan.say(type="auth", token=provider.token("dan"))
        access = {"type": "access", "room": "news", "read_only": True}
        await dan.hear("renewed")
        assert await dan.hear("access") == access


# Another token, with other groups.


async def renew(
    one: ChatClient, server: Server, provider: Provider, user: str, way: str, *groups: str
) -> None:
    if way == "frame":
        await one.say(type="auth", token=provider.token(user, groups=list(groups)))
        await one.hear("renewed")
        return
    query = f"?connection={one.welcome['connection']}"
    headers = provider.headers(user, groups=list(groups))
    assert (await session(server, "POST", query, **headers)).code == 200


@pytest.mark.parametrize("way", ["frame", "request"])
async def test_a_lost_right_ends_at_once(server: Server, provider: Provider, way: str) -> None:
    async with (
        client(server, provider, "ada", "/staff") as ada,
        client(server, provider, "bob", "/staff", "/press") as bob,
    ):
        for one in (ada, bob):
            for room in ("staff-1", "news", "lobby"):
                await one.join(room)
        await ada.hear("presence", room="staff-1", count=2)
        await renew(bob, server, provider, "bob", way)
        assert (await bob.hear("error"))["code"] == "bad_room"
        assert (await bob.hear("left"))["room"] == "staff-1"
        assert await bob.hear("access") == {"type": "access", "room": "news", "read_only": True}
        await ada.hear("presence", room="staff-1", left=["bob"])
        await ada.send("staff-1", "secret")
        await ada.send("lobby", "hello")
        assert await bob.texts("lobby", 1) == ["hello"]
        assert "secret" not in json.dumps(bob.inbox)
        for frame in (
            {"type": "send", "room": "staff-1", "text": "x", "cid": "1"},
            {"type": "join", "room": "staff-1"},
        ):
            assert (await bob.refused(**frame))["code"] == "bad_room"
        send = {"type": "send", "room": "news", "text": "x", "cid": "1"}
        assert (await bob.refused(**send))["code"] == "read_only"
        await renew(bob, server, provider, "bob", way, "/press", "/staff")
        assert await bob.hear("access") == {"type": "access", "room": "news", "read_only": False}
        assert (await bob.join("staff-1"))["messages"][-1]["text"] == "secret"
        await bob.send("news", "extra")


async def test_the_same_groups_change_nothing(server: Server, provider: Provider) -> None:
    async with client(server, provider, "ada", "/staff", "x") as ada:
        await ada.join("staff-1")
        await renew(ada, server, provider, "ada", "frame", "y", "/staff")
        await ada.send("staff-1", "hello")
        assert {one["type"] for one in ada.inbox} == {"presence", "message"}


def hold_reading(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> tuple[asyncio.Event, asyncio.Event]:
    """Reading older messages from the log waits. Returns what is set once somebody reads, and what
    to set to let them go on.
    """
    archive = server._hub._history._archive
    read, reading, go_on = archive._read, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: int) -> Any:
        reading.set()
        await go_on.wait()
        return await read(*arguments)

    monkeypatch.setattr(archive, "_read", slow)
    return reading, go_on


@pytest.mark.parametrize("what", ["join", "history"])
async def test_a_right_that_is_lost_while_the_log_is_read_shows_nothing(
    replica: Replica,
    environment: dict[str, str],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    server = await replica(environment, CHAT_WINDOW="3")
    async with (
        client(server, provider, "ada", "/staff") as ada,
        client(server, provider, "bob", "/staff") as bob,
    ):
        position = (await ada.join("staff-1"))["position"]
        ids = [(await ada.send("staff-1", f"secret {n}"))["id"] for n in range(9)]
        if what == "history":
            await bob.join("staff-1")
            await bob.hear("presence")
            bob.inbox.clear()
        reading, go_on = hold_reading(server, monkeypatch)
        more: Frame = {"since": position} if what == "join" else {"before": ids[2]}
        await bob.say(type=what, room="staff-1", **more)
        await reading.wait()
        await renew(bob, server, provider, "bob", "request")
        go_on.set()
        assert (await bob.hear("error"))["code"] == "bad_room"
        await bob.say(type="ping")
        await bob.hear("pong")
        assert "secret" not in json.dumps(bob.inbox)
        await ada.say(type="ping")
        await ada.hear("pong")
    await until(lambda: server._hub.places.taken == 0)


# The client library.


async def test_a_bot_is_told_what_it_may_not_do(server: Server, provider: Provider) -> None:
    groups = ["/staff"]
    url = f"http://127.0.0.1:{server.port}/"
    async with connect(url, token=lambda: provider.token(groups=groups)) as bot:
        news, staff = bot.room("news"), bot.room("staff-1")
        await news.joined()
        await staff.joined()
        assert (news.read_only, staff.read_only) == (True, False)
        with pytest.raises(RefusedError) as refused:
            await news.send("x")
        assert refused.value.code is ErrorCode.READ_ONLY
        news.typing()
        groups.append("/press")
        bot._renew(0)
        await until(lambda: not news.read_only)
        await news.send("extra")
        groups.clear()
        bot._renew(0)
        for ending in (anext(staff), staff.joined(), bot.send("staff-1", "x")):
            with pytest.raises(RefusedError) as refused:
                await ending
            assert refused.value.code is ErrorCode.BAD_ROOM
        await until(lambda: news.read_only)
        said = await anext(news)
        assert isinstance(said, Message)
        assert said.text == "extra"
