"""Messages read back from the log equal what members were shown live."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import pytest
from conftest import until
from hypothesis import given
from hypothesis import strategies as st
from test_hub import (
    AUTHOR,
    EPOCH,
    PARTITION,
    PARTITIONS,
    ROOM,
    Listening,
    PlayedRelay,
    at,
    hub,
    taken_at,
)

from chat.hub import Hub
from chat.protocol import ErrorCode, Position, RefusedError
from chat.relay.base import Batch, Entry, Portion, Record, UnavailableError
from chat.room import StoredMessage

WINDOW = 20


class KeptLog(PlayedRelay):
    """A log of one partition. The test writes it, and may delete its start."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.reads: list[tuple[int, int]] = []
        self.gone = False
        self.answers = asyncio.Event()
        self.answers.set()

    def write(self, offset: int, cid: str, room: str = ROOM) -> None:
        self.entries.append(Entry(offset, taken_at(offset), Record(room, "ada", cid, cid, AUTHOR)))

    async def read(self, partition: int, after: int, upto: int) -> Portion:
        assert partition == PARTITION
        if self.gone:
            raise UnavailableError("It is away.")
        self.reads.append((after, upto))
        await self.answers.wait()
        found = (entry for entry in self.entries if after < entry.offset <= upto)
        return Portion.of(found, upto)

    def deliver_to(self, made: Hub, count: int | None = None) -> None:
        entries = self.entries[:count]
        if entries:
            times = [(entry.offset, entry.ts) for entry in entries]
            made.deliver([Batch(PARTITION, entries[-1].offset, entries, times)])


def written(count: int, rooms: Sequence[str] = (ROOM,)) -> KeptLog:
    log = KeptLog()
    for offset in range(count):
        log.write(offset, f"c{offset}", rooms[offset % len(rooms)])
    return log


def replica(log: KeptLog, *, history: int = 5, page: int = 10, scan: int = 100) -> Hub:
    made = hub(log, history=history, recent=3, window=WINDOW, page=page, scan=scan)
    log.deliver_to(made)
    return made


def texts(messages: Sequence[StoredMessage]) -> list[str]:
    return [json.loads(message.payload)["text"] for message in messages]


async def all_before(made: Hub, limit: int) -> list[str]:
    """The whole history, page by page from the end."""
    found: list[str] = []
    before = None
    for _ in range(1000):
        page = await made.before(ROOM, before, limit, "")
        assert len(page.messages) <= limit
        found = texts(page.messages) + found
        before = str(page.position)
        if not page.more:
            return found
    raise AssertionError("the log has no end")


async def all_after(made: Hub, after: str | None, limit: int) -> list[str]:
    found: list[str] = []
    for _ in range(1000):
        page = await made.after(ROOM, after, limit, "")
        assert len(page.messages) <= limit
        found += texts(page.messages)
        after = str(page.position)
        if not page.more:
            return found
    raise AssertionError("the log has no end")


async def joined(made: Hub, since: str) -> tuple[bool, list[str]]:
    member = Listening()
    await made.join(member, ROOM, since)
    (answer,) = member.of("joined")
    messages = answer["messages"]
    assert isinstance(messages, list)
    return bool(answer["recovered"]), [message["text"] for message in messages]


cids = st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 12))


@given(st.lists(cids, max_size=60), st.integers(1, 10), st.integers(0, 60))
def test_live_and_paged_back_and_paged_on_and_resumed_is_the_same(
    records: list[tuple[str, int]], limit: int, seen: int
) -> None:
    """Cids are repeated within the window and beyond it; offsets have gaps."""

    async def play() -> None:
        log = KeptLog()
        offset = -1
        for cid, gap in records:
            offset += gap
            log.write(offset, cid)
        live = hub(log, history=5, window=WINDOW)
        member = Listening()
        await live.join(member, ROOM, None)
        log.deliver_to(live)
        shown = member.of("message")
        expected = [str(message["text"]) for message in shown]
        assert await all_before(live, limit) == expected
        assert await all_after(live, None, limit) == expected
        # Another replica that started later has read at most two windows.
        late = hub(log, history=100, window=WINDOW)
        late.reset(EPOCH, [max(offset - 2 * WINDOW, -1)] * PARTITIONS)
        rest = [entry for entry in log.entries if entry.offset > offset - 2 * WINDOW]
        if rest:
            times = [(entry.offset, entry.ts) for entry in rest]
            late.deliver([Batch(PARTITION, offset, rest, times)])
        assert await all_before(late, limit) == expected
        if shown:
            last_seen = shown[seen % len(shown)]
            after = expected[seen % len(shown) + 1 :]
            if log.entries[0].offset == 0:
                recovered, missed = await joined(late, str(last_seen["id"]))
                within = offset - int(str(last_seen["id"]).split(":")[2]) <= 100
                assert recovered == (within and len(after) <= 100)
                assert missed == after if recovered else True
            assert await all_after(late, str(last_seen["id"]), limit) == after

    asyncio.run(play())


async def test_what_memory_holds_is_not_read_from_the_log() -> None:
    log = written(100)
    made = replica(log, history=50)
    page = await made.before(ROOM, at(99), 10, "")
    assert texts(page.messages) == [f"c{number}" for number in range(89, 99)]
    assert page.more
    assert log.reads == []


