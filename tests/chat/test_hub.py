"""How a hub processes a log: rooms, history, repeats. Without sockets; the test plays the relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from conftest import until
from hypothesis import given
from hypothesis import strategies as st

from chat import protocol
from chat.hub import Hub
from chat.metrics import Metrics
from chat.protocol import CloseCode, ErrorCode, Position, RefusedError
from chat.relay.base import (
    Batch,
    Entry,
    Listener,
    Portion,
    Record,
    Relay,
    UnavailableError,
    partition_of,
)
from chat.rights import ALL
from chat.room import Person, Room
from chat.times import Times

PARTITIONS = 2
EPOCH = "log"


class PlayedRelay(Relay):
    """Appends go nowhere; the test delivers records itself."""

    def __init__(self) -> None:
        self.appended: list[tuple[Record, asyncio.Future[None]]] = []
        self.full = False
        self.is_caught_up = True

    @property
    def up(self) -> bool:
        return True

    @property
    def caught_up(self) -> bool:
        return self.is_caught_up

    async def start(self, listener: Listener) -> None:
        pass

    def append(self, record: Record) -> asyncio.Future[None]:
        if self.full:
            raise UnavailableError("The log is full.")
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.appended.append((record, held))
        return held

    async def read(self, partition: int, after: int, upto: int) -> Portion:  # noqa: ARG002
        raise UnavailableError("There is nothing to read back.")

    def signal(self, payload: bytes) -> None:
        pass

    async def stop(self, seconds: float) -> None:
        pass


class Listening:
    """A member that records its frames."""

    def __init__(self, user: str = "ada", secret: str = "") -> None:
        self.address = ""
        self.rights = ALL
        self.waiting_bytes = 0
        self.person = Person.of(user, secret)
        self.slow = False
        self.frames: list[dict[str, object]] = []
        self.closed: tuple[CloseCode, str] | None = None

    @property
    def connection(self) -> Listening:
        return self

    def push(self, frames: bytes) -> None:
        # The server's frames are not masked: the payload follows the size.
        while frames:
            size, start = frames[1], 2
            if size == 126:
                size, start = int.from_bytes(frames[2:4], "big"), 4
            self.frames.append(json.loads(frames[start : start + size]))
            frames = frames[start + size :]

    def write(self, frames: bytes) -> None:
        self.push(frames)

    def hold(self) -> None:
        pass

    def offer(self, frame: bytes) -> bool:
        if not self.slow:
            self.push(frame)
        return not self.slow

    def put_out(self, room: str, why: RefusedError) -> None:
        self.frames.append({"type": "error", "room": room, "code": why.code})

    def review(self, room: str) -> None:
        self.frames.append({"type": "access", "room": room})

    def close(self, code: CloseCode, reason: str) -> None:
        self.closed = (code, reason)

    def of(self, kind: str) -> list[dict[str, object]]:
        return [frame for frame in self.frames if frame["type"] == kind]


class Uncorked:
    """Outlets that write at once."""

    def cork(self) -> None:
        pass

    uncork = cork


def hub(
    relay: Relay | None = None,
    *,
    history: int = 100,
    recent: int = 10,
    window: int = 20,
    window_bytes: int = 1 << 20,
    page: int = 10,
    page_bytes: int = 1 << 20,
    scan: int = 100,
) -> Hub:
    made = Hub(
        relay or PlayedRelay(),
        Uncorked(),
        Metrics(),
        history=history,
        recent=recent,
        window=window,
        window_bytes=window_bytes,
        page=page,
        page_bytes=page_bytes,
        scan=scan,
        position_seconds=0.01,
        heartbeat=1,
        members_shown=3,
        typing_seconds=6,
        name_hold=0,
    )
    made.reset(EPOCH, [-1] * PARTITIONS)
    return made


def feed(made: Hub, log: Sequence[tuple[int, Record]], partition: int) -> None:
    entries = [Entry(offset, taken_at(offset), record) for offset, record in log]
    if entries:
        times = [(entry.offset, entry.ts) for entry in entries]
        made.deliver([Batch(partition, entries[-1].offset, entries, times)])


async def joined(made: Hub, room: str, since: str | None = None) -> dict[str, object]:
    member = Listening()
    await made.join(member, room, since)
    (answer,) = member.of("joined")
    made.leave(member, room)
    return answer


def texts(answer: dict[str, object]) -> list[str]:
    messages = answer["messages"]
    assert isinstance(messages, list)
    return [message["text"] for message in messages]


ROOM = "lobby"
AUTHOR = Person.of("ada", "").author
PARTITION = partition_of(ROOM, PARTITIONS)
# Another room in the same partition.
OTHER = next(name for name in "abcdefgh" if partition_of(name, PARTITIONS) == PARTITION)


def said(offset: int, cid: str = "", room: str = ROOM) -> tuple[int, Record]:
    return offset, Record(room, "ada", f"text {offset}", cid or str(offset), AUTHOR)


def taken_at(offset: int) -> int:
    """When the log stored a record, in milliseconds."""
    return 1000 + offset


def at(offset: int) -> str:
    return str(Position(EPOCH, PARTITION, offset, taken_at(offset) if offset >= 0 else 0))


async def test_a_newcomer_gets_the_recent_messages_oldest_first() -> None:
    made = hub(recent=3)
    feed(made, [said(n) for n in range(5)], PARTITION)
    answer = await joined(made, ROOM)
    assert texts(answer) == ["text 2", "text 3", "text 4"]
    assert (answer["recovered"], answer["position"]) == (False, at(4))


async def test_who_comes_back_gets_exactly_what_was_missed() -> None:
    made = hub()
    feed(made, [said(n) for n in range(5)], PARTITION)
    answer = await joined(made, ROOM, since=at(2))
    assert (answer["recovered"], texts(answer)) == (True, ["text 3", "text 4"])


async def test_who_missed_nothing_is_told_so() -> None:
    made = hub()
    feed(made, [said(n) for n in range(5)], PARTITION)
    answer = await joined(made, ROOM, since=at(4))
    assert (answer["recovered"], texts(answer)) == (True, [])


async def test_a_position_of_an_empty_log_recovers_everything() -> None:
    made = hub()
    before = await joined(made, ROOM)
    feed(made, [said(0)], PARTITION)
    answer = await joined(made, ROOM, since=str(before["position"]))
    assert (answer["recovered"], texts(answer)) == (True, ["text 0"])


@pytest.mark.parametrize(
    "since",
    ["", "nonsense", f"older:{PARTITION}:2", f"{EPOCH}:{1 - PARTITION}:2", f"{EPOCH}:99:2", at(9)],
)
async def test_a_position_that_is_not_of_this_log_is_not_recovered(
    since: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.window.AHEAD_SECONDS", 0.05)
    made = hub()
    feed(made, [said(n) for n in range(5)], PARTITION)
    answer = await joined(made, ROOM, since=since)
    assert (answer["recovered"], len(texts(answer))) == (False, 5)


async def test_a_position_before_the_window_is_not_recovered() -> None:
    made = hub(window=10)
    feed(made, [said(n) for n in range(15)], PARTITION)
    assert (await joined(made, ROOM, since=at(4)))["recovered"]
    assert not (await joined(made, ROOM, since=at(3)))["recovered"]


async def test_a_position_before_the_room_s_history_is_not_recovered() -> None:
    made = hub(history=3)
    feed(made, [said(n) for n in range(5)], PARTITION)
    assert texts(await joined(made, ROOM, since=at(1))) == ["text 2", "text 3", "text 4"]
    assert not (await joined(made, ROOM, since=at(0)))["recovered"]


async def test_who_has_seen_more_than_this_replica_waits_until_it_has_caught_up() -> None:
    made = hub()
    feed(made, [said(0)], PARTITION)
    member = Listening()
    joining = asyncio.create_task(made.join(member, ROOM, at(1)))
    await asyncio.sleep(0)
    assert not member.frames
    feed(made, [said(1), said(2)], PARTITION)
    await joining
    (answer,) = member.of("joined")
    assert (answer["recovered"], texts(answer)) == (True, ["text 2"])


async def test_a_repeat_is_shown_to_nobody_and_answered_with_the_first_id() -> None:
    relay = PlayedRelay()
    made = hub(relay)
    member = Listening()
    await made.join(member, ROOM, None)
    made.send(member, ROOM, "text 0", "cid")
    # Two replicas appended it.
    feed(made, [said(0, "cid"), said(1), said(2, "cid")], PARTITION)
    assert [message["id"] for message in member.of("message")] == [at(0), at(1)]
    assert member.of("ack") == [{"type": "ack", "cid": "cid", "id": at(0)}]
    made.send(member, ROOM, "text 0", "cid")
    assert member.of("ack")[1:] == [{"type": "ack", "cid": "cid", "id": at(0)}]
    assert len(relay.appended) == 1


async def test_another_user_s_or_another_room_s_cid_is_no_repeat() -> None:
    made = hub()
    log = [said(0, "cid"), said(1, "cid", OTHER), (2, Record(ROOM, "bob", "text 2", "cid"))]
    feed(made, log, PARTITION)
    assert texts(await joined(made, ROOM)) == ["text 0", "text 2"]
    assert texts(await joined(made, OTHER)) == ["text 1"]


async def test_an_ack_waits_for_the_log() -> None:
    relay = PlayedRelay()
    made = hub(relay)
    member = Listening()
    await made.join(member, ROOM, None)
    made.send(member, ROOM, "text 0", "0")
    ((_, held),) = relay.appended
    held.set_result(None)
    await asyncio.sleep(0)
    assert not member.of("ack")
    feed(made, [said(0)], PARTITION)
    assert [frame["type"] for frame in member.frames[-2:]] == ["message", "ack"]


async def test_a_message_that_is_under_way_is_not_appended_again_and_all_who_sent_it_are_told() -> (
    None
):
    relay = PlayedRelay()
    made = hub(relay)
    first, second = Listening(), Listening()
    made.send(first, ROOM, "text 0", "0")
    made.send(second, ROOM, "text 0", "0")
    assert len(relay.appended) == 1
    feed(made, [said(0)], PARTITION)
    assert first.of("ack") == second.of("ack") == [{"type": "ack", "cid": "0", "id": at(0)}]


async def test_what_the_log_does_not_take_is_refused_with_its_cid() -> None:
    relay = PlayedRelay()
    made = hub(relay)
    member = Listening()
    made.send(member, ROOM, "text 0", "0")
    ((_, held),) = relay.appended
    held.set_exception(UnavailableError("Not now."))
    await asyncio.sleep(0)
    refusal = {"type": "error", "code": "unavailable", "message": "Not now.", "cid": "0"}
    assert member.frames == [refusal]
    relay.full = True
    with pytest.raises(RefusedError) as refused:
        made.send(member, ROOM, "text 0", "0")
    assert refused.value.code is ErrorCode.UNAVAILABLE


async def test_before_the_log_is_read_nobody_is_shown_half_of_it() -> None:
    relay = PlayedRelay()
    relay.is_caught_up = False
    with pytest.raises(RefusedError) as refused:
        await hub(relay).join(Listening(), ROOM, None)
    assert refused.value.code is ErrorCode.UNAVAILABLE


async def test_positions_follow_the_log_also_where_nothing_was_said() -> None:
    made = hub()
    await made.start()
    member = Listening()
    await made.join(member, ROOM, None)
    feed(made, [said(0, room=OTHER)], PARTITION)
    await until(lambda: member.of("position"))
    # No further position frame while the log does not advance.
    await asyncio.sleep(0.05)
    assert member.of("position") == [{"type": "position", "room": ROOM, "position": at(0)}]
    assert not member.of("message")
    await made.stop(0)


async def test_when_the_log_is_replaced_members_are_sent_to_join_again() -> None:
    relay = PlayedRelay()
    made = hub(relay)
    member, sender = Listening(), Listening()
    await made.join(member, ROOM, None)
    feed(made, [said(0)], PARTITION)
    made.send(sender, ROOM, "text 1", "1")
    made.reset("another", [-1] * PARTITIONS)
    assert member.closed is not None
    assert member.closed[0] is CloseCode.RESTART
    assert [error["code"] for error in sender.of("error")] == ["unavailable"]
    answer = await joined(made, ROOM, since=at(0))
    assert (answer["recovered"], texts(answer)) == (False, [])
    assert str(answer["position"]).startswith("another:")


async def test_rooms_nobody_needs_are_forgotten() -> None:
    made = hub(window=10)
    for number in range(100):
        await joined(made, f"room-{number}")
    feed(made, [said(n, room=OTHER) for n in range(3)], PARTITION)
    assert list(made._window.rooms) == [OTHER]
    made.deliver([Batch(PARTITION, 50, [])])
    assert not made._window.rooms


# A sometimes repeated message, with records of other rooms and other writers in between.
logs = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from([ROOM, OTHER]), st.integers(0, 12)), max_size=80
)


def written(steps: list[tuple[int, str, int]]) -> list[tuple[int, Record]]:
    log, offset = [], -1
    for step, room, cid in steps:
        offset += step
        log.append(said(offset, f"cid {cid}", room))
    return log


@given(logs, st.integers(1, 30), st.data())
def test_every_replica_decides_alike_whenever_it_was_started(
    steps: list[tuple[int, str, int]], window: int, data: st.DataObject
) -> None:
    log = written(steps)
    end = log[-1][0] if log else -1
    old, young = hub(window=window), hub(window=window)
    feed(old, log, PARTITION)
    # The younger replica started two windows back, and gets other batches.
    start = max(0, end + 1 - 2 * window)
    young.reset(EPOCH, [start - 1] * PARTITIONS)
    rest = [entry for entry in log if entry[0] >= start]
    cut = data.draw(st.integers(0, len(rest)))
    feed(young, rest[:cut], PARTITION)
    feed(young, rest[cut:], PARTITION)
    for since in (None, *(at(offset) for offset in range(-1, end + 1))):
        for room in (ROOM, OTHER):
            one, other = (asyncio.run(joined(made, room, since)) for made in (old, young))
            assert one["messages"] == other["messages"]
            assert one["recovered"] == other["recovered"]


@given(logs, st.integers(-1, 200))
def test_what_was_seen_live_and_what_is_missed_are_together_all_that_was_said(
    steps: list[tuple[int, str, int]], left_at: int
) -> None:
    log = written(steps)

    async def play() -> None:
        made = hub(window=1000)
        always, sometimes = Listening(), Listening()
        await made.join(always, ROOM, None)
        await made.join(sometimes, ROOM, None)
        before = [entry for entry in log if entry[0] <= left_at]
        feed(made, before, PARTITION)
        made.leave(sometimes, ROOM)
        feed(made, [entry for entry in log if entry[0] > left_at], PARTITION)
        answer = await joined(made, ROOM, at(before[-1][0] if before else -1))
        assert answer["recovered"]
        missed = answer["messages"]
        assert isinstance(missed, list)
        assert sometimes.of("message") + missed == always.of("message")
        ids = [message["id"] for message in always.of("message")]
        assert len(set(ids)) == len(ids)

    asyncio.run(play())


async def test_what_nobody_sees_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[object] = []

    def counted(frame: protocol.ServerFrame) -> bytes:
        encoded.append(frame)
        return protocol.encode(frame)

    monkeypatch.setattr("chat.room.encode", counted)
    made = hub()
    feed(made, [said(offset) for offset in range(10)], PARTITION)
    assert not encoded
    await joined(made, ROOM)
    once = sum(isinstance(frame, protocol.Message) for frame in encoded)
    await joined(made, ROOM)
    assert once == sum(isinstance(frame, protocol.Message) for frame in encoded) == 10


def test_what_a_room_says_in_one_batch_is_written_once() -> None:
    room = Room("lobby", "e", 0, 10, Times(-1))
    pushed: list[bytes] = []
    ada = Listening()
    ada.write = pushed.append  # type: ignore[method-assign]
    room.members[ada] = ada
    for offset in range(3):
        entry = Entry(offset, 0, Record("lobby", "bob", f"text {offset}", str(offset)))
        assert room.post(entry, ("bob", str(offset)))
    room.show(alone=True)
    room.show(alone=True)
    (frames,) = pushed
    assert [frames.index(b"text %d" % offset) for offset in range(3)]
