"""The audit room: what people report and moderators do, for those who may read it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from chat_client import ChatClient
from conftest import Replica, until
from provider import Provider
from test_api_send import send as post
from test_members import ask, make
from test_rights import client
from test_sanctions import author_of

from chat import audit
from chat.client import RefusedError, connect
from chat.protocol import ErrorCode
from chat.relay.base import Record, Revision, UnavailableError
from chat.server import Server
from chat.settings import SettingsError, load

RULES = [
    {"rooms": "audit", "read": ["desk"], "write": []},
    {"rooms": "*", "moderate": ["desk"]},
]


@pytest.fixture
def environment(provider: Provider) -> dict[str, str]:
    return provider.environment(groups_claim="groups") | {
        "CHAT_ROOMS": json.dumps(RULES),
        "CHAT_AUDIT_ROOM": "audit",
        "CHAT_REVISIONS": "true",
        "CHAT_SANCTIONS": "true",
        "CHAT_PRIVATE_ROOMS": "true",
    }


async def told(reader: ChatClient) -> list[str]:
    """The lines of the next message in the audit room."""
    message = await reader.hear("message", room="audit")
    assert (message["user"], message["author"]) == ("audit", audit.AUTHOR)
    lines: list[str] = message["text"].split("\n")
    return lines


async def report(one: ChatClient, room: str, of: str, reason: str, cid: str = "r") -> None:
    await one.say(type="report", room=room, id=of, reason=reason, cid=cid)
    assert (await one.hear("ack", "error", cid=cid))["id"] == of


async def test_a_report_tells_those_who_read_the_audit_room_and_nobody_else(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MOST_QUOTED", 50)
    ann_author, eve_author = author_of(provider, "ann"), author_of(provider, "eve")
    async with (
        client(server, provider, "dan", "desk") as dan,
        client(server, provider, "ann") as ann,
        client(server, provider, "eve") as eve,
    ):
        assert ann.welcome["reports"] is True
        await dan.join("audit")
        for who in (ann, eve):
            await who.join("lobby")
        of = (await eve.send("lobby", "harmless"))["id"]
        await eve.say(type="edit", room="lobby", id=of, text="a threat\nroom: other", cid="e")
        await ann.hear("edited")
        await report(ann, "lobby", of, "He threatens me.\nreported by: nobody")
        assert await told(dan) == [
            "report",
            "room: lobby",
            f"message: {of}",
            f"author: {eve_author} eve",
            f"reported by: {ann_author} ann",
            "reason: ",
            "> He threatens me.",
            "> reported by: nobody",
            "text: ",
            "> a threat",
            "> room: other",
        ]
        # The same again is the same report. Another person's cid is another one.
        await report(ann, "lobby", of, "He threatens me.\nreported by: nobody")
        await report(eve, "lobby", of, "I take it back.")
        assert (await told(dan))[4] == f"reported by: {eve_author} eve"
        # Also of a direct room, by one of the two.
        room = (await ask(ann, "direct", author=eve_author))["id"]
        await ann.join(room)
        of = (await ann.send(room, "x" * (audit.MOST_QUOTED + 1), "x"))["id"]
        await report(ann, room, of, "Look.", "d")
        lines = await told(dan)
        assert (lines[1], lines[-1]) == (f"room: {room}", f"> {'x' * audit.MOST_QUOTED}…")
        assert "audit" not in json.dumps([ann.inbox, eve.inbox])


async def test_nobody_writes_into_the_audit_room_and_others_do_not_see_it(
    server: Server, provider: Provider
) -> None:
    async with (
        client(server, provider, "dan", "desk") as dan,
        client(server, provider, "audit", "desk") as named_so,
        client(server, provider, "eve") as eve,
    ):
        await named_so.join("audit")
        joined = await dan.join("audit")
        assert (joined["read_only"], "moderator" in joined) == (True, False)
        await eve.join("lobby")
        await report(eve, "lobby", (await eve.send("lobby", "me"))["id"], "Look at me.")
        message = await dan.hear("message", room="audit")
        frame = {"room": "audit", "id": message["id"], "text": "?", "cid": "1"}
        for kind, code in (("send", "read_only"), ("edit", "read_only"), ("delete", "no_message")):
            assert (await dan.refused(type=kind, **frame))["code"] == code
        headers = provider.headers("dan", groups=["desk"])
        assert (await post(server, {"text": "?", "cid": "2"}, "audit", **headers))[0] == 403
        for what in ({"type": "join"}, {"type": "report", "reason": "?"} | frame):
            assert (await eve.refused(**{"room": "audit"} | what))["code"] == "bad_room"


async def test_what_moderators_do_to_others_is_told(server: Server, provider: Provider) -> None:
    dan_author, eve_author = author_of(provider, "dan"), author_of(provider, "eve")
    async with (
        client(server, provider, "dan", "desk") as dan,
        client(server, provider, "eve") as eve,
    ):
        await dan.join("audit")
        for who in (dan, eve):
            await who.join("lobby")
        mine = (await eve.send("lobby", "mine"))["id"]
        of = (await eve.send("lobby", "nonsense"))["id"]
        await eve.say(type="delete", room="lobby", id=mine, cid="1")
        for _ in range(2):
            await dan.say(type="delete", room="lobby", id=of, cid="2")
            await dan.hear("ack", cid="2")
        about = ["room: lobby", f"message: {of}", f"author: {eve_author} eve"]
        assert await told(dan) == ["delete", *about, f"deleted by: {dan_author} dan"]
        for what, seconds in (("ban", 60), ("mute", 0)):
            frame = {"room": "lobby", "author": eve_author, "seconds": seconds, "cid": what}
            await dan.say(type=what, **frame)
            about = [what, "room: lobby", f"author: {eve_author}", f"seconds: {seconds}"]
            assert await told(dan) == [*about, f"by: {dan_author} dan"]


async def test_an_act_counts_also_if_the_audit_room_cannot_be_told(
    server: Server,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(_: Any) -> Any:
        raise UnavailableError("Kafka is away")

    async with client(server, provider, "dan", "desk") as dan:
        await dan.join("lobby")
        monkeypatch.setattr(server.relay, "append", away)
        frame = {"room": "lobby", "author": "0" * 32, "seconds": 60, "cid": "m"}
        await dan.say(type="mute", **frame)
        await dan.hear("ack", cid="m")
        await until(lambda: "was not told what a moderator did: Kafka is away" in caplog.text)


async def test_a_deletion_is_told_when_it_counts_and_not_before(
    server: Server,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    held: list[asyncio.Future[None]] = []
    append = server.relay.append

    def hold(record: Record) -> asyncio.Future[None]:
        if not isinstance(record, Revision):
            return append(record)
        held.append(asyncio.get_running_loop().create_future())
        return held[-1]

    async with client(server, provider, "dan", "desk") as dan:
        async with client(server, provider, "eve") as eve:
            await dan.join("audit")
            for who in (dan, eve):
                await who.join("lobby")
            of = (await eve.send("lobby", "nonsense"))["id"]
        monkeypatch.setattr(server.relay, "append", hold)
        await dan.say(type="delete", room="lobby", id=of, cid="1")
        await until(lambda: held)
        held[0].set_exception(UnavailableError("Kafka is away"))
        assert (await dan.hear("error", cid="1"))["code"] == "unavailable"
        await until(lambda: "told of no deletion, which may count nevertheless" in caplog.text)
        monkeypatch.setattr(server.relay, "append", append)
        await dan.say(type="mute", room="lobby", author="0" * 32, seconds=1, cid="2")
        assert (await told(dan))[0] == "mute"


async def test_nothing_is_told_of_what_owners_delete_in_their_private_rooms(
    server: Server, provider: Provider
) -> None:
    async with (
        client(server, provider, "dan", "desk") as dan,
        client(server, provider, "ann") as ann,
        client(server, provider, "bob") as bob,
    ):
        await dan.join("audit")
        room = await make(ann)
        invitation = await ask(ann, "invite", room=room, seconds=60, uses=1)
        await ask(bob, "accept", token=invitation["token"])
        for who in (ann, bob):
            await who.join(room)
        of = (await bob.send(room, "nonsense"))["id"]
        await ann.say(type="delete", room=room, id=of, cid="1")
        await ann.hear("ack", cid="1")
        await dan.join("lobby")
        await dan.say(type="mute", room="lobby", author="0" * 32, seconds=1, cid="2")
        assert (await told(dan))[0] == "mute"


async def test_what_cannot_be_reported_is_refused(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "BURST", 7)
    assert server._replica.audit
    server._replica = replace(server._replica, audit=audit.Audit(server._hub, "audit"))
    async with client(server, provider, "ann") as ann, client(server, provider, "bob") as bob:
        room = await make(bob)
        await bob.join(room)
        hidden = (await bob.send(room, "secret"))["id"]
        await ann.join("lobby")
        of = (await ann.send("lobby", "hello"))["id"]
        gone = (await ann.send("lobby", "bye"))["id"]
        await ann.say(type="delete", room="lobby", id=gone, cid="x")
        await ann.hear("deleted")
        frame = {"type": "report", "room": "lobby", "id": of, "reason": "?", "cid": "1"}
        epoch, partition, offset = of.split(":")[:3]
        behind = f"{epoch}:{partition}:{int(offset) + 1000}"
        for fields, codes in (
            ({"room": room, "id": hidden}, ["bad_room"]),
            ({"room": "other"}, ["not_joined"]),
            ({"reason": ""}, ["bad_text"]),
            ({"cid": ""}, ["bad_cid"]),
            ({"id": "nonsense"}, ["no_message"]),
            ({"id": gone}, ["no_message"]),
            ({"id": f"{epoch}:{partition}:{offset}:1"}, ["no_message"]),
            ({"id": behind}, ["no_message"]),
            ({"id": hidden}, ["no_message", "bad_position"]),
            ({"id": "x:0:0"}, ["bad_position"]),
        ):
            error = await ann.refused(**frame | fields)
            assert error["code"] in codes, fields
        await report(ann, "lobby", ":".join(of.split(":")[:3]), "An id of an earlier release.", "2")
        error = await ann.refused(**frame)
        assert (error["code"], error["retry_after"]) == ("rate_limited", 60)


async def test_bots_report(server: Server, provider: Provider) -> None:
    url = f"http://127.0.0.1:{server.port}/"
    async with (
        client(server, provider, "dan", "desk") as dan,
        connect(url, token=provider.token("bot")) as bot,
    ):
        await dan.join("audit")
        of = await bot.send("lobby", "hello")
        await bot.room("lobby").report(of, "It is mine.")
        assert (await told(dan))[-3] == "> It is mine."
        with pytest.raises(RefusedError) as refused:
            await bot.room("lobby").report("nonsense", "?")
        assert refused.value.code is ErrorCode.NO_MESSAGE


async def test_nobody_reports_where_there_is_no_audit_room(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment())
    async with client(server, provider, "ann") as ann:
        assert "reports" not in ann.welcome
        await ann.join("lobby")
        of = (await ann.send("lobby", "hello"))["id"]
        error = await ann.refused(type="report", room="lobby", id=of, reason="?", cid="1")
        assert error["code"] == "bad_frame"


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("audit", [{"rooms": "*"}]),
        ("audit", [{"rooms": "audit", "read": [], "write": []}, {"rooms": "*"}]),
        ("audit", [{"rooms": "audit", "read": ["desk"]}, {"rooms": "*"}]),
        ("audit", [{"rooms": "audit", "read": ["desk"], "write": ["desk"]}, {"rooms": "*"}]),
        ("audit", [RULES[0] | {"moderate": ["desk"]}, {"rooms": "*"}]),
        (f"private-{'0' * 32}", [{"rooms": "*", "read": ["desk"], "write": []}]),
        ("audit", []),
        ("an audit", RULES),
    ],
)
def test_an_audit_room_that_others_may_use_is_refused(
    provider: Provider, name: str, rules: list[dict[str, Any]]
) -> None:
    environment = provider.environment(groups_claim="groups")
    given = {"CHAT_ROOMS": json.dumps(rules)} if rules else {}
    with pytest.raises(SettingsError, match=f"CHAT_AUDIT_ROOM='{name}'"):
        load(environment | given | {"CHAT_AUDIT_ROOM": name})
