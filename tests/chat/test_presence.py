"""Presence across replicas: lost signals, dead replicas, and costs. Nothing here waits: the test
sets the time.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chat import protocol
from chat.presence import Presence
from chat.presence.signals import MOST_IN_SIGNAL
from chat.protocol import ErrorCode, RefusedError
from chat.room import Person

HEARTBEAT = 5.0
# A replica is dead after this many heartbeats without a signal.
HEARTBEATS = 3
TICK = 0.5
SHOWN = 4
ELSEWHERE = 10_000


class World:
    """Replicas that receive each other's signals, and a clock."""

    def __init__(self, replicas: int = 0, hold: float = 0) -> None:
        self.now = 1000.0
        self.hold = hold
        self.alive: list[Presence] = []
        self.lists: dict[tuple[int, str], set[str] | int] = {}
        for _ in range(replicas):
            self.start()

    def start(self) -> Presence:
        presence = Presence(
            heartbeat=HEARTBEAT,
            shown=SHOWN,
            typing=6,
            hold=self.hold,
            elsewhere=ELSEWHERE,
            wall_clock=lambda: self.now,
        )
        self.alive.append(presence)
        return presence

    def tick(self, lost: set[tuple[int, int]] = frozenset()) -> list[tuple[Presence, str, str]]:
        """Half a second passes: all replicas exchange their signals, except the `lost` ones, which
        are (from, to) pairs. Returns who lost a name.
        """
        self.now += TICK
        losers = []
        said = [list(presence.outgoing(self.now)) for presence in self.alive]
        for listener, presence in enumerate(self.alive):
            presence.expire(self.now)
            for speaker, signals in enumerate(said):
                for signal in signals if (speaker, listener) not in lost else ():
                    heard = presence.heard(signal, self.now)
                    losers += [(presence, room, user) for room, user in heard.lost]
            for _ in presence.forget():
                pass
        return losers

    def pass_heartbeats(self, count: int = HEARTBEATS) -> None:
        for _ in range(round(count * HEARTBEAT / TICK) + 2):
            for presence, room, user in self.tick():
                leave_all(presence, room, user)


def leave_all(presence: Presence, room: str, user: str) -> None:
    while (holder := presence._here.get((room, user))) is not None:
        presence.exit(room, Person(user, holder.key, ""))


def person(user: str, secret: str = "") -> Person:
    return Person.of(user, secret or user)


def names(presence: Presence, room: str = "lobby") -> list[str]:
    return presence.whole(room).users


def code_of(presence: Presence, who: Person, room: str = "lobby") -> ErrorCode | None:
    try:
        presence.enter(room, who)
    except RefusedError as refused:
        return refused.code
    return None


class Client:
    """Processes presence frames according to docs/protocol.md."""

    def __init__(self) -> None:
        self.users: set[str] | None = None
        self.count = 0

    def hear(self, frame: protocol.Presence) -> None:
        self.count = frame.count
        if frame.users:
            self.users = set(frame.users)
        elif frame.joined or frame.left:
            assert self.users is not None, "changes are told to those who have a list"
            self.users = self.users - set(frame.left) | set(frame.joined)
        elif frame.count > SHOWN:
            self.users = None


def test_everyone_sees_who_joins_and_leaves_anywhere_at_once() -> None:
    world = World(2)
    here, there = world.alive
    world.tick()
    here.enter("lobby", person("ada"))
    there.enter("lobby", person("bob"))
    world.tick()
    assert names(here) == names(there) == ["ada", "bob"]
    here.exit("lobby", person("ada"))
    world.tick()
    assert names(there) == ["bob"]


def test_a_replica_that_starts_is_told_at_once_who_is_there() -> None:
    world = World(1)
    (old,) = world.alive
    old.enter("lobby", person("ada"))
    world.tick()
    new = world.start()
    new.enter("lobby", person("bob"))
    for _ in range(4):
        world.tick()
    assert names(new) == names(old) == ["ada", "bob"]


def test_a_replica_that_died_takes_its_people_with_it_within_three_heartbeats() -> None:
    world = World(2)
    here, doomed = world.alive
    here.enter("lobby", person("ada"))
    doomed.enter("lobby", person("bob"))
    world.tick()
    assert names(here) == ["ada", "bob"]
    world.alive.remove(doomed)
    world.pass_heartbeats()
    assert names(here) == ["ada"]


def test_a_replica_that_ends_in_order_is_gone_at_once() -> None:
    world = World(2)
    here, ending = world.alive
    here.enter("lobby", person("ada"))
    ending.enter("lobby", person("bob"))
    world.tick()
    here.heard(ending.farewell(), world.now)
    assert names(here) == ["ada"]


