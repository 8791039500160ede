"""Names are compared by what people see, and stay with whom they belong to."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import unicodedata
from pathlib import Path

import pytest
from chat_client import ChatClient
from conftest import Replica
from hypothesis import given
from hypothesis import strategies as st
from test_presence import World, code_of, leave_all, person

from chat import presence, protocol
from chat.presence import reservations
from chat.presence.names import looks_of
from chat.protocol import ErrorCode, RefusedError
from chat.room import Person

CONFUSABLES = gzip.decompress(
    (Path(presence.__file__).parent / "confusables.txt.gz").read_bytes()
).decode("utf-8-sig")


def alike(one: str, other: str) -> bool:
    return bool(set(looks_of(one)) & set(looks_of(other)))


def test_the_look_alikes_are_those_of_unicode_17() -> None:
    assert "# Version: 17.0.0\n" in CONFUSABLES
    digest = hashlib.sha256(CONFUSABLES.encode()).hexdigest()
    assert digest == "091c7f82fc39ef208faf8f94d29c244de99254675e09de163160c810d13ef22a"


def test_all_look_alikes_of_unicode_are_alike() -> None:
    pairs = re.findall(r"^([0-9A-F]+) ;\t([0-9A-F ]+) ;", CONFUSABLES, re.MULTILINE)
    assert len(pairs) == CONFUSABLES.count(";\tMA\t") == 6565
    compared = 0
    for source, codes in pairs:
        prototype = "".join(chr(int(code, 16)) for code in codes.split())
        names = f"x{chr(int(source, 16))}y", f"x{prototype}y"
        # Skeletons are made of what characters are composed of; and no name has a tab (U+1F16D).
        if "\t" not in prototype and all(unicodedata.is_normalized("NFD", one) for one in names):
            assert alike(*names), source
            compared += 1
    assert compared == 5467


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ada", "ada\u2800"),
        ("ada", "\u2800ada"),
        ("ada", "\u0430da"),
        ("ada", "ad\u0430"),
        ("ada", "ada\U0001d159"),
        ("ada", "\u0251da"),
        ("ada", "a\u0501a"),
        ("ada", "ADA"),
        ("ada", "\uff41da"),
        ("ada", "a\u200bd\u00ada"),
        ("ada", "ada\ufe0f"),
        ("ada", "ada\ue000"),
        ("ada x", "ada  x"),
        ("ada x", "ada\u2003x"),
        ("ada x", "ada\u2800x"),
        ("ada x", "ada \u200b x"),
        ("Ian", "lan"),
        ("Ian", "ian"),
        ("HANS", "\u041dANS"),
        ("hans", "\u041dANS"),
        ("MAX", "max"),
        ("max", "rnax"),
        ("bob0", "bobo"),
        ("stra\u00dfe", "STRASSE"),
        ("\u041d\u0438\u043d\u0430", "\u043d\u0438\u043d\u0430"),
    ],
)
def test_names_that_look_alike_are_the_same(name: str, other: str) -> None:
    assert alike(name, other)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ada", "adam"),
        ("ada x", "adax"),
        ("ian", "lan"),
        ("user1", "user7"),
        ("user3", "usere"),
        ("Mary", "Marr"),
        ("jos\u00e9", "jose"),
        ("\u0418\u0432\u0430\u043d", "\u0418\u0440\u0430\u043d"),
        ("\U0001f98a", "\U0001f43b"),
    ],
)
def test_names_that_people_tell_apart_are_two(name: str, other: str) -> None:
    assert not alike(name, other)


@given(st.text(max_size=20), st.text("\u2800\u200b \u00ad\u2060\u3000\u202a", max_size=3))
def test_whatever_the_name_it_is_the_same_in_small_letters_and_with_what_nobody_sees_around_it(
    name: str, unseen: str
) -> None:
    try:
        name = protocol.check_user(name)
    except RefusedError:
        return
    assert "" not in looks_of(name)
    assert alike(name, name.casefold())
    assert looks_of(unseen + name + unseen) == looks_of(name)


@pytest.mark.parametrize("name", ["\u2800", "\U0001d159", "\U00016fe4 \u2800", "\u3164"])
def test_a_name_of_nothing_to_see_is_refused(name: str) -> None:
    with pytest.raises(RefusedError):
        protocol.check_user(name)


async def test_nobody_comes_in_beside_ada_as_somebody_who_looks_like_her(replica: Replica) -> None:
    server = await replica()
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        for name in ("ada\u2800", "\u0430da", "ada\U0001d159", "\u0251da", "a\u0501a"):
            async with ChatClient(server.port, name) as mallory:
                refused = await mallory.refused(type="join", room="lobby")
                assert refused["code"] == "name_taken"


# A name stays its owner's for a while after they left.

HOLD = 300.0


def test_a_name_stays_its_owners_for_a_while_on_all_replicas() -> None:
    world = World(2, hold=HOLD)
    here, there = world.alive
    here.enter("lobby", person("ada"))
    world.tick()
    here.exit("lobby", person("ada"))
    world.tick()
    for replica in (here, there):
        for name in ("ada", "Ada", "\u0430da"):
            assert code_of(replica, person(name, "mallory")) is ErrorCode.NAME_TAKEN
        assert code_of(replica, person("ada", "mallory"), "elsewhere") is None
    assert code_of(there, person("ada")) is None
    there.exit("lobby", person("ada"))
    world.now += HOLD - 10
    assert code_of(there, person("ada", "mallory")) is ErrorCode.NAME_TAKEN
    world.now += 11
    assert code_of(there, person("ada", "mallory")) is None


def test_who_comes_back_has_had_the_name_since_they_first_came() -> None:
    world = World(2, hold=HOLD)
    here, there = world.alive
    came = world.now
    here.enter("lobby", person("ada"))
    world.tick()
    here.exit("lobby", person("ada"))
    world.tick()
    there.enter("lobby", person("ada"))
    (holder,) = there._holders("lobby", "ada")
    assert holder.since == came * 1000


def test_a_name_is_held_while_its_replica_dies_and_while_all_are_replaced_one_by_one() -> None:
    world = World(2, hold=HOLD)
    here, doomed = world.alive
    doomed.enter("lobby", person("ada"))
    world.tick()
    world.alive.remove(doomed)
    world.pass_heartbeats()
    assert here.replicas == 1
    for _ in range(2):
        world.start()
        for _ in range(6):
            world.tick()
        world.alive.pop(0)
        world.pass_heartbeats()
    (last,) = world.alive
    assert code_of(last, person("ada", "mallory")) is ErrorCode.NAME_TAKEN
    assert code_of(last, person("ada")) is None


def test_a_stranger_whom_a_new_replica_let_in_is_put_out_and_the_owner_comes_back() -> None:
    world = World(1, hold=HOLD)
    (here,) = world.alive
    here.enter("lobby", person("ada"))
    world.tick()
    here.exit("lobby", person("ada"))
    new = world.start()
    assert code_of(new, person("\u0430da", "mallory")) is None, "nobody has told it yet"
    # The one that knows hears of the stranger at once, and is not fooled.
    (claim,) = new.outgoing(world.now)
    here.heard(claim, world.now)
    assert code_of(here, person("ada", "somebody else")) is ErrorCode.NAME_TAKEN
    assert code_of(here, person("ada")) is None
    here.exit("lobby", person("ada"))
    losers = []
    for _ in range(6):
        for loser in world.tick():
            losers.append(loser)
            leave_all(*loser)
    assert losers == [(new, "lobby", "\u0430da")]
    for replica in (here, new):
        assert code_of(replica, person("ada", "mallory")) is ErrorCode.NAME_TAKEN
        assert code_of(replica, person("ada")) is None
        replica.exit("lobby", person("ada"))


def test_a_name_is_held_on_a_replica_that_started_before_the_death_of_another_was_noticed() -> None:
    world = World(2, hold=HOLD)
    here, doomed = world.alive
    doomed.enter("lobby", person("ada"))
    world.tick()
    world.alive.remove(doomed)
    new = world.start()
    for _ in range(6):
        world.tick()
    assert code_of(new, person("ada", "mallory")) is None, "nobody has told it yet"
    world.tick()
    # She is still believed to be on the dead replica, and comes back elsewhere.
    assert code_of(here, person("ada")) is None
    here.exit("lobby", person("ada"))
    world.pass_heartbeats()
    for replica in (here, new):
        assert code_of(replica, person("ada", "mallory")) is ErrorCode.NAME_TAKEN
        assert code_of(replica, person("ada")) is None


def test_a_replica_learns_whom_a_replica_held_that_died_soon_after_it_started() -> None:
    world = World(2, hold=HOLD)
    here, doomed = world.alive
    doomed.enter("lobby", person("ada"))
    world.tick()
    world.alive.remove(doomed)
    new = world.start()
    world.pass_heartbeats()
    world.pass_heartbeats(1)
    assert here.replicas == new.replicas == 2
    assert code_of(new, person("ada", "mallory")) is ErrorCode.NAME_TAKEN


def test_a_replica_that_does_not_know_of_a_reservation_is_told_of_that_one() -> None:
    world = World(2, hold=HOLD)
    here, there = world.alive
    world.pass_heartbeats()
    for number in range(100):
        here.enter("lobby", person(f"p{number}"))
        here.exit("lobby", person(f"p{number}"))
    world.now += 1
    there.enter("lobby", person("p7", "mallory"))
    world.now += 1
    for signal in there.outgoing(world.now):
        here.heard(signal, world.now)
    world.now += 1
    told = [json.loads(signal) for signal in here.outgoing(world.now)]
    assert [list(one["reserved"]["lobby"]) for one in told if "reserved" in one] == [["p7"]]


def test_reservations_are_told_to_who_is_new_and_not_with_each_heartbeat() -> None:
    world = World(1, hold=HOLD)
    (here,) = world.alive
    for number in range(100):
        here.enter("lobby", person(f"p{number}"))
        here.exit("lobby", person(f"p{number}"))
    world.tick()
    world.now += 6
    assert sum(map(len, here.outgoing(world.now))) < 200
    new = world.start()
    for _ in range(4):
        world.tick()
    assert code_of(new, person("p7", "mallory")) is ErrorCode.NAME_TAKEN
    world.now += 6
    assert sum(map(len, here.outgoing(world.now))) < 200


def test_nothing_is_held_for_people_of_a_release_that_does_not_say_who_has_no_key() -> None:
    """Or whoever has none comes back from an old replica under a name that is held for nobody."""
    world = World(1, hold=HOLD)
    (there,) = world.alive
    signal = {"v": 1, "replica": "0" * 32}
    for number, more in enumerate(
        (
            {
                "type": "changes",
                "joined": {"lobby": {"bot": ["0123456789abcdef", 1], "ada": ["f" * 16, 1]}},
            },
            {"type": "changes", "left": {"lobby": ["bot"]}},
            {"type": "gone"},
        )
    ):
        there.heard(json.dumps(signal | {"seq": number} | more).encode(), world.now)
    for name in ("bot", "ada"):
        there.enter("lobby", Person.without_key(name))


def test_a_release_that_holds_no_names_reads_what_it_knows() -> None:
    """The snapshot's new field is one more, and the rest is what it was."""
    world = World(1, hold=HOLD)
    (here,) = world.alive
    here.enter("lobby", person("bob"))
    here.enter("lobby", person("ada"))
    here.exit("lobby", person("ada"))
    world.start()
    world.tick()
    world.now += 1
    snapshots = [json.loads(signal) for signal in here.outgoing(world.now)]
    assert [one["seq"] for one in snapshots] == list(
        range(snapshots[0]["seq"], snapshots[0]["seq"] + 2)
    )
    assert [(one["type"], one.get("part", 0), one["parts"]) for one in snapshots] == [
        ("snapshot", 0, 2),
        ("snapshot", 1, 2),
    ]
    assert list(snapshots[0]["people"]["lobby"]) == ["bob"]
    assert list(snapshots[1]["reserved"]["lobby"]) == ["ada"]


