"""Whatever people, replicas and the log do, everybody sees what the log says: live, when they come
back on any replica, and when they look it up.

Hypothesis plays: people join, talk, repeat themselves, vanish and come back somewhere else;
replicas start, die and read at their own pace; the log is made anew. After each step the view of
everybody is compared with a model that has no replicas: a list of records and the rule for repeats.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import json
from test_hub import Listening, Uncorked

from chat import hub as hub_module
from chat.hub import Hub, Stretch
from chat.metrics import Metrics
from chat.protocol import Position, RefusedError
from chat.relay.base import Batch, Entry, Listener, Record, partition_of
from chat.relay.memory import MemoryLog, MemoryRelay

ROOMS = ("lobby", "kafka")
PEOPLE = 2
HISTORY, RECENT, WINDOW, PAGE = 4, 2, 8, 3

Ids = list[str]


class PacedRelay(MemoryRelay):
    """Reads the log as far as the test lets it, record by record."""

    async def start(self, listener: Listener) -> None:
        self._told = listener
        self._calls: deque[tuple[Any, ...]] = deque()
        self.position: dict[int, int] = {}
        await super().start(self)
        self.advance()

    def reset(self, epoch: str, positions: Sequence[int]) -> None:
        self._calls.append((self._told.reset, epoch, list(positions)))

    def deliver(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            for entry in batch.entries:
                self._calls.append(
                    (self._told.deliver, [Batch(batch.partition, entry.offset, [entry])])
                )

    def signalled(self, payloads: Sequence[bytes]) -> None:
        self._told.signalled(payloads)

    def advance(self, records: int | None = None) -> None:
        for _ in range(len(self._calls) if records is None else min(records, len(self._calls))):
            call, *arguments = self._calls.popleft()
            if call == self._told.reset:
                self.position = dict(enumerate(arguments[1]))
            else:
                self.position[arguments[0][0].partition] = arguments[0][0].position
            call(*arguments)


class Replica:
    def __init__(self, log: MemoryLog) -> None:
        self.relay = PacedRelay(log, rewind=2 * WINDOW)
        self.hub = Hub(
            self.relay,
            Uncorked(),
            Metrics(),
            history=HISTORY,
            recent=RECENT,
            window=WINDOW,
            page=PAGE,
            scan=10 * WINDOW,
            # Nothing here waits for a clock.
            position_seconds=3600,
            heartbeat=3600,
            members_shown=100,
            typing_seconds=3600,
        )


class Person:
    """Somebody in one room, what they saw since they last had to begin anew, and what they said."""

    def __init__(self, name: str, room: str) -> None:
        self.name = name
        self.room = room
        self.connection: Listening | None = None
        self.replica: Replica | None = None
        self.view: Ids = []
        self.position: str | None = None
        self.said: list[str] = []
        self.acks: list[tuple[str, str]] = []


class Replicas(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.log = MemoryLog(2)
        self.past: dict[str, list[list[Entry]]] = {}
        self.replicas: list[Replica] = []
        self.people = [Person(f"{room}-{n}", room) for room in ROOMS for n in range(PEOPLE)]

    def run_(self, doing: Coroutine[Any, Any, Any]) -> Any:
        done = self.loop.run_until_complete(doing)
        # What it has scheduled for later is now.
        for _ in range(5):
            self.loop.run_until_complete(asyncio.sleep(0))
        return done

    # The model: the log, and what a repeat is.

    def records(self, epoch: str) -> list[list[Entry]]:
        if epoch != self.log.epoch:
            return self.past[epoch]
        return [list(self.log.read(p, 0, end)) for p, end in enumerate(self.log.ends)]

    def messages(self, epoch: str, room: str) -> dict[str, str]:
        """The ids of the room's messages, in order, each with its cid."""
        last: dict[tuple[str, str], int] = {}
        found = {}
        partitions = self.records(epoch)
        number = partition_of(room, len(partitions))
        for entry in partitions[number]:
            record = entry.record
            if record.room != room:
                continue
            before = last.get((record.user, record.cid))
            last[record.user, record.cid] = entry.offset
            if before is None or entry.offset - before >= WINDOW:
                found[str(Position(epoch, number, entry.offset))] = record.cid
        return found

    # What happens.

    @initialize()
    def begin(self) -> None:
        self.start_replica()
        self.start_replica()
        for number in range(len(self.people)):
            self.join(0, number)

    @precondition(lambda self: len(self.replicas) < 3)
    @rule()
    def start_replica(self) -> None:
        replica = Replica(self.log)
        self.run_(replica.hub.start())
        self.replicas.append(replica)

    @precondition(lambda self: len(self.replicas) > 1)
    @rule(which=st.integers(0, 2))
    def kill_replica(self, which: int) -> None:
        replica = self.replicas.pop(which % len(self.replicas))
        for person in self.people:
            if person.replica is replica:
                self.hear(person)
                person.connection = person.replica = None
        self.run_(replica.hub.stop(0))

    @rule(which=st.integers(0, 2), records=st.integers(1, 15))
    def read_on(self, which: int, records: int) -> None:
        self.replicas[which % len(self.replicas)].relay.advance(records)

    @rule()
    def everybody_reads_on(self) -> None:
        for replica in self.replicas:
            replica.relay.advance()

    @rule(who=st.integers(0, 99), which=st.integers(0, 2))
    def join(self, who: int, which: int) -> None:
        away = [person for person in self.people if person.connection is None]
        if not away:
            return
        person, replica = away[who % len(away)], self.replicas[which % len(self.replicas)]
        member = Listening(person.name, person.name)
        since = person.position
        self.run_(replica.hub.join(member, person.room, since))
        person.connection, person.replica = member, replica
        (answer,) = member.of("joined")
        if since is not None and not answer["recovered"]:
            assert not self.must_recover(replica, person, Position.parse(since))

    def must_recover(self, replica: Replica, person: Person, since: Position) -> bool:
        """Whether a replica has no excuse for not knowing what came after."""
        if since.epoch != self.log.epoch or replica.relay._epoch != self.log.epoch:
            return False
        read = replica.relay.position.get(since.partition, -1)
        missed = [
            one
            for one in map(Position.parse, self.messages(since.epoch, person.room))
            if since.offset < one.offset <= read
        ]
        return read - WINDOW <= since.offset <= read and len(missed) <= HISTORY

    @rule(who=st.integers(0, 99), which=st.integers(0, 2))
    def move(self, who: int, which: int) -> None:
        self.vanish(who)
        self.join(who, which)

    @rule(who=st.integers(0, 99))
    def vanish(self, who: int) -> None:
        here = [person for person in self.people if person.connection is not None]
        if not here:
            return
        person = here[who % len(here)]
        self.hear(person)
        assert person.replica is not None
        person.replica.hub.leave(person.connection, person.room)
        person.connection = person.replica = None

    @rule(who=st.integers(0, 99), texts=st.lists(st.integers(0, 9), min_size=1, max_size=6))
    def say(self, who: int, texts: list[int]) -> None:
        """Something new, or what they said some time ago: they may not know that it was taken."""
        here = [person for person in self.people if person.connection is not None]
        if not here:
            return
        person = here[who % len(here)]

        async def send(cid: str) -> None:
            assert person.replica is not None
            person.replica.hub.send(person.connection, person.room, person.name, cid, cid)

        for ago in texts:
            if not 0 < ago <= len(person.said):
                person.said.append(f"c-{len(person.said)}")
                ago = 1
            with contextlib.suppress(RefusedError):
                self.run_(send(person.said[-ago]))

    @rule(who=st.integers(0, 99), ago=st.integers(1, 9))
    def be_appended_twice(self, who: int, ago: int) -> None:
        """What was refused may be in the log all the same, and then it is there again."""
        person = self.people[who % len(self.people)]
        if ago <= len(person.said):
            cid = person.said[-ago]

            async def append() -> None:
                self.log.append(Record(person.room, person.name, cid, cid))

            self.run_(append())

    @rule(partitions=st.integers(1, 3))
    def make_the_log_anew(self, partitions: int) -> None:
        if not any(self.log.ends):
            return
        self.past[self.log.epoch] = self.records(self.log.epoch)

        async def recreate() -> None:
            self.log.recreate(partitions)

        self.run_(recreate())

    # What must hold.

    def hear(self, person: Person) -> None:
        """Take in what the person was sent, as a client does."""
        assert person.connection is not None
        for frame in person.connection.frames:
            match frame["type"]:
                case "joined":
                    told = [message["id"] for message in frame["messages"]]
                    person.view = person.view + told if frame["recovered"] else told
                    person.position = frame["position"]
                case "message":
                    person.view.append(frame["id"])
                    person.position = frame["id"]
                case "ack":
                    person.acks.append((frame["cid"], frame["id"]))
        person.connection.frames.clear()

    @invariant()
    def everybody_saw_what_the_log_says(self) -> None:
        for person in self.people:
            if person.connection is not None:
                self.hear(person)
                if person.connection.closed is not None:
                    person.connection = person.replica = None
            if person.position is None:
                continue
            reached = Position.parse(person.position)
            messages = list(self.messages(reached.epoch, person.room))
            offset = reached.offset
            if person.replica is not None:
                offset = max(offset, person.replica.relay.position[reached.partition])
            upto = [one for one in messages if Position.parse(one).offset <= offset]
            begin = messages.index(person.view[0]) if person.view else len(upto)
            assert person.view == upto[begin:]
            for cid, confirmed in person.acks:
                epoch = Position.parse(confirmed).epoch
                assert self.messages(epoch, person.room)[confirmed] == cid

    def teardown(self) -> None:
        try:
            self.everybody_reads_on()
            self.everybody_saw_what_the_log_says()
            for room in ROOMS:
                everything = list(self.messages(self.log.epoch, room))
                for replica in self.replicas:
                    assert self.run_(self.all_pages(replica.hub, room)) == everything
            for person in self.people:
                if person.connection is None:
                    self.join(self.away().index(person), 0)
            self.everybody_saw_what_the_log_says()
            for person in self.people:
                everything = list(self.messages(self.log.epoch, person.room))
                assert person.view[-RECENT:] == everything[-RECENT:][-len(person.view) :]
            for replica in self.replicas:
                self.run_(replica.hub.stop(0))
        finally:
            self.loop.close()

    def away(self) -> list[Person]:
        return [person for person in self.people if person.connection is None]

    async def all_pages(self, hub: Hub, room: str) -> Ids:
        """The whole history of a room, from its beginning."""
        found: Ids = []
        position = None
        while True:
            page: Stretch = await hub.after(room, position, PAGE)
            found += [json.decode(bytes(message))["id"] for message in page.messages]
            if not page.more:
                return found
            position = page.position


def test_replicas_and_history_say_what_the_log_says(monkeypatch: pytest.MonkeyPatch) -> None:
    # A replica that has not read so far is asked, and says so, rather than waited for.
    monkeypatch.setattr(hub_module, "AHEAD_SECONDS", 0)
    run_state_machine_as_test(
        Replicas, settings=settings(max_examples=40, stateful_step_count=50, deadline=None)
    )
