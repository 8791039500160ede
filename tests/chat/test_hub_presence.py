"""Presence in two hubs that share a log, with members played by the test."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise

import pytest
from conftest import until
from test_hub import Listening, hub

from chat import announcer
from chat.hub import Hub
from chat.presence import Presence
from chat.presence.signals import MOST_IN_SIGNAL
from chat.protocol import ErrorCode
from chat.relay.memory import MemoryLog, MemoryRelay
from chat.room import Person


@asynccontextmanager
async def running(log: MemoryLog) -> AsyncIterator[Hub]:
    relay = MemoryRelay(log)
    made = hub(relay)
    await made.start()
    await until(lambda: relay.caught_up)
    yield made
    await made.stop(0)


@pytest.fixture
async def hubs() -> AsyncIterator[tuple[Hub, Hub]]:
    log = MemoryLog()
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(running(log)),
            await stack.enter_async_context(running(log)),
        )


def users(member: Listening) -> set[str]:
    """The list of users that a client would show."""
    seen: set[str] = set()
    for frame in member.of("presence"):
        whole, left, joined = (frame.get(name, []) for name in ("users", "left", "joined"))
        assert isinstance(whole, list)
        assert isinstance(left, list)
        assert isinstance(joined, list)
        seen = (set(whole) or seen) - set(left) | set(joined)
    return seen


async def test_a_member_who_did_not_read_gets_the_whole_list_when_it_reads_again(
    hubs: tuple[Hub, Hub],
) -> None:
    here, there = hubs
    slow, quick, other = Listening("slow"), Listening("quick"), Listening("other")
    await here.join(slow, "lobby", None)
    await here.join(quick, "lobby", None)
    await until(lambda: users(slow) == users(quick) == {"slow", "quick"})
    slow.slow = True
    await there.join(other, "lobby", None)
    await until(lambda: users(quick) == {"slow", "quick", "other"})
    here.leave(quick, "lobby")
    await until(lambda: users(other) == {"slow", "other"})
    slow.frames.clear()
    slow.slow = False
    await until(lambda: users(slow) == {"slow", "other"})
    (whole,) = slow.of("presence")
    assert set(whole) == {"type", "room", "count", "users"}


async def test_who_did_not_get_the_list_on_joining_gets_it_later(hubs: tuple[Hub, Hub]) -> None:
    first, again = Listening("ada"), Listening("ada")
    await hubs[0].join(first, "lobby", None)
    await until(lambda: len(first.of("presence")) == 2)
    # This join changes no list, so there is no change to send.
    again.slow = True
    await hubs[0].join(again, "lobby", None)
    assert not again.of("presence")
    again.slow = False
    await until(lambda: users(again) == {"ada"})


async def test_of_two_who_took_a_name_in_the_same_moment_one_is_put_out(
    hubs: tuple[Hub, Hub],
) -> None:
    here, there = hubs
    one, other = Listening("ada", "one"), Listening("ada", "other")
    await here.join(one, "lobby", None)
    await there.join(other, "lobby", None)
    await until(lambda: one.of("error") or other.of("error"))
    loser, winner = (one, other) if one.of("error") else (other, one)
    assert loser.of("error") == [{"type": "error", "room": "lobby", "code": ErrorCode.NAME_TAKEN}]
    assert not winner.of("error")
    bob = Listening("bob")
    await there.join(bob, "lobby", None)
    await until(lambda: users(winner) == users(bob) == {"ada", "bob"})
    loser.frames.clear()
    here.send(winner, "lobby", "Who is left?", "1")
    await until(lambda: winner.of("message") and bob.of("message"))
    assert not loser.of("message")


async def test_a_replica_with_many_people_is_heard_bit_by_bit(
    hubs: tuple[Hub, Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chat messages are processed in between."""
    monkeypatch.setattr(announcer, "HEAR_SECONDS", 0)
    here, _ = hubs
    elsewhere = Presence(heartbeat=5, shown=100, typing=6, hold=300, elsewhere=0)
    for number in range(10_000):
        elsewhere.enter("lobby", Person.of(f"p{number}", "key"))
    heard = [0]
    here.signalled(list(elsewhere.outgoing(0)))
    while heard[-1] < 10_000:
        heard.append(here.presence.places)
        await asyncio.sleep(0)
    assert max(after - before for before, after in pairwise(heard)) == MOST_IN_SIGNAL


async def test_a_replaced_log_leaves_nobody_behind(hubs: tuple[Hub, Hub]) -> None:
    here, there = hubs
    ada, bob = Listening("ada"), Listening("bob")
    await here.join(ada, "lobby", None)
    await there.join(bob, "lobby", None)
    await until(lambda: users(bob) == {"ada", "bob"})
    here.reset(uuid.uuid4().hex, [-1] * 4)
    assert ada.closed
    here.leave(ada, "lobby")
    await until(lambda: users(bob) == {"bob"})


async def test_nothing_that_is_no_signal_disturbs_a_hub(hubs: tuple[Hub, Hub]) -> None:
    here, there = hubs
    ada = Listening("ada")
    await here.join(ada, "lobby", None)
    strange = {"type": "snapshot", "v": 1, "replica": "0" * 32, "seq": 1}
    here.signalled([b"", b"\xff", b"[]", json.dumps(strange | {"people": 7}).encode()])
    bob = Listening("bob")
    await there.join(bob, "lobby", None)
    await until(lambda: users(ada) == {"ada", "bob"})
