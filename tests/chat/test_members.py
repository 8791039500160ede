"""Private rooms: people make them and invite others; members alone use one, on all replicas."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from chat_client import ChatClient, Frame
from conftest import PARTITIONS, Replica, members_of, until
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType
from provider import Provider
from test_api_send import send as post
from test_rights import client, every_answer
from test_sanctions import author_of, shows_nothing
from test_server import get

from chat import agreed
from chat import members as module
from chat.bounds import INVITATION_SECONDS, PRIVATE_MEMBERS
from chat.client import DisconnectedError, RefusedError, connect
from chat.limits import Budgets
from chat.members import MOST_BYTES, MOST_INVITATIONS, Members, Role, State
from chat.protocol import CloseCode, ErrorCode
from chat.relay.base import UnavailableError
from chat.relay.register import Kept, MemoryRegister, Note, Take, ignore
from chat.rights import parse
from chat.server import Server
from chat.settings import SettingsError, load
from tests.kafka_broker import KafkaBroker

# For what goes through a broker, also if the machine is busy.
KAFKA_SECONDS = 10.0
PEOPLE = ANN, BOB, DAN, EVE, FAY = tuple(letter * 32 for letter in "abdef")


# Replicas that share a register.


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """A compacted topic: records with keys. A value that is empty removes its key."""

    def __init__(self) -> None:
        self.records: list[Kept | None] = []
        # The same, before anything was compacted.
        self.history: list[Kept] = []

    def append(self, key: str, value: bytes, ts: float) -> None:
        self.history.append(Kept(round(1000 * ts), value, key.encode()))
        self.records.append(self.history[-1])

    def counted(self, room: str) -> list[State]:
        """The states of a room that ever counted."""
        states: list[State] = []
        for state in (
            module._decoder.decode(one.value)
            for one in self.history
            if one.value and not one.key.startswith(b"secret:")
        ):
            if state.room == room and state.version > (states[-1].version if states else 0):
                states.append(state)
        return states

    def compact(self, end: int, *, tombstones: bool) -> None:
        """Up to a place, keep the last record of each key; and no removals, if `tombstones`."""
        last = {one.key: at for at, one in enumerate(self.records[:end]) if one is not None}
        for at, one in enumerate(self.records[:end]):
            if one is not None and (last[one.key] != at or (tombstones and not one.value)):
                self.records[at] = None


class Shared(MemoryRegister):
    """A replica's view of a log, which it has read up to a place."""

    def __init__(self, log: Log, clock: Clock) -> None:
        super().__init__()
        self.log = log
        self.clock = clock
        self.read = 0
        self.puts: list[str] = []
        # What becomes of the next puts: stored, and whether the answer arrives.
        self.fates: list[tuple[bool, bool]] = []

    async def start(self, take: Take, *, begin: Note = ignore, whole: Note = ignore) -> None:
        self.take, self.begin, self.whole = take, begin, whole
        self.again()

    async def put(self, key: str, value: bytes) -> None:
        stored, answered = self.fates.pop() if self.fates else (True, True)
        self.puts.append(key)
        if stored:
            self.log.append(key, value, self.clock())
        if not answered:
            raise UnavailableError("Kafka did not take it.")

    def deliver(self, most: int = 1_000_000) -> None:
        found = self.log.records[self.read : self.read + most]
        self.read += len(found)
        self.take([one for one in found if one is not None])

    def again(self) -> None:
        """Everything is delivered from the beginning, in two parts."""
        self.begin()
        self.read = 0
        self.deliver(len(self.log.records) // 2)
        self.deliver()
        self.whole()


class Cluster:
    """Replicas, and what people tried. Each does one thing at a time."""

    def __init__(self, replicas: int = 2) -> None:
        self.clock = Clock()
        self.log = Log()
        self.registers = [Shared(self.log, self.clock) for _ in range(replicas)]
        self.replicas = [Members(register, self.clock) for register in self.registers]
        self.told: list[tuple[str, set[str]]] = []

    async def start(self) -> Cluster:
        for replica in self.replicas:
            await replica.start(lambda room, authors: self.told.append((room, set(authors))))
        return self

    async def settle(self) -> None:
        """Deliver until nothing is on its way."""
        for _ in range(3):
            for register in self.registers:
                register.deliver()
            for _ in range(5):
                await asyncio.sleep(0)

    async def do(self, what: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.create_task(what)
        while not task.done():
            await self.settle()
        return await task

    async def room(self, *others: str, uses: int = 9) -> tuple[str, str]:
        """A room of Ann's with others in it, and an invitation for more."""
        one = self.replicas[0]
        room = await self.do(one.make(ANN))
        _, token = await self.do(one.invite(room, ANN, 600, uses + len(others)))
        for other in others:
            await self.do(one.accept(token, other))
        return room, token


def shown(replica: Members) -> dict[str, State]:
    table = replica._table
    return {room: record.state for room, record in table._counting.items()}


@pytest.fixture
async def cluster() -> Cluster:
    return await Cluster().start()


async def test_an_invitation_lets_in_as_many_as_it_says_whoever_asks_first_and_where(
    cluster: Cluster,
) -> None:
    room, token = await cluster.room(uses=2)
    # All replicas take one of them at the same moment, and none knows of the others.
    tries = [
        asyncio.create_task(cluster.replicas[n % 2].accept(token, who))
        for n, who in enumerate((BOB, DAN, EVE, FAY))
    ]
    for _ in range(20):
        await cluster.settle()
    results = await asyncio.gather(*tries, return_exceptions=True)
    refused = [one for one in results if isinstance(one, RefusedError)]
    assert results.count(room) == 2
    assert [one.code for one in refused] == [ErrorCode.NO_INVITATION] * 2
    for replica in cluster.replicas:
        assert len(replica._table.roles(room)) == 3
        assert replica._table.get(room).invitations == []  # type: ignore[union-attr]
        for who, result in zip((BOB, DAN, EVE, FAY), results, strict=True):
            assert (replica.role(room, who) is Role.MEMBER) == (result == room), "as they were told"


async def test_who_was_let_in_uses_up_nothing_by_asking_again(cluster: Cluster) -> None:
    room, token = await cluster.room(uses=2)
    one, other = cluster.replicas
    assert {await cluster.do(at.accept(token, BOB)) for at in (one, one, other)} == {room}
    await cluster.do(other.accept(token, DAN))
    assert await cluster.do(one.accept(token, BOB)) == room, "also when it is used up"
    assert await cluster.do(one.accept(token, ANN)) == room


async def test_an_invitation_ends_by_its_time_by_its_owner_and_with_a_removal(
    cluster: Cluster,
) -> None:
    room, token = await cluster.room(BOB)
    one, other = cluster.replicas

    async def refused(token: str) -> None:
        for at in (one, other):
            with pytest.raises(RefusedError) as why:
                await cluster.do(at.accept(token, EVE))
            assert why.value.code is ErrorCode.NO_INVITATION
            assert why.value.message == module.protocol.no_invitation().message

    for guess in ("", ".", room, f"{room}.", f"{room}.{'x' * 32}", f"private-{'0' * 32}.x", "\0"):
        await refused(guess)
    cluster.clock.now += 600
    await refused(token)
    identity, token = await cluster.do(one.invite(room, ANN, 600, 1))
    await cluster.do(other.revoke(room, identity, ANN))
    await refused(token)
    await cluster.do(other.revoke(room, identity, ANN))
    _, token = await cluster.do(one.invite(room, ANN, 600, 1))
    await cluster.do(one.remove(room, BOB, ANN))
    await refused(token)
    assert not [one for one in cluster.log.records if one and token.encode() in one.value]


async def test_owners_who_remove_each_other_at_once_agree_on_who_is_left(
    cluster: Cluster,
) -> None:
    room, _ = await cluster.room(BOB, DAN)
    one, other = cluster.replicas
    await cluster.do(one.promote(room, BOB, ANN))
    tries = [
        asyncio.create_task(one.remove(room, BOB, ANN)),
        asyncio.create_task(other.remove(room, ANN, BOB)),
    ]
    await cluster.settle()
    await cluster.settle()
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], RefusedError)
    assert results[1].code is ErrorCode.BAD_ROOM, "he is no member any more"
    assert shown(one) == shown(other)
    assert (one.role(room, ANN), one.role(room, BOB)) == (Role.OWNER, None)