def test_a_person_with_several_connections_is_one() -> None:
    world = World(2)
    here, there = world.alive
    world.tick()
    for presence in (here, here, here, there):
        presence.enter("lobby", person("ada"))
    world.tick()
    assert here.whole("lobby").count == there.whole("lobby").count == 1
    for presence in (there, here, here):
        presence.exit("lobby", person("ada"))
        world.tick()
        assert names(here) == names(there) == ["ada"]


@pytest.mark.parametrize("name", ["ada", "ADA", "\uff41da", "a\u200bda", "\u0430da"])
def test_a_name_that_looks_like_somebody_elses_is_refused_in_the_same_room(name: str) -> None:
    world = World(2)
    here, there = world.alive
    here.enter("lobby", person("ada"))
    world.tick()
    for presence in (here, there):
        assert code_of(presence, person(name, "mallory")) is ErrorCode.NAME_TAKEN
        assert code_of(presence, person(name, "mallory"), "kafka") is None
    assert names(there) == ["ada"]


def test_who_comes_back_with_the_same_key_has_the_name_while_the_ghost_still_holds_it() -> None:
    world = World(2)
    here, doomed = world.alive
    doomed.enter("lobby", person("ada", "secret"))
    world.tick()
    world.alive.remove(doomed)
    assert code_of(here, person("ada", "another")) is ErrorCode.NAME_TAKEN
    assert code_of(here, person("ada", "secret")) is None
    world.pass_heartbeats()
    assert names(here) == ["ada"]


def test_of_two_who_took_a_name_in_the_same_moment_the_later_one_loses_it() -> None:
    world = World(2)
    here, there = world.alive
    world.tick()
    here.enter("lobby", person("ada", "first"))
    world.now += 0.001
    there.enter("lobby", person("Ada", "second"))
    there.changes("lobby", world.now)
    assert world.tick() == [(there, "lobby", "Ada")]
    changes = there.changes("lobby", world.now)
    assert (changes.joined, changes.left, changes.count) == (["ada"], ["Ada"], 1)
    there.exit("lobby", person("Ada", "second"))
    world.tick()
    assert names(here) == names(there) == ["ada"]


@pytest.mark.parametrize("first", ["the owner", "the thief"])
def test_a_name_stays_its_owners_though_new_replicas_let_two_take_it(first: str) -> None:
    """The new replicas know no reservations, and the one that does hears of only one of the two
    first.
    """
    world = World(1, hold=600)
    (knows,) = world.alive
    knows.enter("lobby", person("ada"))
    world.pass_heartbeats()
    knows.exit("lobby", person("ada"))
    world.pass_heartbeats()
    one, other = world.start(), world.start()
    assert code_of(one, person("ada", "a thief's")) is None
    world.now += TICK
    assert code_of(other, person("ada")) is None
    heard_later = 1 if first == "the owner" else 2
    for presence, room, user in world.tick(lost={(heard_later, 0)}):
        leave_all(presence, room, user)
    world.pass_heartbeats()
    for presence in world.alive:
        assert code_of(presence, person("ada", "a thief's")) is ErrorCode.NAME_TAKEN
        assert code_of(presence, person("ada")) is None
        presence.exit("lobby", person("ada"))


def test_above_the_limit_people_are_counted_and_below_it_named_again() -> None:
    (presence,) = World(1).alive
    people = [person(f"p{number}") for number in range(SHOWN + 1)]
    client = Client()
    for one in people:
        presence.enter("lobby", one)
        if one is people[0]:
            client.hear(presence.whole("lobby"))
        client.hear(presence.changes("lobby", 0))
    assert (client.users, client.count) == (None, SHOWN + 1)
    assert protocol.encode(presence.whole("lobby")) == protocol.encode(
        protocol.Presence("lobby", SHOWN + 1)
    )
    presence.exit("lobby", people[0])
    client.hear(presence.changes("lobby", 0))
    assert client.users == {"p1", "p2", "p3", "p4"}


def test_who_comes_while_people_are_counted_gets_a_list_once_they_are_few_enough() -> None:
    (presence,) = World(1).alive
    for number in range(SHOWN):
        presence.enter("lobby", person(f"p{number}"))
    presence.changes("lobby", 0)
    presence.enter("lobby", person("late"))
    client = Client()
    client.hear(presence.whole("lobby"))
    assert client.users is None
    presence.exit("lobby", person("p0"))
    client.hear(presence.changes("lobby", 0))
    assert client.users == {"late", "p1", "p2", "p3"}


def test_a_signal_that_comes_again_or_late_changes_nothing() -> None:
    world = World(2)
    here, there = world.alive
    world.tick()
    here.enter("lobby", person("ada"))
    (came,) = here.outgoing(world.now)
    here.exit("lobby", person("ada"))
    (went,) = here.outgoing(world.now)
    for signal in (came, went, came, went, came):
        there.heard(signal, world.now)
    assert not there.due(world.now) or there.changes("lobby", world.now).count == 0


