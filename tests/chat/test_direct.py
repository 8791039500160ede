"""Direct rooms: two people write to each other, and nobody else gets in, on all replicas."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine
from typing import Any

import pytest
from conftest import Replica, until
from provider import Provider
from test_api_send import send as post
from test_members import (
    ANN,
    BOB,
    DAN,
    EVE,
    KAFKA_SECONDS,
    PEOPLE,
    Cluster,
    Shared,
    Steps,
    ask,
    every_way,
    play,
    removed,
    shown,
    with_any_steps,
)
from test_rights import client
from test_sanctions import author_of

from chat import members as module
from chat.bounds import PRIVATE_ROOM
from chat.client import Chat, DisconnectedError, Message, RefusedError, connect
from chat.members import Members, Role, Secret, State
from chat.protocol import CloseCode, ErrorCode
from chat.rights import ALL
from chat.server import Server


@pytest.fixture
async def cluster() -> Cluster:
    return await Cluster().start()


@pytest.fixture
def environment(provider: Provider) -> dict[str, str]:
    return provider.environment() | {"CHAT_PRIVATE_ROOMS": "true", "CHAT_REVISIONS": "true"}


async def refused(cluster: Cluster, code: ErrorCode, what: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(RefusedError) as why:
        await cluster.do(what)
    assert why.value.code is code
    return why.value.message


async def test_two_who_open_it_at_once_on_two_replicas_get_the_same_room(cluster: Cluster) -> None:
    one, other = cluster.replicas
    tries = [asyncio.create_task(one.open(BOB, ANN)), asyncio.create_task(other.open(ANN, BOB))]
    await cluster.settle()
    await cluster.settle()
    room = one._table.direct_room(ANN, BOB)
    assert await asyncio.gather(*tries) == [room, room]
    assert module.re.fullmatch(PRIVATE_ROOM, room)
    for replica in cluster.replicas:
        assert [replica.role(room, who) for who in (ANN, BOB, DAN)] == [Role.MEMBER] * 2 + [None]
        assert replica.listed(BOB, "1").direct == {room: ANN}
        assert replica.partner(room, DAN) == ""
    before = len(cluster.log.records)
    assert await cluster.do(other.open(BOB, ANN)) == room
    assert len(cluster.log.records) == before, "it is open"


async def test_nobody_computes_the_name_of_a_room_from_both_authors(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = cluster.replicas
    room = await cluster.do(one.open(BOB, ANN))
    elsewhere = await Cluster(1).start()
    assert await elsewhere.do(elsewhere.replicas[0].open(BOB, ANN)) != room
    # The first secret counts for good.
    second = Secret(1, "0" * 16, "0" * 32)
    for key in (second.key, "secret:x"):
        cluster.log.append(key, module._encoder.encode(second), 0)
    first = next(one for one in cluster.log.history if one.key.startswith(b"secret:"))
    cluster.log.append(first.key.decode(), b"", 0)
    await cluster.settle()
    assert one.foreign == 1
    dan = await cluster.do(one.open(DAN, ANN))
    late = await Cluster(1).start()
    late.registers[0].log = cluster.log
    late.registers[0].again()
    assert late.replicas[0].rooms(ANN) == sorted((room, dan)) == other.rooms(ANN)
    # Without Kafka, no other is made.
    monkeypatch.setattr(Shared, "away", "no broker answers")
    late = await Cluster(1).start()
    await refused(late, ErrorCode.UNAVAILABLE, late.replicas[0].open(BOB, ANN))
    assert late.registers[0].puts == []


async def test_nobody_else_gets_in_whoever_asks(cluster: Cluster) -> None:
    one = cluster.replicas[0]
    room = await cluster.do(one.open(BOB, ANN))
    for what in (
        one.invite(room, ANN, 60, 1),
        one.promote(room, BOB, ANN),
        one.remove(room, BOB, ANN),
        one.revoke(room, DAN, BOB),
    ):
        await refused(cluster, ErrorCode.NOT_MODERATOR, what)
    await refused(cluster, ErrorCode.NO_INVITATION, one.accept(f"{room}.x", DAN))
    # Also not by a record that no chat writes.
    state = one._table.get(room)
    assert state is not None
    read = json.loads(module._encoder.encode(state)) | {"version": 9}
    forged: list[dict[str, Any]] = [
        {"members": [ANN, DAN]},
        {"members": [ANN, BOB, DAN]},
        {"owners": [ANN], "members": [BOB]},
        {"pair": [ANN, DAN], "members": [ANN, DAN]},
        {"pair": [ANN]},
        {"pair": [ANN, BOB, DAN]},
        {"blocked": [DAN]},
        {"invitations": [{"id": DAN, "by": ANN, "until": 2**40, "left": 1}]},
    ]
    for fields in forged:
        cluster.log.append(f"{room}:9:{state.id}", json.dumps(read | fields).encode(), 0)
    await cluster.settle()
    assert one.foreign == len(forged)
    assert shown(one) == {room: state}


async def test_who_leaves_leaves_the_other_one_reading_and_either_opens_it_again(
    cluster: Cluster,
) -> None:
    one, other = cluster.replicas
    room = await cluster.do(one.open(BOB, ANN))
    rights = [one.rights(who, ALL) for who in (ANN, BOB)]
    for leaves, stays, opens in ((ANN, BOB, BOB), (BOB, ANN, BOB)):
        asked = stays if opens == leaves else leaves
        cluster.told.clear()
        await cluster.do(other.remove(room, leaves, leaves))
        assert cluster.told == [(room, {ANN, BOB})] * 2, "what both may do has changed"
        assert (one.role(room, leaves), one.role(room, stays)) == (None, Role.READER)
        assert [who.may_read(room) for who in rights] == [stays == ANN, stays == BOB]
        assert not any(who.may_write(room) or who.may_moderate(room) for who in rights)
        assert one.listed(stays, "1").direct == {room: leaves}
        assert await cluster.do(one.open(asked, opens)) == room
        assert all(who.may_write(room) for who in rights)
    for who in (ANN, BOB):
        await cluster.do(one.remove(room, who, who))
    cluster.clock.now += module.ENDED_SECONDS
    assert one.count(direct=True) == 1, "for a day"
    cluster.clock.now += 1
    assert one.count(direct=True) == 0
    assert await cluster.do(other.open(ANN, BOB)) == room
    assert one.count(direct=True) == 1


async def test_nobody_writes_directly_while_one_of_the_two_blocks_the_other(
    cluster: Cluster,
) -> None:
    one, other = cluster.replicas
    room = await cluster.do(one.open(BOB, ANN))
    rights = [other.rights(who, ALL) for who in (ANN, BOB)]
    await cluster.do(one.block(BOB, ANN, blocked=True))
    for who in rights:
        assert (who.may_read(room), who.may_write(room)) == (True, False)
    assert [other.listed(who, "").blocked for who in (ANN, BOB)] == [[BOB], []]
    assert [other.listed(who, "").direct for who in (ANN, BOB)] == [{room: BOB}, {room: ANN}]
    before = len(cluster.log.records)
    await cluster.do(other.block(BOB, ANN, blocked=True))
    assert len(cluster.log.records) == before, "nothing is to change"
    # Both may block, and each ends their own.
    await cluster.do(other.block(ANN, BOB, blocked=True))
    await cluster.do(one.block(BOB, ANN, blocked=False))
    message = await refused(cluster, ErrorCode.BAD_AUTHOR, one.open(BOB, ANN))
    assert message == "This person is not available."
    message = await refused(cluster, ErrorCode.BAD_AUTHOR, one.open(ANN, BOB))
    assert message == "You block this person: end that first."
    # Also who leaves goes on blocking.
    await cluster.do(other.remove(room, BOB, BOB))
    assert one.listed(BOB, "").blocked == [ANN]
    await refused(cluster, ErrorCode.BAD_AUTHOR, one.open(BOB, ANN))
    await cluster.do(one.block(ANN, BOB, blocked=False))
    assert await cluster.do(one.open(BOB, ANN)) == room
    assert all(who.may_write(room) for who in rights)
    # After the room has ended, its record is there for who blocks.
    for who in (ANN, BOB):
        await cluster.do(one.remove(room, who, who))
    await cluster.do(one.block(ANN, BOB, blocked=True))
    assert shown(other)[room].pair == [BOB, ANN]


async def test_a_block_without_a_room_lasts_until_it_is_ended(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = cluster.replicas
    await cluster.do(one.block(BOB, ANN, blocked=False))
    assert shown(other) == {}
    await cluster.do(one.block(BOB, ANN, blocked=True))
    for who in (ANN, BOB):
        assert (other.rooms(who), other.count(direct=True), other.blocks) == ([], 1, 1)
    message = await refused(cluster, ErrorCode.BAD_AUTHOR, other.open(ANN, BOB))
    assert message == "This person is not available."
    cluster.clock.now += module.ENDED_SECONDS + 1
    await cluster.do(one.open(EVE, DAN))
    for register in cluster.registers:
        register.again()
    assert other.listed(ANN, "").blocked == [BOB]
    # They count for who blocks, and for nobody else.
    monkeypatch.setattr(module, "MOST_DIRECT_OF_ONE", 1)
    await refused(cluster, ErrorCode.TOO_MANY_ROOMS, one.block(EVE, ANN, blocked=True))
    await refused(cluster, ErrorCode.TOO_MANY_ROOMS, one.open(EVE, ANN))
    monkeypatch.setattr(module, "MOST_DIRECT", 2)
    await refused(cluster, ErrorCode.FULL, one.block(EVE, BOB, blocked=True))
    await cluster.do(one.block(ANN, BOB, blocked=True))
    for blocked, by in ((ANN, BOB), (BOB, ANN)):
        await cluster.do(one.block(blocked, by, blocked=False))
    assert other.listed(ANN, "").blocked == other.listed(BOB, "").blocked == []
    cluster.clock.now += module.ENDED_SECONDS + 1
    await cluster.do(one.block(EVE, BOB, blocked=True))


async def test_blocks_leave_places_for_rooms_however_many_people_block(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = cluster.replicas
    monkeypatch.setattr(module, "MOST_BLOCKS", 1)
    await cluster.do(one.block(BOB, ANN, blocked=True))
    message = await refused(cluster, ErrorCode.FULL, other.block(EVE, DAN, blocked=True))
    assert message == "As many people without a direct room are blocked here as may be."
    room = await cluster.do(other.open(EVE, DAN))
    await cluster.do(one.block(EVE, DAN, blocked=True))
    assert (one.count(direct=True), one.blocks) == (2, 1)
    for who in (EVE, DAN):
        await cluster.do(one.remove(room, who, who))
    assert one.blocks == 2
    # A person blocks only so many, with a room or without.
    monkeypatch.setattr(module, "MOST_BLOCKS", 9)
    monkeypatch.setattr(module, "MOST_BLOCKS_OF_ONE", 1)
    await cluster.do(one.open(ANN, DAN))
    message = await refused(cluster, ErrorCode.TOO_MANY_ROOMS, one.block(ANN, DAN, blocked=True))
    assert message == "You block 1 people: end that for some."
    await cluster.do(one.block(EVE, DAN, blocked=False))
    await cluster.do(one.block(ANN, DAN, blocked=True))
    assert one.blocks == 1


async def test_a_person_blocks_only_so_many_without_a_room_in_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "OPEN_BURST", 2)
    cluster = await Cluster(1).start()
    one = cluster.replicas[0]
    room = await cluster.do(one.open(BOB, ANN))
    await cluster.do(one.block(DAN, ANN, blocked=True))
    message = await refused(cluster, ErrorCode.RATE_LIMITED, one.block(EVE, ANN, blocked=True))
    assert "in 180 seconds" in message
    # Whoever is there already is blocked at once.
    for blocked in (True, False, True):
        await cluster.do(one.block(BOB, ANN, blocked=blocked))
    assert one.role(room, BOB) is Role.READER


@with_any_steps
async def test_all_replicas_agree_whatever_is_read_when_and_how_often(steps: Steps) -> None:
    cluster = await Cluster(3).start()

    def attempt(replica: Members, who: str, choice: random.Random) -> Coroutine[Any, Any, Any]:
        other = choice.choice([one for one in PEOPLE[:3] if one != who])
        number = choice.random()
        if number < 0.5:
            return replica.open(other, who)
        if number < 0.8:
            return replica.block(other, who, blocked=number < 0.6)
        return replica.remove(replica._table.direct_room(who, other), who, who)

    tried = await play(cluster, steps, attempt)
    for task, who in tried.items():
        if task.get_coro().__name__ == "open" and not task.exception():  # type: ignore[union-attr]
            states = cluster.log.counted(task.result())
            assert any(len(one.members) == 2 and who in one.members for one in states)


async def test_what_would_be_too_much_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = cluster.replicas
    monkeypatch.setattr(module, "MOST_DIRECT_OF_ONE", 1)
    room = await cluster.do(one.open(BOB, ANN))
    message = await refused(cluster, ErrorCode.TOO_MANY_ROOMS, other.open(DAN, ANN))
    assert "Leave some" in message
    # Nothing tells that somebody else has too many.
    message = await refused(cluster, ErrorCode.BAD_AUTHOR, other.open(ANN, DAN))
    assert message == "This person is not available."
    # Whoever opened a room has it until it has ended.
    await cluster.do(one.remove(room, ANN, ANN))
    await refused(cluster, ErrorCode.TOO_MANY_ROOMS, other.open(DAN, ANN))
    await cluster.do(one.open(ANN, BOB))
    assert shown(one)[room].pair == [ANN, BOB]
    await cluster.do(one.remove(room, BOB, BOB))
    monkeypatch.setattr(module, "MOST_PLACES", 0)
    await cluster.do(one.open(DAN, BOB))
    monkeypatch.setattr(module, "MOST_PLACES", 9)
    monkeypatch.setattr(module, "MOST_DIRECT_OF_ONE", 9)
    monkeypatch.setattr(module, "MOST_DIRECT", 2)
    message = await refused(cluster, ErrorCode.FULL, one.open(EVE, ANN))
    assert "as many direct rooms" in message
    # Other rooms are counted by themselves.
    monkeypatch.setattr(module, "MOST_ROOMS", 1)
    monkeypatch.setattr(module, "MOST_OF_ONE", 1)
    await cluster.room()
    await refused(cluster, ErrorCode.TOO_MANY_ROOMS, one.make(ANN))
    assert (one.count(direct=False), one.count(direct=True), one._table.places) == (1, 2, 2)
    for n in range(9):
        pair = [ANN, f"{n:032x}"]
        state = State(1, one._table.direct_room(*pair), 1, "0" * 16, ANN, [], pair, [], pair)
        cluster.log.append(state.key, module._encoder.encode(state), cluster.clock())
    await cluster.settle()
    assert (one.count(direct=True), one.foreign) == (4, 7)


async def test_a_person_opens_only_so_many_in_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_BURST", 2)
    cluster = await Cluster(1).start()
    one = cluster.replicas[0]
    for other in (BOB, DAN):
        await cluster.do(one.open(other, ANN))
    message = await refused(cluster, ErrorCode.RATE_LIMITED, one.open(EVE, ANN))
    assert "in 180 seconds" in message
    for other in (BOB, DAN) * 100:
        await cluster.do(one.open(other, ANN))
    await cluster.do(one.open(BOB, EVE))


# The service.


async def test_two_people_write_to_each_other_and_are_told_on_all_replicas(
    replica: Replica, environment: dict[str, str], provider: Provider, kafka: dict[str, str]
) -> None:
    one, other = [await replica(kafka, environment) for _ in range(2)]
    ann_author, bob_author = author_of(provider, "ann"), author_of(provider, "bob")
    async with (
        client(one, provider, "ann") as ann,
        client(other, provider, "ann") as tab,
        client(other, provider, "bob") as bob,
        client(other, provider, "eve") as eve,
    ):
        room = (await ask(ann, "direct", author=bob_author))["id"]
        for who, author in ((ann, bob_author), (tab, bob_author), (bob, ann_author)):
            told = await who.hear("direct")
            listed = await ask(who, "rooms")
            assert (told["author"], listed["direct"]) == (author, {room: author})
            # Bob has not come yet.
            known = "ann" if who is bob else None
            assert (told.get("user"), listed["names"].get(author)) == (known, known)
        assert (await ask(bob, "direct", author=ann_author))["id"] == room
        joined = await bob.join(room)
        assert (joined["read_only"], "moderator" in joined) == (False, False)
        await ann.join(room)
        of = (await ann.send(room, "hello Bob"))["id"]
        assert (await bob.hear("message"))["text"] == "hello Bob"
        assert (await bob.refused(type="delete", room=room, id=of, cid="1"))["code"] == "no_message"
        listed = await ask(bob, "members", room=room)
        assert (listed["owners"], {*listed["members"]}) == ([], {ann_author, bob_author})
        assert listed["names"] == {ann_author: "ann"}
        await ask(bob, "remove", room=room, author=bob_author)
        await removed(room, bob)
        assert (await ann.hear("access"))["read_only"] is True
        assert (await ann.refused(type="send", room=room, text="?", cid="2"))["code"] == "read_only"
        await ask(ann, "direct", author=bob_author)
        assert (await bob.hear("direct"))["room"] == room
        assert (await ann.hear("access"))["read_only"] is False
        assert (await bob.join(room))["messages"][0]["text"] == "hello Bob"
        await eve.say(type="ping")
        await eve.hear("pong")
        assert eve.inbox == []
    for server in (one, other):
        members = server._members
        assert members
        await until(lambda members=members: not members._watchers)
    await asyncio.gather(one.drain(), other.drain())
    third = await replica(kafka, environment)
    assert b"chat_direct_rooms 1.0" in third.metrics_text()
    async with client(third, provider, "bob") as bob:
        assert (await ask(bob, "rooms"))["direct"] == {room: ann_author}
        assert (await bob.join(room))["messages"][0]["text"] == "hello Bob"


async def test_a_blocked_person_is_told_nothing_and_writes_on_no_way(
    server: Server, provider: Provider
) -> None:
    async with client(server, provider, "ann") as ann, client(server, provider, "bob") as bob:
        bob_author = author_of(provider, "bob")
        room = (await ask(ann, "direct", author=bob_author))["id"]
        for who in (ann, bob):
            await who.join(room)
        await bob.hear("direct")
        of = (await bob.send(room, "hello"))["id"]
        await ask(ann, "block", author=bob_author, blocked=True)
        for who in (ann, bob):
            access = await who.hear("access")
            assert access == {"type": "access", "room": room, "read_only": True}
        for frame in (
            {"type": "send", "text": "hello?"},
            {"type": "edit", "id": of, "text": "hello?"},
        ):
            assert (await bob.refused(**frame, room=room, cid="1"))["code"] == "read_only"
        headers = provider.headers("bob")
        assert (await post(server, {"text": "?", "cid": "2"}, room, **headers))[0] == 403
        # What he wrote, he may take back.
        await bob.say(type="delete", room=room, id=of, cid="d")
        assert (await bob.hear("ack", cid="d"))["id"] == of
        await bob.say(type="typing", room=room)
        listed = await ask(bob, "rooms")
        assert (listed["direct"], listed["blocked"]) == ({room: ann.welcome["author"]}, [])
        error = await bob.refused(type="direct", author=ann.welcome["author"], cid="3")
        assert (error["code"], error["message"]) == ("bad_author", "This person is not available.")
        assert (await ask(ann, "rooms"))["blocked"] == [bob_author]
        # It is as if the other one had left.
        await ask(ann, "block", author=bob_author, blocked=False)
        assert (await bob.hear("access"))["read_only"] is False
        await bob.hear("direct", room=room)
        await bob.send(room, "hello!")
        assert "typing" not in {frame["type"] for frame in ann.inbox}
        for author in (ann.welcome["author"], "x"):
            frame = {"type": "block", "author": author, "blocked": True, "cid": "4"}
            assert (await ann.refused(**frame))["code"] == "bad_author"


async def test_who_is_not_one_of_the_two_gets_the_answers_for_a_name_that_no_room_can_have(
    server: Server, provider: Provider
) -> None:
    async with client(server, provider, "ann") as ann, client(server, provider, "bob") as bob:
        left = (await ask(ann, "direct", author=author_of(provider, "eve")))["id"]
        async with client(server, provider, "eve") as eve:
            await ask(eve, "remove", room=left, author=author_of(provider, "eve"))
        room = (await ask(ann, "direct", author=author_of(provider, "bob")))["id"]
        for name in (room, left):
            await ann.join(name)
        await ann.send(room, "secret")
        since = (await ann.send(room, "also secret"))["id"]
        wanted = await every_way(server, provider, "no%20room", since)
        assert server._members
        table = server._members._table
        never = table.direct_room(author_of(provider, "ann"), author_of(provider, "dan"))
        for name in (room, room.upper(), left, never):
            assert await every_way(server, provider, name, since) == wanted, name
        await bob.join(room)
        await ann.say(type="ping")
        await ann.hear("pong")
        assert "eve" not in json.dumps(ann.inbox)


@pytest.mark.parametrize(
    ("author", "message"),
    [("x", "32 hexadecimal digits"), ("ann", "This author is you")],
)
async def test_whom_one_cannot_write_to_is_refused(
    server: Server, provider: Provider, author: str, message: str
) -> None:
    async with client(server, provider, "ann") as ann:
        author = author_of(provider, "ann") if author == "ann" else author
        error = await ann.refused(type="direct", author=author, cid="1")
        assert (error["code"], message in error["message"]) == ("bad_author", True)
        # Whether there is such a person is not told.
        room = (await ask(ann, "direct", author=DAN))["id"]
        assert (await ask(ann, "rooms"))["direct"] == {room: DAN}


async def test_there_are_none_where_there_are_no_private_rooms(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment())
    async with client(server, provider, "ann") as ann:
        error = await ann.refused(type="direct", author=BOB, cid="1")
        assert error["code"] == "bad_frame"


async def test_a_bot_answers_whoever_writes_to_it(server: Server, provider: Provider) -> None:
    url = f"http://127.0.0.1:{server.port}/"

    answered: list[str] = []

    async def answer(bot: Chat) -> None:
        async for one in bot.direct_rooms():
            answered.append(one.author)
            assert one.user in ("ann", "bob", "eve")
            await bot.send(one.room, f"hello {one.author}")

    async def hears_hello(person: Chat, room: str) -> None:
        async with asyncio.timeout(KAFKA_SECONDS):
            greeting = await anext(person.room(room, recent=True))
        assert isinstance(greeting, Message)
        assert greeting.text == f"hello {person.author}"

    async with connect(url, token=provider.token("ann")) as ann:
        room = await ann.direct(author_of(provider, "bot"))
        async with connect(url, token=provider.token("bot")) as bot:
            answering = asyncio.create_task(answer(bot))
            await hears_hello(ann, room)
            async with connect(url, token=provider.token("bob")) as bob:
                await hears_hello(bob, await bob.direct(bot.author))
                await bot.block(bob.author)
                with pytest.raises(RefusedError, match="is not available"):
                    await bob.direct(bot.author)
                assert (await bot.private_rooms()).blocked == [bob.author]
                await bot.unblock(bob.author)
            # What is opened while it is away, it finds afterwards.
            (lost,) = (one for one in server._clients.values() if one.person.author == bot.author)
            lost.connection.close(CloseCode.RESTART, "retry_after=0.2")
            await until(lambda: not bot.connected)
            async with connect(url, token=provider.token("eve")) as eve:
                await hears_hello(eve, await eve.direct(bot.author))
            assert answered == [author_of(provider, who) for who in ("ann", "bob", "eve")]
        with pytest.raises(DisconnectedError):
            async with asyncio.timeout(KAFKA_SECONDS):
                await answering