async def test_a_page_looks_through_a_bounded_piece_of_the_log_and_says_where_it_stopped() -> None:
    log = written(1000, rooms=["other"] * 999 + [ROOM])
    made = replica(log, scan=3 * WINDOW)
    page = await made.before(ROOM, None, None, "")
    assert texts(page.messages) == ["c999"]
    page = await made.before(ROOM, str(page.position), None, "")
    assert (page.messages, page.more) == ([], True)
    looked = sum(upto - after for after, upto in log.reads)
    assert looked <= 2 * 2 * 3 * WINDOW
    assert page.position == Position(EPOCH, PARTITION, 1000 - 7 * WINDOW)


async def test_many_who_want_the_same_make_the_log_be_read_once() -> None:
    log = written(200)
    made = replica(log)
    pages = await asyncio.gather(*(made.before(ROOM, at(100), 10, "") for _ in range(50)))
    assert len({page.position for page in pages}) == 1
    await made.before(ROOM, at(99), 10, "")
    assert len(log.reads) == 1


async def test_the_log_is_read_by_one_at_a_time_with_a_rest_as_long_as_reading_took() -> None:
    log = written(200)
    made = replica(log)
    log.answers.clear()
    ends = (100, 60)
    asking = [asyncio.create_task(made.before(ROOM, at(end), 1, "")) for end in ends]
    began = time.monotonic()
    await until(lambda: log.reads)
    await asyncio.sleep(0.05)
    assert len(log.reads) == 1
    took = time.monotonic() - began
    log.answers.set()
    await asking[0]
    rested = time.monotonic()
    await asking[1]
    assert time.monotonic() - rested > took * 0.8


async def test_more_than_can_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.turns.MOST_WAITING", 2)
    log = written(200)
    made = replica(log)
    log.answers.clear()
    asking = [asyncio.create_task(made.before(ROOM, at(end), 1, "")) for end in (150, 100)]
    await until(lambda: log.reads)
    with pytest.raises(RefusedError) as refused:
        await made.before(ROOM, at(60), 1, "")
    assert refused.value.code is ErrorCode.UNAVAILABLE
    log.answers.set()
    await asyncio.gather(*asking)


async def test_where_the_log_begins_there_is_no_more() -> None:
    log = written(1000)
    made = replica(log)
    del log.entries[:870]
    assert await all_before(made, 7) == [f"c{number}" for number in range(870, 1000)]
    assert len(log.reads) < 15, "what is not there is not looked for"
    assert (await all_after(made, None, 7))[0] == "c870"
    page = await made.after(ROOM, at(900), 7, "")
    assert page.whole
    page = await made.after(ROOM, at(100), 7, "")
    assert not page.whole, "what followed is lost, and that is said"


async def test_who_was_away_for_long_gets_everything_from_the_log() -> None:
    log = written(200, rooms=[ROOM] + ["other"] * 19)
    made = replica(log)
    assert await joined(made, at(99)) == (True, ["c100", "c120", "c140", "c160", "c180"])
    assert await joined(made, at(98)) == (False, ["c180"]), "it looks back for 100 records"


@pytest.mark.parametrize("why", ["too many messages", "lost", "away", "another log"])
async def test_what_cannot_be_given_completely_is_a_gap(why: str) -> None:
    log = written(200)
    made = replica(log, history=30, scan=100)
    since = at(168) if why == "too many messages" else at(172)
    if why == "lost":
        del log.entries[:175]
    if why == "away":
        log.gone = True
    if why == "another log":
        since = since.replace(EPOCH, "another")
    assert await joined(made, since) == (False, ["c197", "c198", "c199"])
    if why == "too many messages":
        assert await joined(made, at(169)) == (True, [f"c{n}" for n in range(170, 200)])


async def test_a_message_said_while_the_log_is_read_is_not_missed() -> None:
    log = written(200)
    made = replica(log, history=50)
    log.answers.clear()
    joining = asyncio.create_task(joined(made, at(160)))
    await until(lambda: log.reads)
    log.write(200, "new")
    made.deliver([Batch(PARTITION, 200, log.entries[-1:])])
    log.answers.set()
    recovered, missed = await joining
    assert recovered
    assert missed == [f"c{number}" for number in range(161, 200)] + ["new"]


async def test_a_log_that_is_replaced_meanwhile_is_not_taken_for_the_new_one() -> None:
    log = written(200)
    made = replica(log)
    log.answers.clear()
    asking = asyncio.create_task(made.before(ROOM, at(100), 10, ""))
    await until(lambda: log.reads)
    made.reset("another", [-1] * PARTITIONS)
    log.answers.set()
    with pytest.raises(RefusedError) as refused:
        await asking
    assert refused.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("position", "code"),
    [
        ("nonsense", ErrorCode.BAD_POSITION),
        (at(5).replace(EPOCH, "another"), ErrorCode.BAD_POSITION),
        (f"{EPOCH}:{1 - PARTITION}:5", ErrorCode.BAD_POSITION),
        (at(5), ErrorCode.UNAVAILABLE),
    ],
)
async def test_what_cannot_be_looked_up_is_refused(position: str, code: ErrorCode) -> None:
    log = written(200)
    log.gone = True
    made = replica(log)
    for ask in (made.before, made.after):
        with pytest.raises(RefusedError) as refused:
            await ask(ROOM, position, 10, "")
        assert refused.value.code is code
