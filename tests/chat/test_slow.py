"""Slow mode: each person may send one message in so many seconds, on whatever replica they are."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import conftest
import pytest
from chat_client import ChatClient
from conftest import Replica
from provider import Provider
from test_api_send import send as post

from chat import slow
from chat.client import connect
from chat.protocol import ErrorCode, RefusedError
from chat.relay.base import UnavailableError
from chat.relay.memory import MemoryLog, MemoryRelay
from chat.rights import MOST_SECONDS, Rules, parse
from chat.server import Server
from chat.slow import Slow

RULES = [
    {"rooms": "slow*", "slow": 30, "moderate": ["desk"]},
    {"rooms": "quick", "slow": 1},
    {"rooms": "*"},
]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def people(clock: Clock) -> Slow:
    return Slow(Rules(parse(json.dumps(RULES))), clock)


def waits(people: Slow, room: str, author: str = "ada", cid: str = "new") -> int:
    try:
        people.check(room, author, cid)
    except RefusedError as refused:
        return refused.retry_after
    return 0


def test_a_person_waits_in_the_room_where_they_sent_something(people: Slow, clock: Clock) -> None:
    people.sent("slow-1", "ada", "1")
    people.sent("lobby", "ada", "1")
    assert waits(people, "slow-1") == 30
    assert waits(people, "slow-2") == waits(people, "lobby") == waits(people, "slow-1", "bob") == 0
    clock.now += 29.5
    assert waits(people, "slow-1") == 1
    clock.now += 0.5
    assert waits(people, "slow-1") == 0


def test_a_message_that_is_sent_again_does_not_wait(people: Slow) -> None:
    people.sent("slow", "ada", "1")
    assert waits(people, "slow", cid="1") == 0
    assert waits(people, "slow", cid="2") == 30


def test_what_the_log_has_counts_from_when_it_took_it(people: Slow, clock: Clock) -> None:
    people.sent("slow", "ada", "1", at=clock.now - 20)
    assert waits(people, "slow") == 10
    people.sent("slow", "bob", "1", at=clock.now - 30)
    assert waits(people, "slow", "bob") == 0
    assert people._count == 1, "what is read when a replica starts is mostly old"
    # Its clock is ahead: nobody waits longer than they would otherwise.
    people.sent("slow", "eve", "1", at=clock.now + 3600)
    assert waits(people, "slow", "eve") == 30
    clock.now += 30
    assert waits(people, "slow", "eve") == 0
    # And behind, for a message that was taken here.
    people.sent("slow", "cy", "1")
    people.sent("slow", "cy", "1", at=clock.now - 25)
    assert waits(people, "slow", "cy") == 30


def test_what_the_log_has_may_not_be_sent_again_as_another_message(
    people: Slow, clock: Clock
) -> None:
    people.sent("slow", "ada", "1")
    people.sent("slow", "ada", "1", at=clock.now - 0.1)
    # The window answers for those that it knows; it may have forgotten this one.
    assert waits(people, "slow", cid="1") == 30
    # An older one of theirs, which another replica took.
    people.sent("slow", "bob", "2")
    people.sent("slow", "bob", "1", at=clock.now - 5)
    assert waits(people, "slow", "bob", cid="2") == 0


def test_a_clock_that_is_set_back_makes_nobody_wait_twice_as_long(
    people: Slow, clock: Clock
) -> None:
    people.sent("slow", "ada", "1")
    clock.now -= 3600
    assert waits(people, "slow") == 30
    clock.now += 30
    assert waits(people, "slow") == 0


def test_who_need_not_wait_any_more_is_forgotten(
    people: Slow, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        people.sent("slow", f"author {number}", "1")
    clock.now += 31
    for number in range(100):
        people.sent("slow", f"other {number}", "1")
    assert people._count == len(people._sent) == 100
    monkeypatch.setattr(slow, "MOST", 50)
    for number in range(100):
        people.sent("slow", f"third {number}", "1")
    assert people._count == len(people._sent) == 50
    assert waits(people, "slow", "third 99") == 30


def test_who_sends_to_many_rooms_pushes_nothing_out(
    people: Slow, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "MOST", 3 * slow.MOST_ROOMS)
    people.sent("slow", "ada", "1")
    people.sent("slow", "eve", "1")
    taken = 1
    for number in range(10 * slow.MOST_ROOMS):
        clock.now += 0.0011
        if not waits(people, f"slow-{number}", "eve"):
            people.sent(f"slow-{number}", "eve", "new")
            taken += 1
    assert taken == slow.MOST_ROOMS
    assert waits(people, "slow", "ada") == waits(people, "slow", "eve") == 29
    # The place of the first message is free, but not those of the others.
    assert waits(people, "slow-new", "eve") == 29
    clock.now = 1030.0005
    assert waits(people, "slow-new", "eve") == 0
    people.sent("slow-new", "eve", "new")
    assert waits(people, "slow-other", "eve") == 1


def test_of_who_need_not_wait_no_more_is_kept_than_of_others(people: Slow, clock: Clock) -> None:
    """Moderators are not checked."""
    people.sent("quick", "desk", "0")
    for number in range(10 * slow.MOST_ROOMS):
        people.sent(f"slow-{number}", "desk", "1", at=clock.now)
    assert people._count == len(people._sent["desk"]) == slow.MOST_ROOMS
    assert "quick" not in people._sent["desk"], "what would end first goes first"


@pytest.mark.parametrize("seconds", [-1, MOST_SECONDS + 1, 1.5, "30", None])
def test_a_time_that_cannot_be_is_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"\$\[0\]\.slow"):
        parse(json.dumps([{"rooms": "*", "slow": seconds}]))


# On replicas.


@pytest.fixture
def environment(provider: Provider) -> dict[str, str]:
    return provider.environment(groups_claim="groups") | {"CHAT_ROOMS": json.dumps(RULES)}


@pytest.fixture
async def servers(
    replica: Replica, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> list[Server]:
    """Two that share a log."""
    log = MemoryLog()
    monkeypatch.setattr(conftest, "relay_for", lambda _: MemoryRelay(log))
    return [await replica(environment), await replica(environment)]


async def test_who_sends_too_soon_is_told_how_long_to_wait_on_every_replica(
    servers: list[Server], provider: Provider, replica: Replica, environment: dict[str, str]
) -> None:
    ada = provider.headers("ada")
    async with ChatClient(servers[0].port, additional_headers=ada) as one:
        await one.join("slow")
        ack = await one.send("slow", "first", cid="1")
        # At once, on the same replica; then on another, and on one that has started since.
        error = await one.refused(type="send", room="slow", text="second", cid="2")
        for server in (servers[1], await replica(environment)):
            async with ChatClient(server.port, additional_headers=ada) as other:
                await other.join("slow")
                again = await other.refused(type="send", room="slow", text="second", cid="2")
                assert (again["code"], again["cid"], again["room"]) == (
                    "rate_limited",
                    "2",
                    "slow",
                )
                assert 25 <= again["retry_after"] <= 30
                # What was lost on the way may be sent again.
                assert await other.send("slow", "first", cid="1") == ack
        assert error["retry_after"] == 30
        assert error["message"].startswith("Slow mode: each person sends at most one message in 30")
        assert error["message"].endswith("Yours may go in 30 s.")
        # Of other rooms and people, nothing is wanted.
        await one.join("lobby")
        await one.send("lobby", "x")
        await one.send("lobby", "y")
    async with ChatClient(servers[0].port, additional_headers=provider.headers("bob")) as bob:
        await bob.join("slow")
        await bob.send("slow", "mine")


async def test_moderators_need_not_wait(servers: list[Server], provider: Provider) -> None:
    desk = provider.headers("ada", groups=["desk"])
    async with ChatClient(servers[0].port, additional_headers=desk) as ada:
        await ada.join("slow")
        for text in ("first", "second"):
            await ada.send("slow", text)
        # They are not any more.
        await ada.say(type="auth", token=provider.token("ada"))
        await ada.hear("renewed")
        error = await ada.refused(type="send", room="slow", text="third", cid="3")
        assert error["code"] == "rate_limited"


async def test_a_message_that_failed_may_be_sent_again_and_no_other(
    servers: list[Server], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ChatClient(servers[0].port, additional_headers=provider.headers("ada")) as ada:
        await ada.join("slow")
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lost.set_exception(UnavailableError("No answer."))
        monkeypatch.setattr(servers[0].relay, "append", lambda _: lost)
        error = await ada.refused(type="send", room="slow", text="first", cid="1")
        assert error["code"] == "unavailable"
        monkeypatch.undo()
        error = await ada.refused(type="send", room="slow", text="second", cid="2")
        assert error["code"] == "rate_limited"
        await ada.send("slow", "first", cid="1")


async def test_over_http_retry_after_says_how_long(
    servers: list[Server], provider: Provider
) -> None:
    ci = provider.headers("ci")
    assert (await post(servers[0], {"text": "x", "cid": "1"}, "slow", **ci))[0] == 200
    code, answer = await post(servers[0], {"text": "y", "cid": "2"}, "slow", **ci)
    assert (code, "Slow mode" in answer["error"]) == (429, True)
    assert (await post(servers[0], {"text": "x", "cid": "1"}, "slow", **ci))[0] == 200


async def test_the_library_waits_and_keeps_the_order(
    servers: list[Server], provider: Provider
) -> None:
    url = f"http://127.0.0.1:{servers[0].port}/"
    async with connect(url, token=provider.token("ada")) as ada:
        room = ada.room("quick")
        await room.joined()
        started = time.monotonic()
        await ada.send("quick", "first")
        await ada.send("quick", "second")
        assert 0.9 < time.monotonic() - started < 10
        refused = servers[0]._metrics.refusals.labels(ErrorCode.RATE_LIMITED)
        assert refused._value.get() == 1, "it comes when it may, and not before"
        assert [(await anext(room)).text for _ in range(2)] == ["first", "second"]