def test_a_name_that_changed_hands_unheard_is_its_new_owners() -> None:
    world = World(2)
    here, there = world.alive
    there.enter("kafka", person("bob"))
    here.enter("lobby", person("ada", "first"))
    world.tick()
    here.exit("lobby", person("ada", "first"))
    here.enter("lobby", person("ada", "second"))
    list(here.outgoing(world.now))
    world.pass_heartbeats(1)
    assert code_of(there, person("ada", "first")) is ErrorCode.NAME_TAKEN
    assert code_of(there, person("ada", "second")) is None


def test_a_storm_of_joins_is_told_at_a_bounded_pace() -> None:
    (presence,) = World(1).alive
    told = 0
    for number in range(5000):
        now = number / 1000
        presence.enter("lobby", person(f"p{number}"))
        if number % 100 == 99:
            for room in presence.due(now):
                told += presence.changes(room, now).count
    assert told < 5 * 3 * 2000


def test_many_people_are_told_in_signals_of_bounded_size() -> None:
    world = World(2)
    here, there = world.alive
    world.tick()
    count = 2 * MOST_IN_SIGNAL + 1
    for number in range(count):
        here.enter(f"room-{number % 3}", person(f"p{number}"))
    sizes = [len(signal) for signal in here.outgoing(world.now)]
    assert len(sizes) == 3
    assert max(sizes) < 100_000
    world.pass_heartbeats(1)
    assert sum(there.whole(f"room-{number}").count for number in range(3)) == count


def test_of_a_snapshot_with_a_part_missing_who_came_is_believed_and_not_who_left() -> None:
    world = World(2)
    here, there = world.alive
    count = 3 * MOST_IN_SIGNAL
    for number in range(count):
        here.enter("lobby", person(f"p{number}"))
    first, _, third = here.outgoing(world.now)
    there.heard(first, world.now)
    assert there.whole("lobby").count == MOST_IN_SIGNAL
    there.heard(third, world.now)
    assert there.whole("lobby").count == 2 * MOST_IN_SIGNAL
    world.pass_heartbeats(1)
    assert there.whole("lobby").count == count
    here.exit("lobby", person("p0"))
    here.enter("lobby", person("new"))
    first, _, third = here.outgoing(world.now + HEARTBEAT)
    for signal in (first, third):
        there.heard(signal, world.now)
    assert there.whole("lobby").count == count + 1
    world.pass_heartbeats(2)
    assert there.whole("lobby").count == count


def test_typing_is_told_now_and_then_and_not_in_a_crowd() -> None:
    world = World(2)
    here, there = world.alive
    here.enter("lobby", person("ada"))
    world.tick()
    told = [here.types("lobby", "ada", world.now + seconds) for seconds in (0, 1, 2, 3.1, 4)]
    assert told == [True, False, False, True, False]
    (signal,) = here.outgoing(world.now)
    assert there.heard(signal, world.now).typing == [("lobby", "ada")]
    assert there.heard(signal, world.now).typing == [], "the same signal again"
    for number in range(SHOWN):
        here.enter("lobby", person(f"p{number}"))
    assert not here.types("lobby", "ada", world.now + 100)


def test_typing_of_who_is_not_there_is_not_told() -> None:
    world = World(1)
    signal = {
        "type": "changes",
        "v": 1,
        "replica": "0" * 32,
        "seq": 1,
        "typing": {"lobby": ["mallory"]},
    }
    assert world.alive[0].heard(json.dumps(signal).encode(), 0).typing == []


CLAIM = ["0" * 16, 1]


@pytest.mark.parametrize(
    "more",
    [
        {"v": 2},
        {"type": "nothing"},
        {"replica": "me"},
        {"seq": -1},
        {"people": {"a room": {"ada": CLAIM}}},
        {"people": {"lobby": {"": CLAIM}}},
        {"people": {"lobby": {" ada": CLAIM}}},
        {"people": {"lobby": {"\u202eada": CLAIM}}},
        {"people": {"lobby": {"ada": ["short", 1]}}},
        {"people": {"lobby": {"ada": ["0" * 16, -1]}}},
        {"people": {"lobby": ["ada"]}},
        {"people": [[]]},
    ],
)
def test_a_signal_that_cannot_be_true_changes_nothing(more: dict[str, object]) -> None:
    (presence,) = World(1).alive
    presence.enter("lobby", person("bob"))
    signal = {"type": "snapshot", "v": 1, "replica": "0" * 32, "seq": 1, "people": {}} | more
    presence.heard(json.dumps(signal).encode(), 0)
    assert presence.foreign == 1
    assert names(presence) == ["bob"]


@given(st.binary())
def test_a_signal_may_be_any_bytes(payload: bytes) -> None:
    (presence,) = World(1).alive
    assert presence.heard(payload, 0) == ([], [])


