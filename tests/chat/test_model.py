"""Whatever people, replicas and the log do, everybody sees what the log has: live, after
reconnecting to any replica, and in the history.

Hypothesis generates the steps: people join, talk, repeat messages, delete them, disconnect and
return on another replica; replicas start, die and read at different speeds; the log is recreated.
After each step, everybody's view is compared with a model without replicas: a list of records and
the rules for repeats and deletions.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

import pytest
from conftest import until
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka_broker import KafkaBroker
from msgspec import json
from test_hub import Listening, Uncorked

from chat import window
from chat.hub import Hub
from chat.metrics import Metrics
from chat.protocol import Position, RefusedError
from chat.relay.base import (
    Batch,
    Entry,
    Listener,
    Portion,
    Record,
    Relay,
    Revision,
    UnavailableError,
    partition_of,
)
from chat.relay.kafka import KafkaRelay, reader, watcher
from chat.relay.kafka.record import decode, encode
from chat.relay.memory import MemoryLog, MemoryRelay
from chat.room import Person as Member

ROOMS = ("lobby", "kafka")
PEOPLE = 2
HISTORY, RECENT, WINDOW, PAGE = 4, 2, 8, 3

Ids = list[str]


class Log(Protocol):
    """A log under test: its contents, and what happens to it independently of replicas."""

    epoch: str
    ends: Sequence[int]

    def relay(self) -> Relay: ...

    def read(self, partition: int, start: int, end: int) -> Sequence[Entry]: ...

    def append(self, record: Record) -> None: ...

    async def settle(self, relays: Sequence[PacedRelay]) -> None:
        """Return when the relays have received everything that was appended."""


class InMemory(MemoryLog):
    def relay(self) -> Relay:
        return MemoryRelay(self, rewind=2 * WINDOW)

    async def settle(self, relays: Sequence[PacedRelay]) -> None:
        """They receive it within a few turns of the event loop."""


class InKafka:
    """A topic, read by a separate consumer."""

    def __init__(self, admin: KafkaAdminClient, bootstrap_servers: str, partitions: int) -> None:
        self._admin = admin
        self._servers = bootstrap_servers
        self._topic = f"model-{uuid.uuid4().hex[:12]}"
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
        self._producer = KafkaProducer(bootstrap_servers=bootstrap_servers, acks="all")
        made = {
            "num_partitions": partitions,
            "replication_factor": 1,
            "configs": {"message.timestamp.type": "LogAppendTime"},
        }
        self._admin.create_topics({self._topic: made})
        self._admin.wait_for_topics([self._topic])
        (described,) = self._admin.describe_topics([self._topic])
        self.epoch = str(described["topic_id"])
        self._entries: list[list[Entry]] = [[] for _ in range(partitions)]
        self._consumer.assign([TopicPartition(self._topic, n) for n in range(partitions)])
        self._consumer.seek_to_beginning()

    @property
    def ends(self) -> Sequence[int]:
        return [len(entries) for entries in self._entries]

    def relay(self) -> Relay:
        return KafkaRelay(
            [self._servers],
            self._topic,
            # Presence has its own tests.
            "no-signals",
            client_id="model",
            rewind=2 * WINDOW,
            in_flight=1000,
            in_flight_bytes=1 << 20,
            delivery_seconds=30,
        )

    def read(self, partition: int, start: int, end: int) -> Sequence[Entry]:
        return self._entries[partition][start:end]

    def append(self, record: Record) -> None:
        self._producer.send(
            self._topic,
            value=encode(record),
            partition=partition_of(record.room, len(self._entries)),
        ).get(10)

    async def settle(self, relays: Sequence[PacedRelay]) -> None:
        await asyncio.gather(*(held for relay in relays for held in relay.appended))
        self._read_on()
        await until(lambda: all(relay.has_got(self) for relay in relays))

    def _read_on(self) -> None:
        partitions = self._consumer.assignment()
        ends = self._consumer.end_offsets(partitions)
        while any(self._consumer.position(tp) < end for tp, end in ends.items()):
            for tp, records in self._consumer.poll(timeout_ms=100).items():
                for record in records:
                    known = decode(record.value)
                    assert isinstance(known, Record)
                    self._entries[tp.partition].append(
                        Entry(record.offset, record.timestamp, known)
                    )

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
        self._admin.delete_topics([self._topic])


class PacedRelay(Relay):
    """Delivers what another relay reads, record by record, as far as the test allows."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._calls: deque[tuple[Any, ...]] = deque()
        # What was received, and how much of it the listener got.
        self._got: tuple[str, dict[int, int]] = ("", {})
        self.epoch = ""
        self.position: dict[int, int] = {}
        self.appended: list[asyncio.Future[None]] = []

    @property
    def up(self) -> bool:
        return self._relay.up

    @property
    def caught_up(self) -> bool:
        return self._relay.caught_up

    async def start(self, listener: Listener) -> None:
        self._told = listener
        await self._relay.start(self)

    def append(self, record: Record) -> asyncio.Future[None]:
        held = self._relay.append(record)
        self.appended.append(held)
        return held

    async def read(self, partition: int, after: int, upto: int) -> Portion:
        if self._got[0] != self.epoch:
            raise UnavailableError("This is another log than what was delivered.")
        return await self._relay.read(partition, after, upto)

    def signal(self, payload: bytes) -> None:
        self._relay.signal(payload)

    async def stop(self, seconds: float) -> None:
        await self._relay.stop(seconds)

    def reset(self, epoch: str, positions: Sequence[int]) -> None:
        self._got = (epoch, dict(enumerate(positions)))
        self._calls.append((self._told.reset, epoch, list(positions)))

    def deliver(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._got[1][batch.partition] = batch.position
            for entry in batch.entries:
                times = [(entry.offset, entry.ts)]
                self._calls.append(
                    (self._told.deliver, [Batch(batch.partition, entry.offset, [entry], times)])
                )

    def signalled(self, payloads: Sequence[bytes]) -> None:
        self._told.signalled(payloads)

    def has_got(self, log: Log) -> bool:
        """Whether everything in the log was received."""
        ends = {partition: end - 1 for partition, end in enumerate(log.ends)}
        return self.up and self.caught_up and self._got == (log.epoch, ends)

    def advance(self, records: int | None = None) -> None:
        for _ in range(len(self._calls) if records is None else min(records, len(self._calls))):
            call, *arguments = self._calls.popleft()
            if call == self._told.reset:
                self.epoch, self.position = arguments[0], dict(enumerate(arguments[1]))
            else:
                self.position[arguments[0][0].partition] = arguments[0][0].position
            call(*arguments)


class Replica:
    def __init__(self, log: Log) -> None:
        self.relay = PacedRelay(log.relay())
        self.hub = Hub(
            self.relay,
            Uncorked(),
            Metrics(),
            history=HISTORY,
            recent=RECENT,
            window=WINDOW,
            page=PAGE,
            page_bytes=1 << 20,
            scan=10 * WINDOW,
            # Disable everything that depends on a clock.
            position_seconds=3600,
            heartbeat=3600,
            members_shown=100,
            typing_seconds=3600,
            name_hold=0,
        )


class Person:
    """A person in one room, what they saw since their last reload, and what they sent."""

    def __init__(self, name: str, room: str) -> None:
        self.name = name
        self.author = Member.of(name, name).author
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
        self.log = self.make_log()
        self.past: dict[str, list[list[Entry]]] = {}
        self.revised = 0
        self.replicas: list[Replica] = []
        self.people = [Person(f"{room}-{n}", room) for room in ROOMS for n in range(PEOPLE)]

    def make_log(self) -> Log:
        return InMemory(2)

    def run_(self, doing: Coroutine[Any, Any, Any]) -> Any:
        done = self.loop.run_until_complete(doing)
        self.loop.run_until_complete(self.log.settle([one.relay for one in self.replicas]))
        # Run what was scheduled for later.
        for _ in range(5):
            self.loop.run_until_complete(asyncio.sleep(0))
        return done

    # The model: the log, and the rule for repeats.

    def records(self, epoch: str) -> list[list[Entry]]:
        if epoch != self.log.epoch:
            return self.past[epoch]
        return [list(self.log.read(p, 0, end)) for p, end in enumerate(self.log.ends)]

    def messages(self, epoch: str, room: str, read: float = -1) -> dict[str, str]:
        """The ids of the room's messages, in order, each with its cid: without those that were
        deleted up to offset `read`.
        """
        last: dict[tuple[str, str], int] = {}
        found = {}
        partitions = self.records(epoch)
        number = partition_of(room, len(partitions))
        for entry in partitions[number]:
            record = entry.record
            if record.room != room:
                continue
            if isinstance(record, Revision):
                if entry.offset <= read:
                    of = Position(epoch, number, record.offset, record.time)
                    found.pop(str(of), None)
                continue
            before = last.get((record.user, record.cid))
            last[record.user, record.cid] = entry.offset
            if before is None or entry.offset - before >= WINDOW:
                found[str(Position(epoch, number, entry.offset, entry.ts))] = record.cid
        return found

    # Steps.

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
        self.replicas.append(replica)
        self.run_(replica.hub.start())
        replica.relay.advance()

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
        """Whether the replica must be able to return what came after the position."""
        if since.epoch != self.log.epoch or replica.relay.epoch != self.log.epoch:
            return False
        read = replica.relay.position.get(since.partition, -1)
        missed = [
            entry
            for entry in self.records(since.epoch)[since.partition]
            if since.offset < entry.offset <= read and entry.record.room == person.room
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
        """Send a new message, or repeat an older one whose sender may not know that it was
        accepted.
        """
        here = [person for person in self.people if person.connection is not None]
        if not here:
            return
        person = here[who % len(here)]

        async def send(cid: str) -> None:
            assert person.replica is not None
            person.replica.hub.send(person.connection, person.room, cid, cid)

        for ago in texts:
            if not 0 < ago <= len(person.said):
                person.said.append(f"c-{len(person.said)}")
                ago = 1
            with contextlib.suppress(RefusedError):
                self.run_(send(person.said[-ago]))

    @rule(who=st.integers(0, 99), ago=st.integers(1, 9))
    def delete(self, who: int, ago: int) -> None:
        """Those of others are refused, and so are those of another log."""
        here = [person for person in self.people if person.connection is not None]
        if not here:
            return
        person = here[who % len(here)]
        self.hear(person)
        if ago > len(person.view):
            return
        self.revised += 1
        of, cid = person.view[-ago], f"d-{self.revised}"
        assert person.replica is not None
        with contextlib.suppress(RefusedError):
            self.run_(person.replica.hub.revise(person.connection, person.room, of, "", cid))

    @rule(who=st.integers(0, 99), ago=st.integers(1, 9))
    def be_appended_twice(self, who: int, ago: int) -> None:
        """A refused message may be in the log nevertheless, and is then there twice."""
        person = self.people[who % len(self.people)]
        if ago <= len(person.said):
            cid = person.said[-ago]

            async def append() -> None:
                self.log.append(Record(person.room, person.name, cid, cid, person.author))

            self.run_(append())

    @rule(partitions=st.integers(1, 3))
    def make_the_log_anew(self, partitions: int) -> None:
        # Kafka needs seconds until all brokers know a recreated topic, so another test covers that.
        log = self.log
        if not isinstance(log, InMemory) or not any(log.ends):
            return
        self.past[log.epoch] = self.records(log.epoch)

        async def recreate() -> None:
            log.recreate(partitions)

        self.run_(recreate())

    # Invariants.

    def hear(self, person: Person) -> None:
        """Process what the person was sent, like a client."""
        assert person.connection is not None
        for frame in person.connection.frames:
            match frame["type"]:
                case "joined":
                    told = [message["id"] for message in frame["messages"]]
                    gone = frame.get("deleted", ())
                    person.view = [one for one in person.view if one not in gone]
                    person.view = person.view + told if frame["recovered"] else told
                    person.position = frame["position"]
                case "message":
                    person.view.append(frame["id"])
                    person.position = frame["id"]
                case "deleted":
                    person.view = [one for one in person.view if one != frame["id"]]
                    person.position = frame["position"]
                case "ack" if not frame["cid"].startswith("d-"):
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
            offset = reached.offset
            if person.replica is not None:
                offset = max(offset, person.replica.relay.position[reached.partition])
            messages = list(self.messages(reached.epoch, person.room, offset))
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
                everything = list(self.messages(self.log.epoch, room, math.inf))
                for replica in self.replicas:
                    assert self.run_(self.all_pages(replica.hub, room)) == everything
            for person in self.people:
                if person.connection is None:
                    self.join(self.away().index(person), 0)
            self.everybody_saw_what_the_log_says()
            for person in self.people:
                everything = list(self.messages(self.log.epoch, person.room, math.inf))
                # After a reload, a room without messages in the window shows nothing.
                last = person.view[-RECENT:]
                assert last == everything[len(everything) - len(last) :]
        finally:
            while self.replicas:
                self.run_(self.replicas.pop().hub.stop(0))
            self.loop.close()

    def away(self) -> list[Person]:
        return [person for person in self.people if person.connection is None]

    async def all_pages(self, hub: Hub, room: str) -> Ids:
        """The whole history of a room, from its start."""
        found: Ids = []
        position = None
        while True:
            page = await hub.after(room, position, PAGE, "")
            found += [json.decode(message.payload)["id"] for message in page.messages]
            if not page.more:
                return found
            position = str(page.position)


@pytest.fixture(autouse=True)
def nobody_waits_for_a_replica_to_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "AHEAD_SECONDS", 0)


def test_replicas_and_history_say_what_the_log_says() -> None:
    run_state_machine_as_test(
        Replicas, settings=settings(max_examples=40, stateful_step_count=50, deadline=None)
    )


def test_replicas_and_history_say_what_kafka_says(
    kafka_admin: KafkaAdminClient, kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with few examples, because each takes seconds."""
    monkeypatch.setattr(watcher, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(reader, "POLL_MS", 50)
    with contextlib.ExitStack() as logs:

        def make_log(_: Replicas) -> Log:
            log = InKafka(kafka_admin, kafka_broker.bootstrap_servers, 2)
            logs.callback(log.close)
            return log

        monkeypatch.setattr(Replicas, "make_log", make_log)
        run_state_machine_as_test(
            Replicas,
            # Report a failure without shrinking it, which would take minutes.
            settings=settings(
                max_examples=6,
                stateful_step_count=40,
                deadline=None,
                phases=[Phase.generate],
            ),
        )
