"""Who asks for much of the past, or fills it, does not keep others from theirs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import ItemsView
from typing import Any

import pytest
from conftest import until
from test_history import WINDOW, KeptLog, all_after, all_before, written
from test_history import replica as replica_of
from test_hub import OTHER, PARTITION, ROOM, Listening, at, feed, hub, said

from chat.archive import Chunk
from chat.hub import Hub
from chat.protocol import ErrorCode, RefusedError
from chat.relay.base import Batch, Entry, Portion, Record
from chat.repeats import ENOUGH, KEPT_SECONDS, LEAST, Repeats

LONG = "x" * 1000


class LongLog(KeptLog):
    def write(self, offset: int, cid: str, room: str = ROOM) -> None:
        self.entries.append(Entry(offset, offset, Record(room, "ada", f"{cid} {LONG}", cid)))


class GatedLog(KeptLog):
    """Reads of what is older than `gate` wait until it is opened."""

    def __init__(self, gate: int) -> None:
        super().__init__()
        self._gate = gate
        self.opened = asyncio.Event()

    async def read(self, partition: int, after: int, upto: int) -> Portion:
        if upto < self._gate:
            await self.opened.wait()
        return await super().read(partition, after, upto)


def filled(log: KeptLog, count: int) -> KeptLog:
    for offset in range(count):
        log.write(offset, f"c{offset}")
    return log


def silent(count: int) -> tuple[KeptLog, Hub]:
    """A log that does not answer, and a replica that has read it."""
    log = written(count)
    made = replica_of(log)
    log.answers.clear()
    return log, made


async def test_joined_has_as_many_bytes_as_fit_and_says_that_there_is_more() -> None:
    made = hub(history=100, recent=50, window=1000, page_bytes=5000)
    feed(
        made,
        [(n, Record(ROOM, "ada", f"{n} {LONG}", str(n))) for n in range(20)],
        PARTITION,
    )
    for since in (None, at(3)):
        member = Listening()
        await made.join(member, ROOM, since)
        (answer,) = member.of("joined")
        messages = answer["messages"]
        assert isinstance(messages, list)
        assert [message["cid"] for message in messages] == ["16", "17", "18", "19"]
        assert (answer["recovered"], answer["more"]) == (False, True)
        page = await made.before(ROOM, messages[0]["id"], 10, "")
        assert [json.loads(message.payload)["cid"] for message in page.messages] == [
            "12",
            "13",
            "14",
            "15",
        ]
    member = Listening()
    await made.join(member, ROOM, at(16))
    (answer,) = member.of("joined")
    assert (answer["recovered"], answer["more"]) == (True, False), "what fits is complete"


async def test_a_message_larger_than_an_answer_may_be_is_given_alone() -> None:
    made = hub(page_bytes=10)
    feed(made, [said(0), said(1)], PARTITION)
    page = await made.before(ROOM, None, 10, "")
    assert (len(page.messages), page.more) == (1, True)
    page = await made.before(ROOM, str(page.position), 10, "")
    assert (len(page.messages), page.more) == (1, False)


async def test_pages_have_everything_however_few_bytes_they_may_have() -> None:
    log = filled(LongLog(), 150)
    made = hub(log, history=5, window=WINDOW, page=10, page_bytes=3000)
    log.deliver_to(made)
    expected = [f"c{number} {LONG}" for number in range(150)]
    assert await all_before(made, 10) == expected
    assert await all_after(made, None, 10) == expected


async def test_what_was_said_before_a_neighbour_filled_the_window_is_announced_and_there() -> None:
    log = KeptLog()
    for offset in range(10):
        log.write(offset, f"c{offset}")
    for offset in range(10, 10 + 2 * WINDOW):
        log.write(offset, f"c{offset}", OTHER)
    made = replica_of(log)
    member = Listening()
    await made.join(member, ROOM, None)
    (answer,) = member.of("joined")
    assert (answer["messages"], answer["more"]) == ([], True)
    assert await all_before(made, 10) == [f"c{offset}" for offset in range(10)]
    # Who sends one again has it acknowledged, and nobody is shown it anew.
    made.send(member, ROOM, "c3", "c3")
    assert member.of("ack") == [{"type": "ack", "cid": "c3", "id": at(3)}]
    assert not log.appended


async def test_where_nothing_was_said_before_there_is_no_more() -> None:
    made = hub()
    feed(made, [said(0)], PARTITION)
    member = Listening()
    await made.join(member, ROOM, None)
    assert member.of("joined")[0]["more"] is False


async def test_who_says_much_in_one_room_does_not_make_others_forgotten() -> None:
    made = hub(window=2 * ENOUGH)
    quiet = [said(offset, f"q{offset}") for offset in range(10)]
    loud = [said(offset, str(offset), OTHER) for offset in range(10, 3 * LEAST)]
    feed(made, quiet + loud, PARTITION)
    member = Listening()
    for _, record in quiet:
        made.send(member, ROOM, record.text, record.cid)
    assert [ack["id"] for ack in member.of("ack")] == [at(offset) for offset in range(10)]


def test_messages_are_remembered_for_ten_minutes_as_far_as_memory_allows() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    for number in range(3 * LEAST):
        repeats.add("lobby", ("ada", str(number)), (number, 0))
        assert repeats.first("lobby", ("ada", str(max(0, number - LEAST + 1)))) is not None
        assert len(repeats) <= 2 * LEAST
    last = ("ada", str(3 * LEAST - 1))
    now = KEPT_SECONDS - 1
    repeats.expire()
    assert repeats.first("lobby", last) is not None
    now = KEPT_SECONDS
    repeats.expire()
    now = 2 * KEPT_SECONDS
    repeats.expire()
    assert len(repeats) == 0


async def test_paging_through_long_texts_reads_each_record_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kept is what fits; what does not is read again alone, and not its block."""
    monkeypatch.setattr("chat.archive.KEPT_OF_CHUNKS", 20_000)
    monkeypatch.setattr("chat.archive.CHUNK", 10)
    log = filled(LongLog(), 2000)
    made = hub(log, history=5, window=200, page=10, scan=200)
    log.deliver_to(made)
    assert len(await all_before(made, 10)) == 2000
    read = sum(upto - after for after, upto in log.reads)
    assert read <= 3.5 * 2000
    archive = made._history._archive
    assert archive._chunks.bytes <= 20_000 + 10 * 1500