async def test_a_room_always_has_an_owner_until_the_last_member_has_left(cluster: Cluster) -> None:
    room, token = await cluster.room(BOB, DAN)
    one, other = cluster.replicas
    await cluster.do(one.remove(room, ANN, ANN))
    assert [other.role(room, who) for who in (ANN, BOB, DAN)] == [None, Role.OWNER, Role.MEMBER]
    await cluster.do(other.remove(room, DAN, BOB))
    await cluster.do(other.remove(room, BOB, BOB))
    cluster.clock.now += module.ENDED_SECONDS + 1
    assert (one.count(direct=False), one.rooms(BOB)) == (0, [])
    for what in (one.accept(token, EVE), one.invite(room, BOB, 60, 1), one.remove(room, BOB, BOB)):
        with pytest.raises(RefusedError):
            await cluster.do(what)


async def test_members_have_the_name_under_which_they_came_until_they_leave(
    cluster: Cluster,
) -> None:
    one, other = cluster.replicas
    room = await cluster.do(one.make(ANN, "Ann"))
    _, token = await cluster.do(one.invite(room, ANN, 600, 9))
    # Eve was let in by a release that keeps no names.
    for who, name in ((BOB, "Bob"), (DAN, "Dan\u202e"), (EVE, "")):
        await cluster.do(other.accept(token, who, name))
    await cluster.do(other.accept(token, BOB, "Robert"))
    await cluster.do(one.promote(room, BOB, ANN))
    shown = other.show(room, EVE, "1")
    assert (shown.owners, shown.members) == ([ANN, BOB], [DAN, EVE])
    assert shown.names == {ANN: "Ann", BOB: "Bob", DAN: "Dan"}
    await cluster.do(one.remove(room, ANN, ANN))
    await cluster.do(one.remove(room, DAN, BOB))
    assert other.show(room, EVE, "1").names == {BOB: "Bob"}
    assert b"Ann" not in cluster.log.history[-1].value
    await cluster.do(one.remove(room, BOB, BOB))
    assert other.show(room, EVE, "1").names == {}


async def test_names_never_make_a_record_too_large_for_other_replicas(cluster: Cluster) -> None:
    one, other = cluster.replicas
    room = await cluster.do(one.make(ANN, "Ann"))
    people = [f"{n:032x}" for n in range(PRIVATE_MEMBERS - 2)]
    state = one._table.get(room)
    assert state is not None
    full = state.with_people([ANN], people, dict.fromkeys(people, '"' * 21) | {ANN: "Ann"})
    full = module._fitting(module.replace(full, version=7))
    cluster.log.append(full.key, module._encoder.encode(full), cluster.clock())
    await cluster.settle()
    assert other.show(room, ANN, "1").names == full.named
    _, token = await cluster.do(one.invite(room, ANN, 600, 9))
    await cluster.do(other.accept(token, BOB, "B" * 256))
    shown = one.show(room, BOB, "1")
    assert len(shown.members) == PRIVATE_MEMBERS - 1
    assert shown.names[ANN] == "Ann"
    assert BOB not in shown.names, "the longest go first"
    assert len(shown.names) > 100
    assert max(len(kept.value) for kept in cluster.log.history) <= MOST_BYTES