def test_who_has_no_key_or_throws_it_away_has_no_name_to_come_back_to() -> None:
    world = World(2, hold=HOLD)
    here, there = world.alive
    for guest in (Person.without_key("ada"), Person.of("ada", "thrown away", hold=False)):
        here.enter("lobby", guest)
        world.tick()
        assert code_of(there, guest) is None, "the same person, on another connection"
        there.exit("lobby", guest)
        here.exit("lobby", guest)
        world.tick()
    assert code_of(there, Person.without_key("ada")) is None


def test_names_that_somebody_tries_one_by_one_push_out_nobody_who_was_really_there() -> None:
    world = World(1, hold=HOLD)
    (here,) = world.alive
    here.enter("lobby", person("ada"))
    world.now += 60
    here.exit("lobby", person("ada"))
    for number in range(3 * reservations.MOST_OF_ROOM):
        who = person(f"p{number}", "mallory")
        here.enter("lobby", who)
        world.now += 0.05
        here.exit("lobby", who)
    assert len(here._reservations) == reservations.MOST_OF_ROOM
    assert code_of(here, person("ada", "mallory")) is ErrorCode.NAME_TAKEN


def test_to_join_does_not_cost_a_look_at_each_name_that_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []

    def counted(user: str) -> tuple[int, ...]:
        looked.append(user)
        return looks_of(user)

    monkeypatch.setattr(reservations, "looks_of", counted)
    world = World(1, hold=HOLD)
    (here,) = world.alive
    for number in range(100):
        here.enter("lobby", person(f"p{number}"))
        here.exit("lobby", person(f"p{number}"))
    looked.clear()
    here.enter("lobby", person("ada"))
    assert set(looked) == {"ada"}