PEOPLE = ["ada", "bob", "eve", "Ada", "dan", "flo"]


class Convergence(RuleBasedStateMachine):
    """Whatever happens to replicas, people and signals: after three heartbeats without faults,
    every replica has the correct state. A client that applies the changes has the same state as its
    replica.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World(2)
        self.inside: dict[Presence, Counter[tuple[str, Person]]] = {
            presence: Counter() for presence in self.world.alive
        }
        self.clients: dict[tuple[Presence, str], Client] = {}

    def tell(self) -> None:
        for presence in self.world.alive:
            for room in presence.due(self.world.now):
                frame = presence.changes(room, self.world.now)
                if (presence, room) in self.clients:
                    self.clients[presence, room].hear(frame)

    @rule(replica=st.integers(0, 3), name=st.sampled_from(PEOPLE), room=st.sampled_from("ab"))
    def join(self, replica: int, name: str, room: str) -> None:
        presence = self.world.alive[replica % len(self.world.alive)]
        who = person(name, name + "key")
        if code_of(presence, who, room) is None:
            self.inside[presence][room, who] += 1
            self.clients.setdefault((presence, room), Client()).hear(presence.whole(room))

    @rule(replica=st.integers(0, 3), which=st.integers(0, 100))
    def leave(self, replica: int, which: int) -> None:
        presence = self.world.alive[replica % len(self.world.alive)]
        if places := sorted(+self.inside[presence]):
            room, who = places[which % len(places)]
            self.go(presence, room, who)

    def go(self, presence: Presence, room: str, who: Person) -> None:
        presence.exit(room, who)
        self.inside[presence][room, who] -= 1
        if not any(place[0] == room for place in +self.inside[presence]):
            self.clients.pop((presence, room), None)

    @precondition(lambda self: len(self.world.alive) < 4)
    @rule()
    def start(self) -> None:
        self.inside[self.world.start()] = Counter()

    @precondition(lambda self: len(self.world.alive) > 1)
    @rule(replica=st.integers(0, 3))
    def kill(self, replica: int) -> None:
        dead = self.world.alive.pop(replica % len(self.world.alive))
        for place in [place for place in self.clients if place[0] is dead]:
            del self.clients[place]

    @rule(lost=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))), ticks=st.integers(1, 40))
    def time_passes(self, lost: set[tuple[int, int]], ticks: int) -> None:
        for _ in range(ticks):
            self.put_out(self.world.tick(lost))
            self.tell()

    def put_out(self, losers: list[tuple[Presence, str, str]]) -> None:
        for presence, room, user in losers:
            for place, who in list((+self.inside[presence]).elements()):
                if (place, who.user) == (room, user):
                    self.go(presence, room, who)

    @rule()
    def quiet(self) -> None:
        for _ in range(round(HEARTBEATS * HEARTBEAT / TICK) + 2):
            self.put_out(self.world.tick())
            self.tell()
        truth = {
            room: {
                who.user
                for presence in self.world.alive
                for place, who in +self.inside[presence]
                if place == room
            }
            for room in "ab"
        }
        for presence in self.world.alive:
            for room, users in truth.items():
                if room not in presence._rooms:
                    assert not users
                    continue
                whole = presence.whole(room)
                assert whole.count == len(users)
                assert set(whole.users) == (users if len(users) <= SHOWN else set())
                assert len({user.lower() for user in users}) == len(users)
        for (presence, room), client in self.clients.items():
            whole = presence.whole(room)
            assert client.count == whole.count
            assert client.users == (set(whole.users) or None)

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        for presence in self.world.alive:
            told = [presence._here, *presence._peers.values()]
            assert presence.places == sum(map(len, told))


TestConvergence = Convergence.TestCase
TestConvergence.settings = hypothesis_settings(max_examples=60, stateful_step_count=25)


@pytest.mark.parametrize("field", ["people", "reserved"])
def test_a_signal_with_more_than_a_replica_writes_is_foreign(field: str) -> None:
    """It would block the event loop for too long."""
    here = World(1).alive[0]
    claim = ["0123456789abcdef", 1] + ([1 << 50] if field == "reserved" else [])

    def signal(count: int, pad: int = 0) -> bytes:
        names = {f"p{number}": claim for number in range(count)}
        snapshot = {"type": "snapshot", "v": 1, "replica": "f" * 32, "seq": count, "holds": True}
        return json.dumps(snapshot | {field: {"lobby": names}, "pad": "x" * pad}).encode()

    here.heard(signal(MOST_IN_SIGNAL), 0)
    assert here.foreign == 0
    for bad in (signal(1001), signal(200, pad=300_000)):
        before = here.foreign
        here.heard(bad, 0)
        assert here.foreign == before + 1