async def test_only_owners_invite_remove_others_and_promote(cluster: Cluster) -> None:
    room, _ = await cluster.room(BOB, DAN)
    one = cluster.replicas[0]

    asked: list[Callable[[str], Coroutine[Any, Any, Any]]] = [
        lambda by: one.invite(room, by, 60, 1),
        lambda by: one.revoke(room, ANN, by),
        lambda by: one.remove(room, DAN, by),
        lambda by: one.promote(room, DAN, by),
    ]
    for by, code in ((BOB, ErrorCode.NOT_MODERATOR), (EVE, ErrorCode.BAD_ROOM)):
        for what in asked:
            with pytest.raises(RefusedError) as refused:
                await cluster.do(what(by))
            assert refused.value.code is code
    with pytest.raises(RefusedError) as refused:
        await cluster.do(one.promote(room, EVE, ANN))
    assert refused.value.code is ErrorCode.BAD_AUTHOR
    await cluster.do(one.promote(room, BOB, ANN))
    for what in asked[1:3]:
        await cluster.do(what(BOB))
    before = len(cluster.log.records)
    await cluster.do(one.promote(room, ANN, BOB))
    await cluster.do(one.remove(room, DAN, BOB))
    assert len(cluster.log.records) == before, "nothing is to change"
    assert one.show(room, ANN, "1").owners == [ANN, BOB]


async def test_an_answer_of_kafka_that_is_lost_does_no_harm(cluster: Cluster) -> None:
    room, token = await cluster.room(uses=1)
    one, other = cluster.replicas
    for stored, who in ((False, BOB), (True, BOB)):
        cluster.registers[0].fates = [(stored, False)]
        with pytest.raises(RefusedError, match="It may count, or not: Kafka did not take it"):
            await cluster.do(one.accept(token, who))
        assert (one.role(room, BOB) is not None) is stored
    assert await cluster.do(one.accept(token, BOB)) == room
    with pytest.raises(RefusedError):
        await cluster.do(other.accept(token, DAN))
    # A record that is on its way while another change is made does not count.
    cluster.registers[0].fates = [(False, False)]
    with pytest.raises(RefusedError):
        await cluster.do(one.remove(room, BOB, ANN))
    state = one._table.get(room)
    assert state is not None
    late = module.replace(state, version=state.version + 1, id="0" * 16, members=[])
    await cluster.do(other.promote(room, BOB, ANN))
    cluster.log.append(late.key, module._encoder.encode(late), cluster.clock())
    await cluster.settle()
    assert one.role(room, BOB) is Role.OWNER
    assert one._put == {}, "nothing is kept"


