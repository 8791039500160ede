"""Clients in many rooms: how many there are, what each costs, and what is done about them at once
is bounded.
"""

from __future__ import annotations

import asyncio
import gc
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from chat_client import ChatClient
from conftest import Replica, until
from test_connection import Transport, masked
from test_hub import Listening, PlayedRelay, hub
from test_presence import World

from chat import announcer
from chat.announcer import Announcer
from chat.presence import Presence
from chat.presence.presence import MOST_FORGOTTEN
from chat.presence.signals import MOST_IN_SIGNAL
from chat.protocol import RefusedError
from chat.room import Person

ROLE = Path(__file__).parents[3] / "roles/chat/vars/main.yml"
PLACES = 2000
# Of which 0.3 KiB are for its name, and 0.4 for the list of who is in the room.
IDLE_BYTES = 2048


async def test_a_join_beyond_the_places_is_refused_and_others_are_not_shut_out(
    replica: Replica,
) -> None:
    server = await replica(
        CHAT_PLACES="8", CHAT_ROOMS_PER_CLIENT="4", CHAT_TRUSTED_PROXIES="127.0.0.1/32"
    )

    def client(name: str, address: str) -> ChatClient:
        return ChatClient(server.port, name, additional_headers={"X-Forwarded-For": address})

    async with (
        client("mallory", "192.0.2.1") as mallory,
        client("trudy", "192.0.2.1") as trudy,
        client("ada", "192.0.2.2") as ada,
        client("bob", "192.0.2.3") as bob,
    ):
        for room in "abcd":
            await mallory.join(room)
        refused = await trudy.refused(type="join", room="e")
        assert refused["code"] == "unavailable"
        assert "your address" in refused["message"]
        for room in "abc":
            await ada.join(room)
        assert server.look_ready() == ""
        await bob.join("a")
        assert "CHAT_PLACES" in server.look_ready()
        refused = await bob.refused(type="join", room="b")
        assert refused["code"] == "unavailable"
        # Who is in a room may join it again, and who leaves one makes room for somebody.
        await ada.join("a")
        await mallory.say(type="leave", room="d")
        await mallory.hear("left")
        await bob.join("b")
        assert b'chat_places{where="here"} 8.0' in server.metrics_text()
    await until(lambda: server._hub.places.taken == 0)


async def test_places_are_free_again_when_the_log_was_replaced() -> None:
    made = hub()
    await made.join(Listening(), "lobby", None)
    made.reset("another", [-1] * 4)
    assert made.places.taken == 0


def bytes_of(name: str) -> int:
    """What the role's memory limit counts for one of these."""
    counted = re.search(rf"(\d+) \* \(__chat_config\.{name} ", ROLE.read_text())
    assert counted is not None
    return int(counted[1])