async def test_a_read_holds_no_more_than_a_portion_whatever_the_one_before_brought(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Short texts, and long ones behind them: nobody knows how long the next are."""
    monkeypatch.setattr("chat.relay.base.PORTION_BYTES", 100_000)
    monkeypatch.setattr("chat.archive.CHUNK_BYTES", 200_000)
    log = written(2000)
    for offset in range(2000, 3000):
        log.write(offset, f"c{offset} " + "\U0001f600" * 2000)
    for offset in range(3000, 5000):
        log.write(offset, f"c{offset}", OTHER)
    made = hub(log, history=5, window=500, page=10, scan=1000)
    log.deliver_to(made)
    most = held = 0
    read = log.read

    async def weigh(partition: int, after: int, upto: int) -> Portion:
        nonlocal most, held
        portion = await read(partition, after, upto)
        most = max(most, sum(sys.getsizeof(entry.record.text) for entry in portion.entries))
        return portion

    archive = made._history._archive
    put = archive._chunks.put

    def keep(key: tuple[int, ...], chunk: Chunk, size: int) -> None:
        nonlocal held
        held = max(held, sum(message.size for message in chunk.values()))
        put(key, chunk, size)

    monkeypatch.setattr(archive, "_read", weigh)
    monkeypatch.setattr(archive._chunks, "put", keep)
    assert len(await all_before(made, 10)) == 3000
    assert most <= 100_000 + 10_000
    assert held <= 200_000
    # Forwards, the log has them just as well.
    assert len(await all_after(made, None, 10)) == 3000


async def test_each_address_has_its_turn_however_much_another_asks() -> None:
    log, made = silent(2000)
    much = [
        asyncio.create_task(made.before(ROOM, at(end), 1, "192.0.2.1"))
        for end in range(1800, 600, -WINDOW)
    ]
    await until(lambda: log.reads)
    little = asyncio.create_task(made.before(ROOM, at(300), 1, "192.0.2.2"))
    await asyncio.sleep(0)
    log.answers.set()
    await little
    assert sum(one.done() for one in much) <= 2
    await asyncio.gather(*much)


async def test_who_joins_does_not_wait_for_those_who_ask_for_old_pages() -> None:
    log = GatedLog(1000)
    for offset in range(2000):
        log.write(offset, f"c{offset}", ROOM if offset % 20 == 0 else OTHER)
    made = replica_of(log)
    asking = [
        asyncio.create_task(made.before(ROOM, at(end), 1, "192.0.2.1"))
        for end in range(100, 900, 20)
    ]
    await asyncio.sleep(0.01)
    member = Listening()
    async with asyncio.timeout(1):
        await made.join(member, ROOM, at(1939))
    (answer,) = member.of("joined")
    assert answer["recovered"] is True
    assert not any(one.done() for one in asking)
    log.opened.set()
    for one in asking:
        one.cancel()


async def test_a_question_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.history.PAGE_SECONDS", 0.01)
    monkeypatch.setattr("chat.history.MISSED_SECONDS", 0.01)
    _, made = silent(200)
    with pytest.raises(RefusedError) as refused:
        await made.before(ROOM, at(100), 1, "")
    assert refused.value.code is ErrorCode.UNAVAILABLE
    member = Listening()
    await made.join(member, ROOM, at(150))
    (answer,) = member.of("joined")
    assert (answer["recovered"], answer["more"]) == (False, True)


async def test_a_page_is_whole_although_its_block_was_being_read_when_the_log_was_shorter() -> None:
    log = written(3 * WINDOW + 5)
    made = hub(log, history=5, window=2 * WINDOW, page=WINDOW)
    log.deliver_to(made)
    log.answers.clear()
    early = asyncio.create_task(made.before(ROOM, at(2 * WINDOW + 3), 1, ""))
    await until(lambda: log.reads)
    for offset in range(3 * WINDOW + 5, 6 * WINDOW):
        log.write(offset, f"c{offset}")
    made.deliver([Batch(PARTITION, 6 * WINDOW - 1, log.entries[3 * WINDOW + 5 :])])
    late = asyncio.create_task(made.before(ROOM, at(4 * WINDOW), WINDOW, ""))
    await asyncio.sleep(0.01)
    log.answers.set()
    await early
    cids = [json.loads(message.payload)["cid"] for message in (await late).messages]
    assert cids == [f"c{number}" for number in range(3 * WINDOW, 4 * WINDOW)]


async def test_nothing_is_read_for_who_waits_no_more() -> None:
    log, made = silent(400)
    asking = [
        asyncio.create_task(made.before(ROOM, at(end), 1, "")) for end in range(300, 0, -WINDOW)
    ]
    await until(lambda: log.reads)
    await asyncio.sleep(0.01)
    for one in asking[1:]:
        one.cancel()
    await asyncio.gather(*asking[1:], return_exceptions=True)
    log.answers.set()
    await asking[0]
    await asyncio.sleep(0.05)
    assert len(log.reads) == 1
    log.write(400, "new")
    made.deliver([Batch(PARTITION, 400, log.entries[-1:])])
    assert (await made.before(ROOM, at(100), 1, "")).messages, "others go on"


async def test_who_asks_and_hangs_up_again_and_again_has_one_reading_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chat.turns.MOST_REST", 0)
    log, made = silent(400)
    for end in (300, 280, 260):
        asking = asyncio.create_task(made.before(ROOM, at(end), 1, ""))
        await until(lambda: log.reads)
        await asyncio.sleep(0.005)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert len(log.reads) == 1
    log.answers.set()
    assert (await made.before(ROOM, at(100), 1, "")).messages
    assert len(log.reads) == 2


async def test_who_comes_back_with_many_old_positions_makes_no_reads_beside_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chat.times.FORGOTTEN", 1)
    log, made = silent(400)
    feed(made, [said(400)], PARTITION)
    # So old that nothing but the log can say whether it still has them; two people have each.
    coming = [
        asyncio.create_task(made.join(Listening(), ROOM, at(offset)))
        for offset in (10, 10, 11, 11, 12, 12)
    ]
    await until(lambda: log.reads)
    await asyncio.sleep(0.005)
    assert len(log.reads) == 1
    log.answers.set()
    await asyncio.gather(*coming)
    assert len(log.reads) == 3


async def test_pages_are_read_while_others_come_back_with_old_positions_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chat.times.FORGOTTEN", 1)
    log = written(400)
    made = replica_of(log)
    feed(made, [said(400)], PARTITION)

    async def come_back(offset: int) -> None:
        while True:
            await made.join(Listening(), ROOM, at(offset))

    coming = [asyncio.create_task(come_back(offset)) for offset in range(5)]
    await until(lambda: len(log.reads) > 5)
    assert (await made.before(ROOM, at(300), 1, "somebody else")).messages
    for one in coming:
        one.cancel()
    await asyncio.gather(*coming, return_exceptions=True)


async def test_who_wants_what_another_address_waits_for_does_not_wait_in_its_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chat.turns.MOST_REST", 0)
    log, made = silent(400)
    much = [
        asyncio.create_task(made.before(ROOM, at(end), 1, "much")) for end in range(370, 0, -20)
    ]
    await until(lambda: log.reads)
    little = asyncio.create_task(made.before(ROOM, at(10), 1, "little"))
    await asyncio.sleep(0.005)
    log.answers.set()
    assert (await little).messages
    assert sum(one.done() for one in much) < 5
    await asyncio.gather(*much)


class Watched(dict[Any, int]):
    """Counts how often all are looked at."""

    looks = 0

    def items(self) -> ItemsView[Any, int]:
        self.looks += 1
        return super().items()


async def test_positions_far_ahead_are_not_looked_at_for_each_record() -> None:
    made = hub()
    feed(made, [said(0)], PARTITION)
    partition = made._window.partitions[PARTITION]
    waiting = partition.waiting = Watched()
    ahead = [
        asyncio.create_task(made.join(Listening(), ROOM, at(10**9 + number)))
        for number in range(100)
    ]
    near = asyncio.create_task(made.join(Listening(), ROOM, at(50)))
    await until(lambda: len(waiting) == 101)
    for offset in range(1, 100):
        feed(made, [said(offset)], PARTITION)
    await near
    assert waiting.looks == 1
    for one in ahead:
        one.cancel()
    await asyncio.gather(*ahead, return_exceptions=True)
    assert not waiting
