"""Moderators mute and ban people in a room, for a time: on all replicas, on every way to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Set
from typing import Any

import pytest
from chat_client import ChatClient, Frame
from conftest import PARTITIONS, Replica, sanctions_of, until
from kafka import KafkaAdminClient, KafkaProducer
from provider import Provider
from test_api_send import send as post
from test_auth_renewal import session
from test_rights import client, every_answer, hold_reading
from test_server import get

from chat import agreed
from chat import sanctions as module
from chat.bounds import SANCTION_SECONDS
from chat.client import DisconnectedError, RefusedError, connect
from chat.protocol import CloseCode, ErrorCode
from chat.relay.base import UnavailableError
from chat.relay.kafka import register as kafka_register
from chat.relay.register import Kept, MemoryRegister, Note, Take, ignore
from chat.rights import Rules, parse
from chat.room import Person
from chat.sanctions import MOST_BYTES, Sanctions, What
from chat.server import Server
from chat.settings import SettingsError, load
from tests.kafka_broker import KafkaBroker

RULES = [{"rooms": "quiet", "write": ["press"]}, {"rooms": "*", "moderate": ["desk"]}]
# A sanction counts on every replica within this time.
SECONDS = 1.0
ADA, BOB, DAN = ("a" * 32, "b" * 32, "d" * 32)


@pytest.fixture
def environment(provider: Provider) -> dict[str, str]:
    return provider.environment(groups_claim="groups") | {
        "CHAT_ROOMS": json.dumps(RULES),
        "CHAT_REVISIONS": "true",
        "CHAT_SANCTIONS": "true",
    }


@contextlib.asynccontextmanager
async def moderator(server: Server, provider: Provider, *rooms: str) -> AsyncIterator[ChatClient]:
    async with client(server, provider, "dan", "desk") as dan:
        for room in rooms or ("lobby",):
            await dan.join(room)
        yield dan


def author_of(provider: Provider, user: str) -> str:
    return Person.known(user, provider.issuer, f"subject of {user}").author


async def sanction(
    dan: ChatClient, what: What, author: str, seconds: int, room: str = "lobby"
) -> None:
    cid = f"{what} {time.monotonic_ns()}"
    await dan.say(type=what, room=room, author=author, seconds=seconds, cid=cid)
    assert await dan.hear("ack", "error") == {"type": "ack", "cid": cid, "id": author}


async def put_out(*clients: ChatClient, room: str = "lobby") -> None:
    async with asyncio.timeout(SECONDS):
        for one in clients:
            error = await one.hear("error")
            assert (error["code"], error["room"]) == ("bad_room", room)
            assert error["until"] > time.time() * 1000
            assert (await one.hear("left"))["room"] == room


class Clock:
    now: float = 1_800_000_000

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server_clock(server: Server, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """By which the sanctions of `server` end. It stands still."""
    clock = Clock()
    clock.now = time.time()
    assert server._sanctions is not None
    monkeypatch.setattr(server._sanctions, "_clock", clock)
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.01)
    return clock


# Bans.


async def test_who_is_banned_is_put_out_on_all_replicas_and_stays_out_after_they_restart(
    replica: Replica, environment: dict[str, str], provider: Provider, kafka: dict[str, str]
) -> None:
    one, other = [await replica(kafka, environment) for _ in range(2)]
    eve = author_of(provider, "eve")
    headers = provider.headers("eve")
    async with (
        moderator(one, provider) as dan,
        client(one, provider, "eve") as here,
        client(other, provider, "eve") as there,
        client(other, provider, "bob") as bob,
        # Who has shaken hands and says nothing is somebody, too.
        ChatClient(other.port, None, additional_headers=headers) as silent,
    ):
        for client_ in (here, there, bob):
            await client_.join("lobby")
        since = (await here.join("garden"))["position"]
        await dan.hear("presence", count=3)
        await sanction(dan, "ban", eve, 600)
        await put_out(here, there)
        await dan.hear("presence", left=["eve"])
        await dan.send("lobby", "about eve")
        assert await bob.texts("lobby", 1) == ["about eve"]
        await here.say(type="auth", token=provider.token("eve", groups=["press"]))
        await here.hear("renewed")
        await silent.say(type="hello", user="")
        await silent.hear("welcome")
        for client_ in (here, there, silent):
            assert (await client_.refused(type="join", room="lobby"))["code"] == "bad_room"
            assert "about eve" not in json.dumps(client_.inbox)
        await here.send("garden", "I am still here")
        resumed = (await there.join("garden", since))["messages"]
        said = resumed or [await there.hear("message", room="garden")]
        assert said[0]["text"] == "I am still here"
        await sanction(dan, "ban", BOB, 600)
        await sanction(dan, "ban", BOB, 0)
    await asyncio.gather(one.drain(), other.drain())
    third = await replica(kafka, environment)
    assert (await get(third.port, "/api/rooms/lobby/messages", **headers)).code == 400
    assert b"chat_sanctions 1.0" in third.metrics_text()
    async with (
        moderator(third, provider) as dan,
        client(third, provider, "eve") as here,
    ):
        await sanction(dan, "ban", eve, 0)
        assert (await here.join("lobby"))["messages"][-1]["text"] == "about eve"


async def test_a_banned_person_gets_the_answers_for_a_name_that_no_room_can_have(
    server: Server, provider: Provider
) -> None:
    async with moderator(server, provider) as dan:
        await dan.send("lobby", "secret")
        since = (await dan.send("lobby", "also secret"))["id"]
        await sanction(dan, "ban", author_of(provider, "eve"), 600)
        wanted = await every_answer(server, provider, "no%20room", since)
        assert await every_answer(server, provider, "lobby", since) == wanted
        sent = {"text": "hello", "cid": "1"}
        headers = provider.headers("eve")
        absent = await post(server, sent, "no%20room", **headers)
        assert await post(server, sent, **headers) == absent
        assert absent[0] == 400
        for what in ("mute", "ban"):
            frame = {"type": what, "author": BOB, "seconds": 1, "cid": "1"}
            async with client(server, provider, "eve") as eve:
                refused = [await eve.refused(**frame, room=room) for room in ("lobby", "no room")]
            assert {one["code"] for one in refused} == {"bad_room"}
        await dan.say(type="ping")
        await dan.hear("pong")
        assert "eve" not in json.dumps(dan.inbox)
    async with client(server, provider, "bob") as bob:
        assert len((await bob.join("lobby"))["messages"]) == 2, "of others nothing is taken"
        assert (
            await get(server.port, "/api/rooms/lobby/messages", **provider.headers())
        ).code == 200


async def shows_nothing(
    server: Server,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    room: str,
    put_out: Awaitable[object],
    *,
    writer: ChatClient,
    eve: ChatClient,
) -> None:
    """Eve asks for what was said in a room, and is put out while the log is read for her."""
    position = (await writer.join(room))["position"]
    ids = [(await writer.send(room, f"secret {n}"))["id"] for n in range(9)]
    if what == "history":
        await eve.join(room)
        await eve.hear("presence")
        eve.inbox.clear()
    reading, go_on = hold_reading(server, monkeypatch)
    asked = None
    if what == "request":
        path = f"/api/rooms/{room}/messages?before={ids[2]}"
        asked = asyncio.create_task(get(server.port, path, **provider.headers("eve")))
    else:
        more: Frame = {"since": position} if what == "join" else {"before": ids[2]}
        await eve.say(type=what, room=room, **more)
    await reading.wait()
    await put_out
    go_on.set()
    if asked is not None:
        answer = await asked
        assert (answer.code, b"secret" in answer.body) == (400, False)
    else:
        assert (await eve.hear("error"))["code"] == "bad_room"
    await eve.say(type="ping")
    await eve.hear("pong")
    assert "secret" not in json.dumps(eve.inbox)


@pytest.mark.parametrize("what", ["join", "history", "request"])
async def test_a_ban_while_the_log_is_read_shows_nothing(
    replica: Replica,
    environment: dict[str, str],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    server = await replica(environment, CHAT_WINDOW="3")
    async with moderator(server, provider) as dan, client(server, provider, "eve") as eve:
        ban = sanction(dan, "ban", author_of(provider, "eve"), 600)
        await shows_nothing(server, provider, monkeypatch, what, "lobby", ban, writer=dan, eve=eve)


# Mutes.


async def test_who_is_muted_reads_and_does_not_write_until_the_time_is_over(
    server: Server, provider: Provider, server_clock: Clock
) -> None:
    async with (
        moderator(server, provider) as dan,
        client(server, provider, "eve") as eve,
        client(server, provider, "eve") as tab,
    ):
        await eve.join("garden")
        for one in (eve, tab):
            await one.join("lobby")
        of = (await eve.send("lobby", "hello"))["id"]
        await sanction(dan, "mute", author_of(provider, "eve"), 600)
        end = math.ceil(server_clock.now + 600) * 1000
        silenced = {"type": "access", "room": "lobby", "read_only": True, "until": end}
        assert await eve.hear("access") == await tab.hear("access") == silenced
        server_clock.now += 30
        for frame in (
            {"type": "send", "text": "x"},
            {"type": "edit", "id": of, "text": "x"},
        ):
            error = await eve.refused(**frame, room="lobby", cid="1")
            assert error["code"] == "read_only"
            assert re.search("muted you for another 57[01] s", error["message"])
            # Clients send again by themselves what has this, and this may be a year.
            assert "retry_after" not in error
        await eve.say(type="delete", room="lobby", id=of, cid="d")
        assert (await eve.hear("ack", cid="d"))["id"] == of
        await tab.say(type="typing", room="lobby")
        code, answer = await post(server, {"text": "x", "cid": "1"}, **provider.headers("eve"))
        assert (code, "muted you" in answer["error"]) == (403, True)
        again = await tab.join("lobby")
        assert (again["read_only"], again["until"]) == (True, end)
        assert "until" not in await tab.join("garden")
        await eve.send("garden", "elsewhere I may")
        await dan.send("lobby", "listen")
        for one in (eve, tab):
            assert (await one.hear("message", text="listen"))["room"] == "lobby"
        await dan.say(type="ping")
        await dan.hear("pong")
        assert not [frame for frame in dan.inbox if frame["type"] == "typing"]
        server_clock.now += 571
        allowed = {"type": "access", "room": "lobby", "read_only": False}
        assert await eve.hear("access") == await tab.hear("access") == allowed
        await eve.send("lobby", "back again")
        assert len(server._sanctions or ()) == 0


async def test_the_last_of_two_counts_and_none_ends_both(
    server: Server, provider: Provider
) -> None:
    author = author_of(provider, "eve")
    async with moderator(server, provider) as dan, client(server, provider, "eve") as eve:
        await eve.join("lobby")
        await sanction(dan, "ban", author, 600)
        await put_out(eve)
        await sanction(dan, "mute", author, 60)
        assert (await eve.join("lobby"))["read_only"] is True
        await sanction(dan, "ban", author, 0)
        assert (await eve.hear("access"))["read_only"] is False
        await sanction(dan, "mute", author, 0)
        await eve.send("lobby", "back again")


# Who may.


async def test_moderators_are_not_touched_where_they_moderate(
    server: Server, provider: Provider
) -> None:
    async with (
        moderator(server, provider) as dan,
        client(server, provider, "fay", "desk") as fay,
    ):
        await fay.join("lobby")
        await sanction(dan, "ban", author_of(provider, "fay"), 600)
        await sanction(fay, "mute", author_of(provider, "dan"), 600)
        for one, text in ((dan, "one"), (fay, "two")):
            await one.send("lobby", text)
        await fay.say(type="auth", token=provider.token("fay"))
        await put_out(fay)
        await fay.say(type="auth", token=provider.token("fay", groups=["desk"]))
        assert (await fay.join("lobby"))["moderator"] is True


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ({"author": "x"}, "bad_author", "32 hexadecimal digits"),
        ({"author": ADA.upper()}, "bad_author", "32 hexadecimal digits"),
        ({"author": f"{ADA}\n"}, "bad_author", "32 hexadecimal digits"),
        ({"author": ""}, "bad_author", "32 hexadecimal digits"),
        ({"author": 7}, "bad_frame", "Expected `str`"),
        ({"author": None}, "bad_frame", "Expected `str`"),
        ({"author": "own"}, "bad_author", "This author is you"),
        ({"seconds": SANCTION_SECONDS + 1}, "bad_frame", "`int` <= 31622400"),
        ({"seconds": -1}, "bad_frame", "`int` >= 0"),
        ({"seconds": 1.5}, "bad_frame", "Expected `int`"),
        ({"seconds": "60"}, "bad_frame", "Expected `int`"),
        ({"seconds": 10**30}, "bad_frame", "out of range|`int`"),
        ({"cid": ""}, "bad_cid", "1 to 64"),
        ({"room": "garden"}, "not_joined", "join it first"),
        ({"room": "no room"}, "bad_room", "no such room"),
        ({"room": "quiet"}, "not_moderator", "not a moderator of quiet"),
    ],
)
@pytest.mark.parametrize("what", ["mute", "ban"])
async def test_what_cannot_be_is_refused_and_changes_nothing(
    server: Server, provider: Provider, given: Frame, code: str, message: str, what: What
) -> None:
    given = {key: author_of(provider, "dan") if it == "own" else it for key, it in given.items()}
    async with moderator(server, provider, "lobby", "quiet") as dan:
        frame = {"type": what, "room": "lobby", "author": ADA, "seconds": 60, "cid": "1"} | given
        error = await dan.refused(**frame)
        assert error["code"] == code
        assert re.search(message, error["message"])
        assert server._sanctions is not None
        assert len(server._sanctions) == 0
        await sanction(dan, what, ADA, SANCTION_SECONDS)


async def test_only_moderators_may_and_an_unknown_author_is_answered_alike(
    server: Server, provider: Provider
) -> None:
    async with client(server, provider, "eve") as eve, moderator(server, provider) as dan:
        await eve.join("lobby")
        for author in (BOB, author_of(provider, "dan"), author_of(provider, "eve"), "x"):
            frame = {"type": "ban", "room": "lobby", "author": author, "seconds": 1, "cid": "1"}
            wanted = {"type": "error", "code": "not_moderator", "cid": "1", "room": "lobby"}
            wanted["message"] = "You are not a moderator of lobby."
            assert await eve.refused(**frame) == wanted
        await sanction(dan, "ban", BOB, 60)
        await eve.send("lobby", "still here")


async def test_where_it_is_off_nobody_may(
    replica: Replica, environment: dict[str, str], provider: Provider
) -> None:
    server = await replica(environment, CHAT_SANCTIONS="false")
    async with moderator(server, provider) as dan:
        assert "sanctions" not in dan.welcome
        frame = {"type": "ban", "room": "lobby", "author": ADA, "seconds": 1, "cid": "1"}
        assert (await dan.refused(**frame))["code"] == "bad_frame"
    on = await replica(environment)
    async with moderator(on, provider) as dan:
        assert dan.welcome["sanctions"] is True
    # Whose rights are their own takes memory.
    async with client(server, provider, "ada"), client(server, provider, "bob"):
        ada, bob = server._clients.values()
        assert ada.rights is bob.rights
    with pytest.raises(SettingsError, match="CHAT_SANCTIONS='true': with CHAT_AUTH=off"):
        load({"CHAT_SANCTIONS": "true"})
    with pytest.raises(SettingsError, match="KAFKA_SANCTION_TOPIC='chat'"):
        load({"KAFKA_SANCTION_TOPIC": "chat"})


async def test_the_log_says_who_did_what_to_whom_and_neither_names_nor_texts(
    server: Server, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    eve, by = author_of(provider, "eve"), author_of(provider, "dan")
    async with moderator(server, provider) as dan:
        await dan.send("lobby", "some words")
        await sanction(dan, "mute", eve, 60)
        await sanction(dan, "ban", eve, 0)
    lines = [one.getMessage() for one in caplog.records if one.name == "chat.sanctions"]
    assert re.fullmatch(rf"mute: {eve} in lobby until 20\S+\+00:00, by {by}", lines[0])
    assert lines[1:] == [f"lifted: {eve} in lobby, by {by}"]
    assert not re.search(r"\b(eve|dan)\b|words", caplog.text)


async def test_a_bot_moderates_and_is_told_what_it_may_not(
    server: Server, provider: Provider
) -> None:
    url = f"http://127.0.0.1:{server.port}/"
    async with (
        connect(url, token=provider.token("dan", groups=["desk"])) as bot,
        connect(url, token=provider.token("eve")) as eve,
    ):
        lobby, hers = bot.room("lobby"), eve.room("lobby")
        await lobby.joined()
        await hers.joined()
        await lobby.mute(eve.author, 60)
        await until(lambda: hers.read_only)
        await lobby.mute(eve.author, 0)
        await until(lambda: not hers.read_only)
        for author, code in ((bot.author, ErrorCode.BAD_AUTHOR), ("x", ErrorCode.BAD_AUTHOR)):
            with pytest.raises(RefusedError) as refused:
                await lobby.ban(author, 60)
            assert refused.value.code is code
        with pytest.raises(RefusedError) as refused:
            await hers.ban(bot.author, 60)
        assert refused.value.code is ErrorCode.NOT_MODERATOR
        await lobby.ban(eve.author, 60)
        with pytest.raises(RefusedError) as refused:
            await anext(hers)
        assert refused.value.code is ErrorCode.BAD_ROOM


async def test_a_bot_never_bans_twice_what_another_moderator_may_have_lifted(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[int] = []

    async def never(*asked: Any) -> None:
        put.append(asked[3])
        if len(put) == 1:
            raise RefusedError(ErrorCode.UNAVAILABLE, "It may count, or not.")
        await asyncio.Event().wait()

    assert server._sanctions is not None
    monkeypatch.setattr(server._sanctions, "put", never)
    url = f"http://127.0.0.1:{server.port}/"
    async with connect(url, token=provider.token("dan", groups=["desk"])) as bot:
        lobby = bot.room("lobby")
        await lobby.joined()
        with pytest.raises(RefusedError, match="It may count, or not"):
            await lobby.ban(ADA, 60)
        waiting = asyncio.create_task(lobby.ban(ADA, 120))
        await until(lambda: len(put) == 2)
        (session,) = server._clients.values()
        session.connection.close(CloseCode.RESTART, "the connection breaks")
        with pytest.raises(DisconnectedError, match="it may count, or not"):
            await waiting
        await bot.send("lobby", "I am back")
    assert put == [60, 120]


# The register.


class Deaf(MemoryRegister):
    """Stores, and gives back only what a test hands over."""

    take: Take
    begin: Note
    whole: Note

    async def start(self, take: Take, *, begin: Note = ignore, whole: Note = ignore) -> None:
        self.take, self.begin, self.whole = take, begin, whole


def record(author: str, until: float, what: str = "ban", room: str = "lobby", **more: Any) -> bytes:
    read = {"v": 1, "room": room, "author": author, "what": what, "until": until, "by": DAN}
    return json.dumps(read | more).encode()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class World:
    """Sanctions of a register that does as the test says."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.register = Deaf()
        self.sanctions = Sanctions(self.register, clock)
        self.told: list[tuple[str, Set[str]]] = []

    async def start(self) -> None:
        await self.sanctions.start(lambda room, authors: self.told.append((room, set(authors))))

    def take(self, *values: bytes, ts: float | None = None) -> None:
        ms = round(1000 * (self.clock.now if ts is None else ts))
        self.register.take([Kept(ms, value) for value in values])

    def may(self, author: str, room: str = "lobby", *groups: str) -> str:
        rules = Rules(parse(json.dumps(RULES)))
        its = self.sanctions.rights(author, rules.rights(frozenset(groups)))
        return "r" * its.may_read(room) + "w" * its.may_write(room)