def test_reservations_of_all_rooms_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "MOST", 50)
    world = World(1, hold=HOLD)
    (here,) = world.alive
    for number in range(200):
        here.enter(f"room-{number}", person("ada"))
        here.exit(f"room-{number}", person("ada"))
        assert len(here._reservations) <= 50
    assert code_of(here, person("ada", "mallory"), "room-199") is ErrorCode.NAME_TAKEN


def test_who_comes_and_goes_in_many_rooms_does_not_take_a_name_from_who_stayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reservations, "MOST", 50)
    world = World(1, hold=HOLD)
    (here,) = world.alive
    here.enter("lobby", person("ada"))
    world.pass_heartbeats()
    here.exit("lobby", person("ada"))
    for number in range(1000):
        here.enter(f"room-{number}", person("mallory"))
        here.exit(f"room-{number}", person("mallory"))
    assert len(here._reservations) <= 50
    assert len(here._reservations._stays) <= 3 * 50
    assert code_of(here, person("ada", "mallory")) is ErrorCode.NAME_TAKEN


@pytest.mark.parametrize("accents", ["\u0344" * 30, "\u0301" * 31])
def test_no_name_has_more_accents_than_other_replicas_take(accents: str) -> None:
    with pytest.raises(RefusedError):
        protocol.check_user("ada" + accents)


def test_no_replica_can_make_another_hold_a_name_for_longer_than_it_would() -> None:
    world = World(1, hold=HOLD)
    (here,) = world.alive
    signal = {
        "type": "snapshot",
        "v": 1,
        "replica": "0" * 32,
        "seq": 1,
        "reserved": {"lobby": {"ada": ["1" * 16, 0, (1 << 53) - 1], " x": ["1" * 16, 0, 1]}},
    }
    here.heard(json.dumps(signal).encode(), world.now)
    assert here.foreign == 1
    assert code_of(here, person("ada")) is ErrorCode.NAME_TAKEN
    world.now += HOLD + 1
    assert code_of(here, person("ada")) is None


async def test_ada_comes_back_to_her_name_and_nobody_else_does(replica: Replica) -> None:
    server = await replica()
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        await ada.say(type="leave", room="lobby")
        await ada.hear("left")
    async with ChatClient(server.port, None) as mallory:
        await mallory.say(type="hello", user="ada", key="m" * 16)
        await mallory.hear("welcome")
        assert (await mallory.refused(type="join", room="lobby"))["code"] == "name_taken"
        async with ChatClient(server.port, "ada") as ada:
            await ada.join("lobby")