async def test_a_place_takes_no_more_memory_than_the_role_counts() -> None:
    made = hub()
    members = [Listening(f"somebody {number}") for number in range(PLACES // 50)]
    for member in members:
        member.slow = True
        member.push = lambda _: None  # type: ignore[method-assign]
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(PLACES):
            await made.join(members[number % len(members)], f"a-room-of-its-own-{number}", None)
        for _ in made.presence.outgoing(0):
            pass
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < PLACES * bytes_of("CHAT_PLACES")
    finally:
        tracemalloc.stop()


async def test_an_idle_client_takes_little_memory(replica: Replica) -> None:
    """Without its transport, which is the event loop's: that takes another 1 KiB or so."""

    class Deaf(Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            pass

    server = await replica()
    transports = [Deaf() for _ in range(PLACES)]
    connections = []
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number, transport in enumerate(transports):
            connection = server.connect("127.0.0.1", [], None)
            connection.connection_made(transport)
            connection.data_received(masked(b'{"type":"hello","user":"user %d"}' % number))
            connection.data_received(masked(b'{"type":"join","room":"lobby"}'))
            connections.append(connection)
        await until(lambda: server._hub.places.taken == PLACES)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < PLACES * IDLE_BYTES
    finally:
        tracemalloc.stop()
    for connection in connections:
        connection.connection_lost(None)


def test_a_place_elsewhere_takes_no_more_memory_than_the_role_counts() -> None:
    here, there = World(2).alive
    for number in range(PLACES):
        name = "\N{FOX FACE}" * 25 + str(number)
        there.enter(f"a-room-of-its-own-{number}", Person.of(name, "key"))
    signals = list(there.outgoing(0))
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for signal in signals:
            here.heard(signal, 0)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert here.elsewhere == PLACES
    assert taken < PLACES * bytes_of("CHAT_PLACES_ELSEWHERE")


def many(presence: Presence) -> None:
    for number in range(PLACES):
        presence.enter(f"room-{number % 50}", Person.of(f"somebody {number}", "key"))


async def test_what_is_done_in_a_turn_does_not_grow_with_the_people(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Writing who is here, and forgetting who has left: in each turn of the loop, some of them."""
    monkeypatch.setattr(announcer, "PRESENCE_SECONDS", 0)
    world = World(1)
    (there,) = world.alive
    presence = Presence(heartbeat=60, shown=100, typing=6, hold=0, elsewhere=PLACES)
    many(there)
    turn = 0
    written: Counter[int] = Counter()
    forgotten: Counter[int] = Counter()

    class Relay(PlayedRelay):
        def signal(self, payload: bytes) -> None:
            written[turn] += payload.count(b'["')

    for signal in there.outgoing(0):
        presence.heard(signal, 0)
    assert presence.elsewhere == PLACES
    many_here = [Person.of(f"me {number}", "key") for number in range(PLACES)]
    for person in many_here:
        presence.enter("here", person)
    # The other replica was heard long ago, on the announcer's clock.
    telling = asyncio.create_task(
        Announcer(
            Relay(),
            presence,
            room=lambda _: None,
            leave=lambda *_: None,
            typing_seconds=6,
        ).run()
    )
    async with asyncio.timeout(30):
        while sum(written.values()) < PLACES or presence.elsewhere:
            before = presence.elsewhere
            await asyncio.sleep(0)
            forgotten[turn] = before - presence.elsewhere
            turn += 1
    telling.cancel()
    assert 0 < max(written.values()) <= MOST_IN_SIGNAL
    assert 0 < max(forgotten.values()) <= MOST_FORGOTTEN


def test_the_end_of_a_snapshot_costs_what_has_left_and_not_who_is_there() -> None:
    here, there = World(2).alive
    many(there)
    *signals, last = there.outgoing(0)
    for signal in signals:
        here.heard(signal, 0)
    here.heard(last, 0)
    gone = 3 * MOST_FORGOTTEN
    for number in range(gone):
        there.exit(f"room-{number % 50}", Person.of(f"somebody {number}", "key"))
    for signal in there.outgoing(60):
        before = here.elsewhere
        here.heard(signal, 60)
        assert before - here.elsewhere <= MOST_FORGOTTEN
    assert list(here.forget()) == [MOST_FORGOTTEN] * 2
    assert here.elsewhere == PLACES - gone


def test_who_comes_and_goes_while_a_snapshot_is_written_is_seen_as_they_are() -> None:
    world = World(2)
    here, there = world.alive
    many(there)
    world.tick()
    writing = there.outgoing(world.now + 60)
    here.heard(next(writing), world.now)
    there.enter("room-0", Person.of("new", "key"))
    there.exit("room-0", Person.of("somebody 0", "key"))
    there.exit("room-49", Person.of(f"somebody {PLACES - 1}", "key"))
    for signal in (*writing, *there.outgoing(world.now)):
        here.heard(signal, world.now)
    for _ in here.forget():
        pass
    assert here.elsewhere == PLACES - 1
    for room in ("room-0", "room-49"):
        assert here.whole(room).users == there.whole(room).users
        assert here.whole(room).count == there.whole(room).count


async def test_signals_that_wait_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "HEAR_SECONDS", 0)
    monkeypatch.setattr(announcer, "MOST_SIGNAL_BYTES", 10_000)
    presence = Presence(heartbeat=5, shown=10, typing=6, hold=0, elsewhere=10)
    made = Announcer(
        PlayedRelay(), presence, room=lambda _: None, leave=lambda *_: None, typing_seconds=6
    )
    made.signalled([b"x" * 1000] * 50)
    assert len(made._signals) <= 10
    await until(lambda: not made._signals)
    assert presence.foreign == 1 + 9


def test_people_elsewhere_beyond_what_is_remembered_are_counted_and_left_out() -> None:
    world = World(1)
    (there,) = world.alive
    here = Presence(heartbeat=5, shown=10, typing=6, hold=0, elsewhere=3)
    for number in range(5):
        there.enter(f"room-{number}", Person.of("ada", "key"))
    for signal in there.outgoing(0):
        here.heard(signal, 0)
    assert (here.elsewhere, here.foreign) == (3, 2)
    with pytest.raises(RefusedError):
        here.enter("room-0", Person.of("ada", "another"))