@pytest.fixture
async def world(clock: Clock) -> World:
    one = World(clock)
    await one.start()
    return one


async def test_each_counts_in_its_room_for_its_person_until_it_ends(
    world: World, clock: Clock
) -> None:
    world.take(record(ADA, clock.now + 60), record(BOB, clock.now + 90, "mute"))
    assert [world.may(one) for one in (ADA, BOB, DAN)] == ["", "r", "rw"]
    assert world.may(ADA, "garden") == world.may(ADA, "LOBBY") == "rw"
    assert world.may(ADA, "lobby", "desk") == world.may(BOB, "lobby", "desk") == "rw"
    clock.now += 60
    assert [world.may(one) for one in (ADA, BOB)] == ["rw", "r"], "also before the timer"
    clock.now += 30
    assert world.may(BOB) == "rw"


async def test_one_timer_tells_of_each_end(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.01)
    loop = asyncio.get_running_loop()
    timers = []
    later = loop.call_later
    monkeypatch.setattr(
        loop, "call_later", lambda *arguments: timers.append(later(*arguments)) or timers[-1]
    )
    authors = [f"{n:032x}" for n in range(100)]
    world.take(*(record(one, clock.now + 60 + n // 50) for n, one in enumerate(authors)))
    world.take(record(BOB, clock.now + 600))
    world.told.clear()
    clock.now += 60
    await until(lambda: world.told)
    clock.now += 1
    await until(lambda: len(world.told) == 2)
    assert world.told == [("lobby", set(authors[:50])), ("lobby", set(authors[50:]))]
    assert len(world.sanctions) == 1
    waiting = [one for one in timers if not one.cancelled() and one.when() > loop.time()]
    assert len([one for one in waiting if "_expire" in repr(one)]) <= 1
    world.take(record(BOB, 0))
    await world.sanctions.stop()


async def test_many_that_end_at_once_do_not_hold_up_everybody_else(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(module, "ENDS_IN_A_TURN", 10)
    authors = [f"{n:032x}" for n in range(35)]
    world.take(*(record(one, clock.now + 60) for one in authors))
    turns: list[tuple[int, int, Set[str]]] = []

    def note(_room: str, told: Set[str]) -> None:
        turns.append((len(told), len(world.sanctions), {world.may(one) for one in authors}))

    monkeypatch.setattr(world.sanctions, "_on_changed", note)
    clock.now += 60
    await until(lambda: len(world.sanctions) == 0)
    # Those who have not been removed yet may write, too.
    assert turns == [(10, 25, {"rw"}), (10, 15, {"rw"}), (10, 5, {"rw"}), (5, 0, {"rw"})]


async def test_many_that_have_ended_do_not_hold_up_everybody_when_one_more_is_made(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST", 35)
    monkeypatch.setattr(module, "MOST_EVERYWHERE", 5)
    monkeypatch.setattr(module, "ENDS_IN_A_TURN", 10)
    ended = [f"{n:032x}" for n in range(35)]
    banned = [f"{n:032x}" for n in range(100, 105)]
    world.take(*(record(one, clock.now + 60) for one in ended))
    world.take(record(BOB, clock.now + 61, room="*"))
    world.take(*(record(one, clock.now + 600, room="*") for one in banned[1:]))
    world.told.clear()
    clock.now += 61
    # Before the timer has noticed: one too many in rooms, and one too many from the whole chat.
    world.take(record(ADA, clock.now + 60))
    world.take(record(banned[0], clock.now + 60, room="*"))
    assert [len(told) for _, told in world.told] == [11, 1, 10]
    assert len(world.sanctions) == 22, "the others are removed in later turns"
    assert world.may(ADA) == ""
    assert all(world.sanctions.of("*", one) for one in banned), "none is forgotten for them"
    await until(lambda: len(world.sanctions) == 6)
    assert caplog.messages == []


async def test_what_is_read_again_after_a_fault_brings_nothing_back_that_was_ended(
    world: World, clock: Clock
) -> None:
    end = clock.now + 60
    history = [record(ADA, end), record(BOB, end), record(ADA, 0), record(DAN, end, "mute")]
    world.register.begin()
    world.take(*history)
    assert (len(world.sanctions), world.told) == (0, []), "not before it is whole"
    world.register.whole()
    assert [world.may(one) for one in (ADA, BOB, DAN)] == ["rw", "", "r"]
    assert world.told == [("lobby", {BOB, DAN})]
    world.told.clear()
    world.register.begin()
    for value in history[:2]:
        world.take(value)
        assert [world.may(one) for one in (ADA, BOB, DAN)] == ["rw", "", "r"]
    # Another fault, and another topic, from which one was lost.
    world.register.begin()
    world.take(*history[2:], record(ADA, end, "mute"))
    world.register.whole()
    assert [world.may(one) for one in (ADA, BOB, DAN)] == ["r", "rw", "r"]
    assert world.told == [("lobby", {ADA, BOB})]
    world.take(record(BOB, end))
    assert world.may(BOB) == ""


async def test_what_others_write_is_skipped_and_counted(world: World, clock: Clock) -> None:
    end = clock.now + 60
    bad: list[bytes] = [
        b"\x00\xff",
        b"[" * 900,
        b'{"v":1}',
        record(ADA, end, v=2),
        record(ADA, end, "shadow"),
        record(ADA, -1),
        record(ADA, 2**60),
        record(ADA, 1e9 + 0.5),
        record(ADA, clock.now + SANCTION_SECONDS + 700),
        record("everybody", end),
        record(f"{ADA}\n", end),
        record(ADA, end, room="no room"),
        record(ADA, end, room="x" * 65),
        record(ADA, end, room=f"private-{'a' * 32}"),
        record(ADA, end, by="me"),
        record(ADA, end, more="x" * MOST_BYTES),
    ]
    world.take(*bad, b"")
    assert world.sanctions.foreign == len(bad)
    assert (len(world.sanctions), world.told) == (0, [])
    world.take(record(ADA, clock.now + SANCTION_SECONDS, more="of a later release"))
    assert world.may(ADA) == ""
    world.take(b"")
    assert world.may(ADA) == "", "what has no content ends nothing"
    world.take(record(ADA, clock.now - 1))
    assert world.may(ADA) == "rw"


async def test_those_that_end_first_are_forgotten_if_there_are_too_many(
    world: World,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "MOST", 20)
    authors = [f"{n:032x}" for n in range(21)]
    world.take(*(record(one, clock.now + 60 + n) for n, one in reversed([*enumerate(authors)])))
    assert [n for n, one in enumerate(authors) if world.may(one)] == [0, 1, 2]
    assert len(world.sanctions) == 18
    assert "more than 20 sanctions: the 3 that end first are forgotten, until 2027" in caplog.text
    told = world.told[0][1]
    assert set(authors) <= told, "they get their rights back at once"
    caplog.clear()
    clock.now += 60 + 18
    world.take(*(record(f"{n:032x}", clock.now + 99) for n in range(30, 37)))
    assert (len(world.sanctions), caplog.messages) == (9, [])
    assert [one for one in authors if not world.may(one)] == authors[19:]


async def test_what_could_not_be_kept_is_refused_and_forgets_nothing(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    monkeypatch.setattr(module, "MOST_IN_ROOM", 2)
    world.take(record(ADA, clock.now + 60), record(BOB, clock.now + 60))
    with pytest.raises(RefusedError, match="2 people are muted or banned in this room: lift some"):
        await world.sanctions.put("ban", "lobby", DAN, 99, DAN)
    world.take(record(DAN, clock.now + 60, room="hall"))
    with pytest.raises(RefusedError, match="3 people are muted or banned here: lift some"):
        await world.sanctions.put("ban", "den", DAN, 99, DAN)
    assert world.sanctions._put == {}
    # What replaces another, or ends it, needs no place.
    for seconds in (99, 0):
        put = asyncio.create_task(world.sanctions.put("ban", "lobby", ADA, seconds, DAN))
        await until(lambda: world.sanctions._put)
        world.take(*world.sanctions._put)
        await put
    assert [world.may(one) for one in (ADA, BOB)] == ["rw", ""]


async def test_a_moderator_makes_only_so_many(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BURST", 3)
    people = Sanctions(MemoryRegister(), clock)
    await people.start(lambda _, __: None)
    for n in range(3):
        await people.put("mute", "lobby", f"{n:032x}", 60, DAN)
    for seconds in (60, 0):
        with pytest.raises(RefusedError) as refused:
            await people.put("mute", "lobby", ADA, seconds, DAN)
        assert refused.value.code is ErrorCode.RATE_LIMITED
    await people.put("mute", "lobby", ADA, 60, BOB)
    assert len(people) == 4
    await people.stop()


async def test_it_is_answered_when_this_replica_obeys_or_not_at_all(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = asyncio.create_task(world.sanctions.put("ban", "lobby", ADA, 60, DAN))
    await asyncio.sleep(0.05)
    assert not put.done()
    world.take(record(BOB, clock.now + 60))
    (value,) = world.sanctions._put
    world.take(value)
    await put
    assert world.may(ADA) == ""
    # It is read while everything is read again, and counts when that is whole.
    put = asyncio.create_task(world.sanctions.put("mute", "lobby", ADA, 60, DAN))
    await until(lambda: world.sanctions._put)
    world.register.begin()
    world.take(*world.sanctions._put)
    (counts,) = world.sanctions._put.values()
    assert not counts.done()
    world.register.whole()
    await put
    assert world.may(ADA) == "r"
    # One that this replica takes for another's, because its clock is ahead, does not count.
    monkeypatch.setattr(agreed, "BACK_SECONDS", 0.01)
    put = asyncio.create_task(world.sanctions.put("ban", "lobby", ADA, 60, DAN))
    await asyncio.sleep(0)
    world.take(*world.sanctions._put, ts=clock.now - 2 * SANCTION_SECONDS)
    with pytest.raises(RefusedError, match="does not give it back"):
        await put
    with pytest.raises(RefusedError, match="does not give it back") as refused:
        await world.sanctions.put("ban", "lobby", DAN, 60, BOB)
    assert refused.value.code is ErrorCode.UNAVAILABLE

    async def away(*_: object) -> None:
        raise UnavailableError("Kafka did not take it.")

    monkeypatch.setattr(world.register, "put", away)
    with pytest.raises(RefusedError, match="did not take it") as refused:
        await world.sanctions.put("ban", "lobby", DAN, 60, BOB)
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert world.may(DAN) == "rw"
    assert world.sanctions._put == {}, "nothing is kept"


async def test_a_replica_is_not_ready_and_lets_nobody_in_before_it_knows_who_is_banned(
    replica: Replica,
    environment: dict[str, str],
    provider: Provider,
    kafka: dict[str, str],
    kafka_admin: KafkaAdminClient,
) -> None:
    name = kafka["KAFKA_TOPIC"] + "-later"
    server = await replica(kafka, environment, {"KAFKA_SANCTION_TOPIC": name}, ready=False)
    await until(lambda: "sanctions" in server.look_ready())
    await until(lambda: f"there is no topic {name}: create it" in server.look_ready())
    answer = await session(server, **provider.headers())
    assert (answer.code, b"sanctions of moderators are not read" in answer.body) == (503, True)
    kafka_admin.create_topics({name: {"num_partitions": PARTITIONS, "configs": {}}})
    await until(
        lambda: "retention.ms=604800000: set it to at least 31622700000" in server.look_ready()
    )


async def test_a_topic_that_is_read_again_says_so(
    kafka: dict[str, str], kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = threading.Event()
    monkeypatch.setattr(kafka_register, "note_interruptions", lambda _: fault)
    monkeypatch.setattr(kafka_register, "AGAIN_SECONDS", 0.01)
    register = kafka_register.KafkaRegister(
        [kafka_broker.bootstrap_servers],
        kafka["KAFKA_SANCTION_TOPIC"],
        client_id="test",
        keep_seconds=60,
    )
    told: list[object] = []
    await register.start(
        lambda values: told.extend(one.value for one in values),
        begin=lambda: told.append("begin"),
        whole=lambda: told.append("whole"),
    )
    try:
        await until(lambda: register.caught_up)
        for value in (b"1", b"2"):
            await register.put("key", value)
        await until(lambda: told == ["begin", "whole", b"1", b"2"])
        fault.set()
        await until(lambda: told[4:5] == ["begin"])
        fault.clear()
        await until(lambda: told[-1] == "whole")
        assert told[-4:] == ["begin", b"1", b"2", "whole"]
    finally:
        await register.stop()


async def test_what_others_write_to_the_topic_stops_no_replica(
    replica: Replica,
    environment: dict[str, str],
    provider: Provider,
    kafka: dict[str, str],
    kafka_broker: KafkaBroker,
) -> None:
    def produce(*values: bytes | None) -> None:
        producer = KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers)
        with contextlib.closing(producer):
            for value in values:
                topic = sanctions_of(kafka["KAFKA_TOPIC"])
                producer.send(topic, key=b"x", value=value, partition=0).get(10)

    ada, eve = author_of(provider, "ada"), author_of(provider, "eve")
    bad = [b"\x00\xff", record(ada, time.time() + 2 * SANCTION_SECONDS), b"x" * 900_000]
    produce(*bad, None)
    server = await replica(kafka, environment)
    async with client(server, provider, "ada") as one, client(server, provider, "eve") as other:
        for joining in (one, other):
            await joining.join("lobby")
        produce(*bad, None, record(eve, int(time.time()) + 600))
        await put_out(other)
        await one.send("lobby", "still here")
    assert server._sanctions is not None
    assert server._sanctions.foreign == 2 * len(bad)
    assert f"chat_foreign_sanctions_total {2.0 * len(bad)}".encode() in server.metrics_text()
