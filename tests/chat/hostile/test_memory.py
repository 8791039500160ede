"""However long texts are, the window takes no more memory than it may, and repeats are still known
alike on all replicas.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_hub import (
    OTHER,
    PARTITION,
    PARTITIONS,
    ROOM,
    Listening,
    PlayedRelay,
    at,
    feed,
    hub,
    joined,
    taken_at,
    texts,
)

from chat import protocol
from chat.acks import Acks
from chat.metrics import Metrics
from chat.protocol import RefusedError
from chat.relay.base import Entry, Record
from chat.relay.kafka.record import decode, encode
from chat.relay.memory import PARTITION_BYTES, MemoryLog
from chat.rights import ALL
from chat.room import Person
from chat.waiting import Waiting
from chat.window import Window

LONG = "x" * 8192
SIZE = 1000


def window(memory: int, *, size: int = SIZE) -> Window:
    return Window("log", [-1] * PARTITIONS, size=size, history=SIZE, memory=memory)


def take(made: Window, offset: int, room: str, cid: str, text: str = LONG) -> bool:
    entry = Entry(offset, taken_at(offset), Record(room, "ada", text, cid))
    partition = made.partitions[PARTITION]
    made.know(partition, [(offset, entry.ts)])
    return made.take(partition, entry)[1]


def fill(made: Window, values: list[bytes]) -> Iterator[None]:
    """Take records into the first partition, as they come from Kafka, one at a time."""
    for offset, value in enumerate(values):
        record = decode(value)
        assert isinstance(record, Record)
        made.take(made.partitions[0], Entry(offset, taken_at(offset), record))
        yield


def kept(made: Window) -> int:
    return sum(message.size for room in made.rooms.values() for message in room.after(-1))


def test_long_texts_take_no_more_than_the_window_may() -> None:
    memory = PARTITIONS * 1_000_000
    made = window(memory)
    for offset in range(5000):
        assert take(made, offset, (ROOM, OTHER)[offset % 2], str(offset))
        assert kept(made) <= memory / PARTITIONS
    assert kept(made) > memory / PARTITIONS / 2
    # What left the memory is known all the same.
    assert not take(made, 5000, ROOM, "4002")
    assert len(made.partitions[PARTITION].entries) == SIZE


@pytest.mark.parametrize("rooms", [1, 50, 5000])
@pytest.mark.parametrize(
    ("text", "user", "cid"),
    [
        ("hi", 1, 1),
        ("x" * 60, 32, 64),
        ("\u00e9" * 60, 8, 36),
        ("\u20ac" * 1000, 8, 36),
        ('"' * 1000, 8, 36),
        ("\n\x01\u20ac" * 300, 8, 36),
        ("\U0001f600" * 500, 8, 36),
    ],
    ids=["short", "long names", "accents", "euros", "quotes", "escapes", "emoji"],
)
def test_the_window_counts_what_it_takes(rooms: int, text: str, user: int, cid: int) -> None:
    made = Window("log", [-1], size=5000, history=SIZE, memory=1 << 30)
    partition = made.partitions[0]
    records = [
        encode(
            Record(
                f"{number % rooms:064}",
                f"{number % 10:0{user}}",
                text,
                f"{number:0{cid}}",
                f"{number % 10:032x}",
            )
        )
        for number in range(1000 if rooms < 1000 else 5000)
    ]
    tracemalloc.start()
    try:
        for _ in fill(made, records):
            pass
        silent = tracemalloc.get_traced_memory()[0]
        for room in made.rooms.values():
            for message in room.after(-1):
                assert message.payload
        shown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    counted = partition.known_bytes + partition.kept_bytes
    assert max(silent, shown) <= 1.2 * counted
    assert counted <= 2 * max(silent, shown)
    made.advance(partition, 10_000)
    assert partition.known_bytes == partition.kept_bytes == 0


def test_many_rooms_take_no_more_than_the_window_may() -> None:
    memory = 4 << 20
    made = Window("log", [-1], size=5000, history=SIZE, memory=memory)
    partition = made.partitions[0]
    values = [
        encode(Record(f"{n % 2500}", "ada", "x" * 200, str(n), "a" * 32)) for n in range(5000)
    ]
    tracemalloc.start()
    try:
        for _ in fill(made, values):
            known, kept = partition.known_bytes, partition.kept_bytes
            assert kept <= max(memory - known, memory / 4)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken <= 1.2 * (known + kept)
    # What is known of repeats takes nearly all.
    assert known > 0.75 * memory
    assert sum(room.known for room in made.rooms.values()) == 5000
    for position in range(5000, 10_001, 5):
        made.advance(partition, position)
    assert partition.known_bytes == partition.kept_bytes == 0


@given(
    st.lists(st.tuples(st.sampled_from([ROOM, OTHER]), st.integers(0, 9), st.booleans())),
    st.sampled_from([1, 5000, 20_000]),
)
def test_what_is_a_repeat_does_not_depend_on_memory(
    log: list[tuple[str, int, bool]], memory: int
) -> None:
    small, large = window(memory * PARTITIONS, size=8), window(1 << 30, size=8)
    for offset, (room, cid, long) in enumerate(log):
        text = LONG if long else "hi"
        assert take(small, offset, room, str(cid), text) == take(
            large, offset, room, str(cid), text
        )


async def test_who_comes_back_to_what_left_the_memory_is_not_told_that_it_is_all() -> None:
    made = hub(window_bytes=PARTITIONS * 24_000)
    log = [(offset, Record(ROOM, "ada", f"{offset} {LONG}", str(offset))) for offset in range(6)]
    feed(made, log, PARTITION)
    assert [text[0] for text in texts(await joined(made, ROOM, since=at(3)))] == ["4", "5"]
    # The log of this test has nothing to be read back from.
    assert not (await joined(made, ROOM, since=at(2)))["recovered"]


class TakesAll(PlayedRelay):
    """A log that takes everything, and delivers nothing."""

    def append(self, record: Record) -> asyncio.Future[None]:
        # As one for Kafka does.
        encode(record)
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        held.set_result(None)
        return held


def taken_until_refused(send_all: Callable[[], None]) -> int:
    """The bytes that are taken when a message is refused because too many wait for the log."""
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError, match="wait for the log"):
            send_all()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["hi", "x" * 8000, "\u20ac" * 2600, "\U0001f600" + "x" * 7900])
@pytest.mark.parametrize(("room", "cid"), [("lobby", 8), ("r" * 64, 64)])
async def test_messages_that_the_log_does_not_give_back_take_no_more_than_they_may(
    text: str, room: str, cid: int
) -> None:
    most = 1 << 20
    acks = Acks(TakesAll(), Metrics(), most_bytes=most)
    sender = Listening()
    records: list[Record] = []

    def send_all() -> None:
        while True:
            frame = {"room": room, "cid": f"{len(records):0{cid}}", "text": text}
            sent = protocol.decode(json.dumps({"type": "send", **frame}))
            assert isinstance(sent, protocol.Send)
            record = Record(sent.room, "ada", sent.text, sent.cid, "a" * 32)
            acks.append(sender, record)
            records.append(record)
            acks.append(sender, record)

    taken = taken_until_refused(send_all)
    assert 0.8 * taken < most
    for record in records:
        acks.delivered(record, 0)
    assert acks.bytes == 0


@pytest.mark.parametrize("repeats", [0, 50])
@pytest.mark.parametrize(
    "user", ["ada", "\u20ac" * 32, "\U0001f600" * 32], ids=["ada", "euros", "emoji"]
)
async def test_senders_over_http_that_wait_for_the_log_take_no_more_than_they_may(
    user: str, repeats: int
) -> None:
    most = 1 << 20
    acks = Acks(TakesAll(), Metrics(), most_bytes=most)
    waiting: list[Waiting] = []

    def send_all() -> None:
        for number in itertools.count():
            for _ in range(1 + repeats):
                person = Person.known(user[:-1] + "x", "https://id.example", str(number))
                waiting.append(Waiting(person, ALL, f"2001:db8:{len(waiting):x}::/64"))
                record = Record("lobby", person.user, "hi", str(number), person.author)
                acks.append(waiting[-1], record)

    taken = taken_until_refused(send_all)
    assert 0.8 * taken < most
    assert most < 2 * taken


def test_without_kafka_long_texts_take_no_more_than_the_log_may() -> None:
    log = MemoryLog(partitions=1)
    text = "\U0001f600" + "x" * 7900
    for number in range(2000):
        log.append(Record("lobby", "ada", text, str(number), "a" * 32))
    kept = log.read(0, 0, 2000)
    assert sum(sys.getsizeof(entry.record.text) for entry in kept) <= PARTITION_BYTES
    assert log.first(0) > 0
    assert [entry.record.cid for entry in kept] == [str(n) for n in range(log.first(0), 2000)]