async def test_a_replica_that_cannot_read_says_nothing_about_a_change(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, token = await cluster.room(BOB)
    one = cluster.replicas[0]
    puts = list(cluster.registers[0].puts)
    monkeypatch.setattr(Shared, "away", "no broker answers")
    # The last three change nothing, as far as this replica knows.
    for what in (
        one.make(ANN),
        one.accept(token, DAN),
        one.accept(token, BOB),
        one.revoke(room, DAN, ANN),
        one.remove(room, DAN, ANN),
    ):
        with pytest.raises(RefusedError, match="Kafka does not say") as refused:
            await cluster.do(what)
        assert refused.value.code is ErrorCode.UNAVAILABLE
    assert cluster.registers[0].puts == puts


async def test_a_replica_that_reads_everything_again_lets_nobody_back_in(cluster: Cluster) -> None:
    room, _ = await cluster.room(BOB, DAN)
    one = cluster.replicas[0]
    await cluster.do(one.remove(room, BOB, ANN))
    cluster.told.clear()
    register = cluster.registers[0]
    register.begin()
    register.read = 0
    for _ in cluster.log.records:
        register.deliver(1)
        assert [one.role(room, who) for who in (ANN, BOB, DAN)] == [Role.OWNER, None, Role.MEMBER]
    assert cluster.told == []
    register.whole()
    assert (shown(one), cluster.told) == (shown(cluster.replicas[1]), [])
    # A topic from which something was lost.
    cluster.log.records.clear()
    register.again()
    assert (one.count(direct=False), cluster.told) == (0, [(room, {ANN, DAN})])


async def test_a_record_that_was_stored_twice_counts_alike_before_and_after_compaction(
    cluster: Cluster,
) -> None:
    room, _ = await cluster.room(BOB)
    one, other = cluster.replicas
    state = one._table.get(room)
    assert state is not None
    first, second = (
        module.replace(state, version=9, id=letter * 16, members=[who])
        for letter, who in (("1", DAN), ("2", EVE))
    )
    for record in (first, second, first):
        cluster.log.append(record.key, module._encoder.encode(record), cluster.clock())
    await cluster.settle()
    cluster.log.compact(len(cluster.log.records), tombstones=True)
    cluster.registers[0].again()
    assert shown(one) == shown(other) == {room: second}


async def test_a_change_during_that_is_answered_when_it_is_known(cluster: Cluster) -> None:
    room, token = await cluster.room()
    one, register = cluster.replicas[0], cluster.registers[0]
    task = asyncio.create_task(one.accept(token, BOB))
    await asyncio.sleep(0)
    register.begin()
    register.read = 0
    register.deliver()
    await asyncio.sleep(0)
    assert not task.done()
    register.whole()
    assert await task == room
    assert len([key for key in register.puts if ":3:" in key]) == 1, "and not tried twice"


async def test_records_that_do_not_count_are_removed_and_the_last_of_a_room_a_day_later(
    cluster: Cluster,
) -> None:
    room, token = await cluster.room(BOB)
    one, other = cluster.replicas
    tries = [at.accept(token, who) for at, who in ((one, DAN), (other, EVE))]
    for task in [asyncio.create_task(what) for what in tries]:
        await cluster.do(asyncio.wait_for(task, 5))
    await cluster.do(one.remove(room, EVE, ANN))

    def kept() -> list[Kept | None]:
        cluster.log.compact(len(cluster.log.records), tombstones=True)
        return [record for record in cluster.log.records if record is not None]

    (record,) = kept()
    assert record is not None
    assert json.loads(record.value) == json.loads(module._encoder.encode(shown(other)[room]))
    for who in (ANN, BOB, DAN):
        await cluster.do(one.remove(room, who, who))
    await cluster.do(one.make(FAY))
    assert len(kept()) == 2, "its end is kept"
    assert one._table.of(DAN) == {room}, "and counts for who ended it"
    cluster.clock.now += module.ENDED_SECONDS + 1
    await cluster.do(other.make(FAY))
    assert len(kept()) == 2
    for replica in cluster.replicas:
        assert room not in shown(replica)
        assert replica._table.of(DAN) == set()
        assert replica._table._crowded == replica._table._ended == {}
        assert replica._table._records.keys() == shown(replica).keys()


class Timeless(asyncio.SelectorEventLoop):
    """Its time goes on only when a test says so: how fast the machine is decides nothing."""

    now = 0.0

    def time(self) -> float:
        return self.now


STEPS = st.lists(
    st.tuples(st.sampled_from(["do", "do", "deliver", "compact", "again"]), st.integers(0, 10**6)),
    min_size=10,
    max_size=60,
)


Steps = Sequence[tuple[str, int]]


def with_any_steps(test: Callable[[Steps], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test, with many lists of steps."""

    @hypothesis_settings(max_examples=100)
    @given(STEPS)
    def run(steps: Steps) -> None:
        with asyncio.Runner(loop_factory=Timeless) as runner:
            runner.run(test(steps))

    return run


@with_any_steps
async def test_all_replicas_agree_whatever_is_read_when_and_how_often(steps: Steps) -> None:
    cluster = await Cluster(3).start()
    room, token = await cluster.room(uses=3)

    def attempt(replica: Members, who: str, choice: random.Random) -> Coroutine[Any, Any, Any]:
        other = choice.choice(PEOPLE)
        match choice.randrange(5):
            case 0 | 1:
                return replica.accept(token, who, who[:3])
            case 2:
                return replica.promote(room, other, who)
            case 3:
                return replica.remove(room, other, who)
            case _:
                return replica.invite(room, who, 60, 2)

    tried = await play(cluster, steps, attempt)
    states = cluster.log.counted(room)
    assert [one.version for one in states] == [*range(1, len(states) + 1)], "none was overlooked"
    people = [{*one.owners, *one.members} for one in states]
    entered = sum(len(after - before) for before, after in itertools.pairwise(people))
    assert entered <= 3, "as many as the invitation says"
    for task, who in tried.items():
        if task.get_coro().__name__ == "accept":  # type: ignore[union-attr]
            assert task.exception() or any(who in one for one in people), "who is told so is in"


# What somebody tries on a replica.
Attempt = Callable[[Members, str, random.Random], Coroutine[Any, Any, Any]]


async def play(cluster: Cluster, steps: Steps, attempt: Attempt) -> dict[asyncio.Task[Any], str]:
    """Kafka compacts the log, loses answers, and delivers when it likes. Returns what was tried,
    and by whom, once all of it is answered and all replicas agree.
    """
    tasks: dict[asyncio.Task[Any], str] = {}
    for what, number in steps:
        choice = random.Random(number)
        at = choice.randrange(len(cluster.replicas))
        replica, register = cluster.replicas[at], cluster.registers[at]
        match what:
            case "do":
                if choice.random() < 0.1:
                    register.fates.append((choice.random() < 0.5, False))
                who = choice.choice(PEOPLE)
                tasks[asyncio.create_task(attempt(replica, who, choice))] = who
            case "deliver":
                register.deliver(choice.randrange(1, 4))
            case "compact":
                slowest = min(one.read for one in cluster.registers)
                cluster.log.compact(
                    choice.randrange(len(cluster.log.records) + 1)
                    if choice.random() < 0.5
                    else slowest,
                    tombstones=False,
                )
                cluster.log.compact(slowest, tombstones=True)
            case "again":
                register.again()
        for _ in range(4):
            await asyncio.sleep(0)
    await cluster.settle()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Timeless)
    while not all(task.done() for task in tasks):
        # What Kafka has compacted before a replica reads it never comes.
        loop.now += agreed.BACK_SECONDS / 2
        await cluster.settle()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, RefusedError) for one in results if isinstance(one, Exception))
    one, *others = cluster.replicas
    cluster.log.compact(random.Random(len(steps)).randrange(10), tombstones=True)
    late = await Cluster(1).start()
    late.registers[0].log = cluster.log
    late.registers[0].again()
    for other in (*others, *late.replicas):
        assert shown(other) == shown(one)
        for who in PEOPLE:
            assert other.listed(who, "") == one.listed(who, "")
        for bound in ("places", "blocks", "_rooms"):
            assert getattr(other._table, bound) == getattr(one._table, bound)
    return tasks


async def test_what_others_write_is_skipped_and_counted(cluster: Cluster) -> None:
    room, _ = await cluster.room(BOB)
    one = cluster.replicas[0]
    state = one._table.get(room)
    assert state is not None
    read = json.loads(module._encoder.encode(module.replace(state, version=9)))
    invited = {"id": ANN, "by": ANN, "until": 1, "left": 1}
    bad: list[dict[str, Any]] = [
        {"v": 2},
        {"room": "lobby"},
        {"room": room.upper()},
        {"version": 0},
        {"version": 2**60},
        {"id": "x"},
        {"by": "me"},
        {"owners": None},
        {"owners": ["everybody"]},
        {"owners": [f"{n:032x}" for n in range(PRIVATE_MEMBERS + 1)]},
        {"members": [f"{BOB}\n"]},
        {"invitations": [invited] * (MOST_INVITATIONS + 1)},
        {"invitations": [invited | {"left": 0}]},
        {"names": ["Ann"]},
        {"names": ["Ann", "B" * 257]},
        {"more": "x" * MOST_BYTES},
    ]
    values = [json.dumps(read | more).encode() for more in bad]
    for value in (*values, b"\x00\xff", b"[" * 900, b"{}"):
        cluster.log.append(f"{room}:9:{state.id}", value, cluster.clock())
    cluster.log.append("other", json.dumps(read).encode(), cluster.clock())
    for key in ("other", f"{room}:x:y", "\x00", ""):
        cluster.log.append(key, b"", cluster.clock())
    await cluster.settle()
    assert [replica.foreign for replica in cluster.replicas] == [len(bad) + 4] * 2
    assert one._table.get(room) == state
    later = module.replace(state, version=9)
    value = json.dumps(read | {"more": "of a later release"}).encode()
    cluster.log.append(later.key, value, cluster.clock())
    await cluster.settle()
    assert one._table.get(room) == later


async def test_what_would_be_too_much_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cluster.replicas[0]

    async def refused(code: ErrorCode, what: Coroutine[Any, Any, Any]) -> None:
        with pytest.raises(RefusedError) as why:
            await cluster.do(what)
        assert why.value.code is code

    room, token = await cluster.room(BOB)
    monkeypatch.setattr(module, "MOST_INVITATIONS", 1)
    await refused(ErrorCode.FULL, one.invite(room, ANN, 60, 1))
    monkeypatch.setattr(module.bounds, "PRIVATE_MEMBERS", 2)
    await refused(ErrorCode.FULL, one.accept(token, DAN))
    monkeypatch.setattr(module.bounds, "PRIVATE_MEMBERS", 9)
    monkeypatch.setattr(module, "MOST_OF_ONE", 1)
    for who in (ANN, BOB):
        await refused(ErrorCode.TOO_MANY_ROOMS, one.make(who))
    other = await cluster.do(one.make(DAN))
    await cluster.do(one.remove(other, DAN, DAN))
    await refused(ErrorCode.TOO_MANY_ROOMS, one.accept(token, DAN))
    monkeypatch.setattr(module, "MOST_PLACES", 3)
    await refused(ErrorCode.FULL, one.accept(token, EVE))
    await refused(ErrorCode.FULL, one.make(EVE))
    monkeypatch.setattr(module, "MOST_PLACES", 99)
    monkeypatch.setattr(module, "MOST_ROOMS", 2)
    await refused(ErrorCode.FULL, one.make(EVE))
    await cluster.do(one.accept(token, EVE))
    assert one._table.places == 4
    many = [
        module.replace(State(1, f"private-{n:032x}", 1, "0" * 16, ANN, [ANN], [], []))
        for n in range(9)
    ]
    for state in many:
        cluster.log.append(state.key, module._encoder.encode(state), cluster.clock())
    await cluster.settle()
    assert (len(one._table._counting), one.foreign) == (4, 7)


async def test_what_others_write_over_a_record_ends_it_before_and_after_compaction(
    cluster: Cluster,
) -> None:
    room, _ = await cluster.room(BOB)
    one, other = cluster.replicas
    state = one._table.get(room)
    assert state is not None
    later = module.replace(state, version=9, members=[])
    cluster.log.append(later.key, module._encoder.encode(later), cluster.clock())
    cluster.log.append(later.key, b"{}", cluster.clock())
    cluster.told.clear()
    await cluster.settle()
    cluster.log.compact(len(cluster.log.records), tombstones=True)
    cluster.registers[0].again()
    assert shown(one) == shown(other) == {room: state}
    cluster.log.append(state.key, b"{}", cluster.clock())
    await cluster.settle()
    assert shown(one) == shown(other) == {}
    assert cluster.told == [(room, {BOB})] * 2 + [(room, {ANN, BOB})] * 2
    assert other.foreign == 2


async def test_rooms_that_ended_a_day_ago_lock_nobody_out(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cluster.replicas[0]
    ended = await cluster.do(one.make(ANN))
    await cluster.do(one.remove(ended, ANN, ANN))
    for bound in ("MOST_OF_ONE", "MOST_ROOMS"):
        with monkeypatch.context() as patch:
            patch.setattr(module, bound, 1)
            with pytest.raises(RefusedError):
                await cluster.do(one.make(ANN))
    cluster.clock.now += module.ENDED_SECONDS + 1
    assert ended in one._table._counting, "nobody's change has removed it"
    monkeypatch.setattr(module, "MOST_OF_ONE", 1)
    monkeypatch.setattr(module, "MOST_ROOMS", 1)
    await cluster.do(one.make(ANN))
    assert ended not in one._table._counting


async def test_a_person_changes_only_so_much_and_guesses_only_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAKE_BURST", 2)
    monkeypatch.setattr(module, "BURST", 5)
    one = await Cluster(1).start()
    replica = one.replicas[0]
    for _ in range(2):
        await one.do(replica.make(ANN))
    with pytest.raises(RefusedError, match="in 300 seconds") as refused:
        await one.do(replica.make(ANN))
    assert refused.value.code is ErrorCode.RATE_LIMITED
    codes = []
    for _ in range(3):
        with pytest.raises(RefusedError) as refused:
            await one.do(replica.accept("guess", ANN))
        codes.append(refused.value.code)
    assert codes == [ErrorCode.NO_INVITATION] * 2 + [ErrorCode.RATE_LIMITED]
    await one.do(replica.make(BOB))


async def test_an_owner_writes_one_record_a_minute_however_often_they_ask(cluster: Cluster) -> None:
    room, _ = await cluster.room()
    one = cluster.replicas[0]
    one._budgets = Budgets(module.RATE, module.BURST, cluster.clock)
    before = len(cluster.log.counted(room))
    for _ in range(360):
        cluster.clock.now += 10
        with contextlib.suppress(RefusedError):
            await cluster.do(one.invite(room, ANN, 15, 1))
    written = len(cluster.log.counted(room)) - before
    assert module.BURST < written <= module.BURST + 60
    await cluster.do(one.make(BOB))


# The service.


@pytest.fixture
def environment(provider: Provider) -> dict[str, str]:
    return provider.environment() | {
        "CHAT_PRIVATE_ROOMS": "true",
        "CHAT_REVISIONS": "true",
        "CHAT_SANCTIONS": "true",
        "CHAT_ROOMS": '[{"rooms": "*", "read": []}, {"rooms": "lobby"}]',
    }


async def ask(one: ChatClient, what: str, **fields: Any) -> Frame:
    """Returns the answer, which is no error."""
    cid = uuid.uuid4().hex
    await one.say(type=what, cid=cid, **fields)
    answer = await one.hear("ack", "members", "rooms", "error", cid=cid)
    assert answer["type"] != "error", answer
    return answer


async def make(one: ChatClient, *others: ChatClient) -> str:
    """A private room in which all are, with one of whom as owner."""
    room: str = (await ask(one, "make"))["id"]
    if others:
        token = (await ask(one, "invite", room=room, seconds=60, uses=len(others)))["token"]
        for other in others:
            assert (await ask(other, "accept", token=token))["id"] == room
    return room


async def test_a_room_is_its_members_on_all_replicas_and_after_they_restart(
    replica: Replica, environment: dict[str, str], provider: Provider, kafka: dict[str, str]
) -> None:
    one, other = [await replica(kafka, environment) for _ in range(2)]
    ann, bob = author_of(provider, "ann"), author_of(provider, "bob")
    async with (
        client(one, provider, "ann") as owner,
        client(other, provider, "ann") as tab,
        client(other, provider, "bob") as member,
        client(one, provider, "bob") as again,
    ):
        room = await make(owner)
        invited = await ask(owner, "invite", room=room, seconds=60, uses=1)
        # It knows the owner and the invitation.
        await until(lambda: other._members and other._members._table.places == 2, KAFKA_SECONDS)
        assert (await ask(member, "accept", token=invited["token"]))["id"] == room
        await until(
            lambda: one._members and one._members.role(room, bob) is Role.MEMBER, KAFKA_SECONDS
        )
        for where, moderates in ((owner, True), (tab, True), (member, None), (again, None)):
            joined = await where.join(room)
            assert (joined.get("moderator"), joined["read_only"]) == (moderates, False)
        since = (await member.send(room, "among ourselves"))["id"]
        assert (await owner.hear("message"))["text"] == "among ourselves"
        listed = await ask(tab, "members", room=room)
        assert (listed["owners"], listed["members"], listed["invitations"]) == ([ann], [bob], [])
        assert listed["names"] == {ann: "ann", bob: "bob"}
        assert (await ask(member, "rooms"))["rooms"] == [room]
        await ask(owner, "remove", room=room, author=bob)
        await removed(room, member, again)
        for where in (member, again):
            assert (await where.refused(type="join", room=room, since=since))["code"] == "bad_room"
            assert (await ask(where, "rooms"))["rooms"] == []
        for server in (one, other):
            # What does not count any more is removed from the topic.
            table = server._members._table  # type: ignore[union-attr]
            await until(lambda table=table: not table._crowded)
    await asyncio.gather(one.drain(), other.drain())
    third = await replica(kafka, environment)
    assert b"chat_private_rooms 1.0" in third.metrics_text()
    async with client(third, provider, "ann") as owner, client(third, provider, "bob") as member:
        assert (await ask(owner, "rooms"))["owned"] == [room]
        assert (await owner.join(room))["messages"][0]["text"] == "among ourselves"
        assert (await member.refused(type="join", room=room))["code"] == "bad_room"


async def removed(room: str, *clients: ChatClient) -> None:
    async with asyncio.timeout(KAFKA_SECONDS):
        for one in clients:
            error = await one.hear("error")
            assert (error["code"], error["room"]) == ("bad_room", room)
            assert "until" not in error, "it is no ban"
            assert (await one.hear("left"))["room"] == room


async def test_a_removal_counts_in_the_turn_in_which_a_replica_reads_it(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it counts within a second wherever Kafka delivers it within a second."""
    async with client(server, provider, "ann") as ann, client(server, provider, "bob") as bob:
        room = await make(ann, bob)
        await bob.join(room)
        (session,) = (one for one in server._clients.values() if one.person.user == "bob")
        assert server._members is not None
        register = server._members._register
        assert isinstance(register, MemoryRegister)
        take = register._take
        assert take is not None
        here: list[bool] = []

        def watched(values: Sequence[Kept]) -> None:
            here.append(room in session._rooms)
            take(values)
            here.append(room in session._rooms)

        monkeypatch.setattr(register, "_take", watched)
        await ask(ann, "remove", room=room, author=author_of(provider, "bob"))
        assert here[:2] == [True, False]
        await removed(room, bob)


async def every_way(server: Server, provider: Provider, room: str, since: str) -> list[Any]:
    """What somebody gets who is no member, on each way to a room and to who is in it."""
    answers = await every_answer(server, provider, room, since)
    answers.append(
        await post(server, {"text": "hello", "cid": "1"}, room, **provider.headers("eve"))
    )
    async with client(server, provider, "eve") as eve:
        for frame in (
            {"type": "invite", "seconds": 1, "uses": 1},
            {"type": "revoke", "invitation": ANN},
            {"type": "remove", "author": ANN},
            {"type": "remove", "author": author_of(provider, "eve")},
            {"type": "promote", "author": ANN},
            {"type": "members"},
        ):
            answers.append(await eve.refused(**frame, room=room, cid="1"))
            answers[-1].pop("room", None)
    return answers


async def test_who_is_no_member_gets_the_answers_for_a_name_that_no_room_can_have(
    server: Server, provider: Provider
) -> None:
    async with client(server, provider, "ann") as ann, client(server, provider, "bob") as bob:
        room = await make(ann, bob)
        await ann.join(room)
        await ann.send(room, "secret")
        since = (await ann.send(room, "also secret"))["id"]
        ended = await make(bob)
        await ask(bob, "remove", room=ended, author=author_of(provider, "bob"))
        wanted = await every_way(server, provider, "no%20room", since)
        codes = [answer["code"] for answer in wanted if isinstance(answer, dict)]
        assert codes == ["bad_room"] * (12 + 6)
        absent = f"private-{'0' * 32}"
        for name in (room, room.upper(), absent, ended):
            assert await every_way(server, provider, name, since) == wanted, name
        headers = provider.headers("bob")
        assert (await get(server.port, f"/api/rooms/{room}/messages", **headers)).code == 200
        sent = {"text": "hello", "cid": "1"}
        assert (await post(server, sent, room, **headers))[0] == 200
        await ann.say(type="ping")
        await ann.hear("pong")
        assert "eve" not in json.dumps(ann.inbox)


@pytest.mark.parametrize("auth", ["off", "required"])
async def test_private_names_are_nobodys_where_there_are_no_private_rooms(
    replica: Replica, provider: Provider, auth: str
) -> None:
    server = await replica(provider.environment() if auth == "required" else {})
    room = f"private-{'a' * 32}"
    async with client(server, provider, "eve") as eve:
        assert "private" not in eve.welcome
        for name in (room, room.upper()):
            error = await eve.refused(type="join", room=name)
            assert (error["code"], "no such room" in error["message"]) == ("bad_room", True)
        assert (await eve.refused(type="make", cid="1"))["code"] == "bad_frame"
        for name in (f"{room}0", room[:-1], f"my-{room}", "private-plans"):
            await eve.join(name)
    headers = provider.headers() if auth == "required" else {}
    assert (await get(server.port, f"/api/rooms/{room}/messages", **headers)).code == 400


@pytest.mark.parametrize("what", ["join", "history", "request"])
async def test_a_removal_while_the_log_is_read_shows_nothing(
    replica: Replica,
    environment: dict[str, str],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    server = await replica(environment, CHAT_WINDOW="3")
    async with client(server, provider, "ann") as ann, client(server, provider, "eve") as eve:
        room = await make(ann, eve)
        removal = ask(ann, "remove", room=room, author=author_of(provider, "eve"))
        await shows_nothing(server, provider, monkeypatch, what, room, removal, writer=ann, eve=eve)


async def test_owners_delete_what_others_wrote_and_remove_instead_of_a_ban(
    server: Server, provider: Provider
) -> None:
    async with client(server, provider, "ann") as ann, client(server, provider, "bob") as bob:
        room = await make(ann, bob)
        me = author_of(provider, "bob")
        await ann.join(room)
        await bob.join(room)
        of = (await bob.send(room, "nonsense"))["id"]
        assert server._sanctions is not None
        for what in ("mute", "ban"):
            frame = {"type": what, "room": room, "author": me, "seconds": 60, "cid": "1"}
            error = await ann.refused(**frame)
            assert (error["code"], "`remove` the member" in error["message"]) == ("bad_frame", True)
            frame["author"] = author_of(provider, "ann")
            assert (await bob.refused(**frame))["code"] == "not_moderator"
        assert len(server._sanctions) == 0
        await ann.say(type="delete", room=room, id=of, cid="d")
        assert (await bob.hear("deleted"))["id"] == of
        await ask(ann, "promote", room=room, author=me)
        access = await bob.hear("access")
        assert (access["read_only"], access["moderator"]) == (False, True)
        await ask(ann, "remove", room=room, author=me)
        await removed(room, bob)


@pytest.mark.parametrize(
    ("frame", "code", "message"),
    [
        ({"type": "invite", "seconds": 0, "uses": 1}, "bad_frame", "`int` >= 1"),
        (
            {"type": "invite", "seconds": INVITATION_SECONDS + 1, "uses": 1},
            "bad_frame",
            "`int` <= 2592000",
        ),
        ({"type": "invite", "seconds": 60, "uses": 0}, "bad_frame", "`int` >= 1"),
        ({"type": "invite", "seconds": 60, "uses": 201}, "bad_frame", "`int` <= 200"),
        ({"type": "invite", "seconds": 60, "uses": 1, "cid": ""}, "bad_cid", "1 to 64"),
        ({"type": "make", "cid": "x" * 65}, "bad_cid", "1 to 64"),
        ({"type": "accept", "token": 7}, "bad_frame", "Expected `str`"),
        ({"type": "accept", "token": "\u0000é"}, "no_invitation", "no such invitation"),
        ({"type": "remove", "author": "x"}, "bad_author", "32 hexadecimal digits"),
        ({"type": "promote", "author": ANN}, "bad_author", "no member of private-"),
        ({"type": "members", "room": "lobby"}, "bad_room", "no such room"),
        ({"type": "remove", "room": "lobby", "author": ANN}, "bad_room", "no such room"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    server: Server, provider: Provider, frame: Frame, code: str, message: str
) -> None:
    async with client(server, provider, "ann") as ann:
        assert ann.welcome["private"] is True
        room = await make(ann)
        before = await ask(ann, "members", room=room)
        error = await ann.refused(**({"room": room, "cid": "1"} | frame))
        assert error["code"] == code
        assert re.search(message, error["message"])
        after = await ask(ann, "members", room=room)
        assert after | {"cid": ""} == before | {"cid": ""}
        assert (await ask(ann, "rooms"))["rooms"] == [room]


async def test_bots_make_rooms_and_invite_others(server: Server, provider: Provider) -> None:
    url = f"http://127.0.0.1:{server.port}/"
    async with (
        connect(url, token=provider.token("ann")) as ann,
        connect(url, token=provider.token("bob")) as bob,
    ):
        room = await ann.make_room()
        invitation = await ann.invite(room, 60, uses=2)
        assert isinstance(invitation.token, str)
        (open_,) = (await ann.members(room)).invitations or []
        assert (open_.id, open_.by, open_.left) == (invitation.id, ann.author, 2)
        assert await bob.accept(invitation.token) == room
        here = bob.room(room)
        await here.joined()
        await ann.send(room, "welcome")
        assert (await anext(here)).text == "welcome"  # type: ignore[union-attr]
        listed = await bob.members(room)
        assert (listed.owners, listed.members) == ([ann.author], [bob.author])
        assert (await bob.private_rooms()).rooms == [room]
        await ann.revoke(room, invitation.id)
        await ann.promote(room, bob.author)
        assert (await bob.private_rooms()).owned == [room]
        await ann.remove(room, bob.author)
        with pytest.raises(RefusedError) as refused:
            await anext(here)
        assert refused.value.code is ErrorCode.BAD_ROOM
        with pytest.raises(RefusedError) as refused:
            await bob.accept(invitation.token)
        assert refused.value.code is ErrorCode.NO_INVITATION
        await ann.remove(room, ann.author)
        assert (await ann.private_rooms()).rooms == []


async def test_a_bot_never_changes_a_room_twice(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def never(author: str, _name: str) -> str:
        asked.append(author)
        if len(asked) == 1:
            raise RefusedError(ErrorCode.UNAVAILABLE, "It may count, or not.")
        await asyncio.Event().wait()
        return ""

    assert server._members is not None
    monkeypatch.setattr(server._members, "make", never)
    url = f"http://127.0.0.1:{server.port}/"
    async with connect(url, token=provider.token("ann")) as bot:
        with pytest.raises(RefusedError, match="It may count, or not"):
            await bot.make_room()
        waiting = asyncio.create_task(bot.make_room())
        await until(lambda: len(asked) == 2)
        (session,) = server._clients.values()
        session.connection.close(CloseCode.RESTART, "the connection breaks")
        with pytest.raises(DisconnectedError, match="it may count, or not"):
            await waiting
        # What is asked without a connection waits for one.
        assert (await bot.private_rooms()).rooms == []
    assert len(asked) == 2


async def test_a_replica_is_not_ready_before_it_knows_all_members(
    replica: Replica,
    environment: dict[str, str],
    provider: Provider,
    kafka: dict[str, str],
    kafka_admin: KafkaAdminClient,
    kafka_broker: KafkaBroker,
) -> None:
    name = kafka["KAFKA_TOPIC"] + "-later"
    server = await replica(kafka, environment, {"KAFKA_MEMBER_TOPIC": name}, ready=False)
    await until(lambda: f"there is no topic {name}: create it" in server.look_ready())
    assert "members of private rooms are not read" in server.look_ready()
    answer = await get(server.port, "/api/rooms/lobby/messages", **provider.headers())
    assert (answer.code, b"members of private rooms are not read" in answer.body) == (503, True)
    kafka_admin.create_topics({name: {"num_partitions": PARTITIONS, "configs": {}}})
    await until(
        lambda: (
            "retention.ms=604800000: set it to -1, or cleanup.policy to compact"
            in server.look_ready()
        )
    )
    by_size = {
        "retention.ms": (AlterConfigOp.SET, "-1"),
        "retention.bytes": (AlterConfigOp.SET, "1000000"),
    }
    kafka_admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, by_size)])
    await until(
        lambda: (
            "retention.bytes=1000000: set it to -1, or cleanup.policy to compact"
            in server.look_ready()
        )
    )
    # What others write stops no replica.
    topic = members_of(kafka["KAFKA_TOPIC"])
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers)
    ) as producer:
        for key, value in ((b"x", b"\x00\xff"), (b"x", b"y" * 900_000), (b"\xff", None)):
            producer.send(topic, key=key, value=value, partition=0).get(10)
    server = await replica(kafka, environment)
    assert b"chat_foreign_members_total 2.0" in server.metrics_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"CHAT_PRIVATE_ROOMS": "true"}, "CHAT_PRIVATE_ROOMS='true': with CHAT_AUTH=off"),
        ({"KAFKA_MEMBER_TOPIC": "chat-sanctions"}, "KAFKA_MEMBER_TOPIC='chat-sanctions': give"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(given)


def test_a_rule_cannot_be_for_a_private_room() -> None:
    with pytest.raises(ValueError, match="private rooms have members, and no rules"):
        parse(json.dumps([{"rooms": f"Private-{'a' * 32}"}, {"rooms": "*"}]))
