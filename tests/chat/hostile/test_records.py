"""Whatever bytes somebody puts into the topics, replicas skip them, count them, and read on."""

from __future__ import annotations

import contextlib
import resource
import struct
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import cramjam
import crc32c
import msgspec
import pytest
from chat_client import ChatClient
from conftest import joined, until
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kafka import KafkaProducer, TopicPartition
from kafka.errors import CorruptRecordError
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka_broker import KafkaBroker

from chat import bounds
from chat.presence import Presence
from chat.protocol import Position
from chat.relay.base import Batch, Record, Revision, author_by_name, partition_of
from chat.relay.kafka import batches
from chat.relay.kafka.client import Fetched, named
from chat.relay.kafka.producer import Appender, Signaller
from chat.relay.kafka.reader import HANDED_OVER_BYTES, Reader
from chat.relay.kafka.record import Skipped, decode, encode, entries
from chat.relay.kafka.watcher import Watcher
from chat.room import StoredMessage
from chat.server import Server

Replica = Callable[..., Awaitable[Server]]

BROKEN_UTF8 = b'{"v":1,"room":"lobby","user":"\xff\xfe","text":"x","cid":"1"}'
AUTHOR = "0123456789abcdef" * 2
V2 = {"v": 2, "kind": "text", "room": "lobby", "author": AUTHOR, "user": "ada", "text": "hi"}
V2 |= {"cid": "1"}
# The end of the year 9999.
LATEST = 253_402_214_400_000

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)
records = st.builds(
    Record,
    room=st.from_regex(rf"\A{bounds.ROOM}\Z"),
    user=texts,
    text=texts,
    cid=texts,
    author=st.from_regex(rf"\A{bounds.AUTHOR}\Z"),
)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were right before some of them were changed, cut out or put in."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


revisions = st.builds(
    Revision,
    room=st.from_regex(rf"\A{bounds.ROOM}\Z"),
    user=texts,
    text=texts | st.just(""),
    cid=texts,
    author=st.from_regex(rf"\A{bounds.AUTHOR}\Z"),
    offset=st.integers(0, 10**18 - 1),
    time=st.integers(0, 10**18 - 1),
)


@given(
    st.binary()
    | damaged((records | revisions).map(encode))
    | damaged(st.just(msgspec.json.encode(V2)))
)
@example(BROKEN_UTF8)
@example(b"[" * 5000)
@example(b'{"v":1,"room":"lobby","user":"ada","text":"\\ud83d","cid":"1"}')
@example(b'{"v":99999999999999999999}')
def test_any_bytes_are_a_record_or_are_skipped(value: bytes) -> None:
    read = decode(value)
    if isinstance(read, Record):
        # What is read can be shown.
        msgspec.json.encode(read)


@given(records | revisions)
def test_what_is_written_is_read(record: Record) -> None:
    assert decode(encode(record)) == record
    if isinstance(record, Revision) and not record.text:
        theirs = msgspec.structs.replace(record, moderator=True)
        assert decode(encode(theirs)) == theirs


def test_a_revision_of_what_comes_later_is_skipped() -> None:
    made = [encode(Revision("lobby", "ada", "", "1", AUTHOR, of, 1)) for of in (0, 0, 2, 2)]
    (batch,) = batches.split(batch_of(*made))
    found, skipped = entries(batch, 0, partition_of("lobby", 4), 4)
    assert ([entry.offset for entry in found], skipped[Skipped.FOREIGN]) == ([1, 3], 2)


def test_both_versions_are_read() -> None:
    one = V2 | {"v": 1}
    del one["kind"], one["author"]
    assert decode(msgspec.json.encode(V2)) == Record("lobby", "ada", "hi", "1", AUTHOR)
    by_name = author_by_name("ada")
    assert decode(msgspec.json.encode(one)) == Record("lobby", "ada", "hi", "1", by_name)
    assert by_name != author_by_name("Ada")
    # The release before this one wrote no author, and reads what has one.
    written: dict[str, Any] = msgspec.json.decode(encode(Record("lobby", "ada", "hi", "1", AUTHOR)))
    assert written == one | {"author": AUTHOR}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "reaction", "text": None}, Skipped.UNKNOWN),
        ({"v": 3}, Skipped.UNKNOWN),
        ({"v": 3, "room": None}, Skipped.UNKNOWN),
        ({"v": 0}, Skipped.FOREIGN),
        ({"v": "2"}, Skipped.FOREIGN),
        ({"kind": None}, Skipped.FOREIGN),
        ({"author": None}, Skipped.FOREIGN),
        ({"author": "A" * 32}, Skipped.FOREIGN),
        ({"author": AUTHOR + "\n"}, Skipped.FOREIGN),
        ({"text": ""}, Skipped.FOREIGN),
        # Revisions that cannot be: of no message, or of another one's with a text, or without one.
        ({"kind": "edit"}, Skipped.FOREIGN),
        ({"kind": "edit", "of": -1, "time": 1}, Skipped.FOREIGN),
        ({"kind": "edit", "of": 10**18, "time": 1}, Skipped.FOREIGN),
        ({"kind": "edit", "of": 1, "time": 1, "moderator": True}, Skipped.FOREIGN),
        ({"kind": "edit", "of": 1, "time": 1, "text": ""}, Skipped.FOREIGN),
        ({"kind": "delete", "of": 1, "time": 1}, Skipped.FOREIGN),
    ],
)
def test_what_a_later_release_wrote_is_told_from_what_no_chat_wrote(
    change: dict[str, object], why: Skipped
) -> None:
    assert decode(msgspec.json.encode(V2 | change)) is why


@given(st.binary() | damaged(records.map(encode)))
@example(b'{"replica":"\xff","type":"gone"}')
def test_any_bytes_are_a_signal_or_are_skipped(payload: bytes) -> None:
    presence = Presence(heartbeat=5, shown=10, typing=6, hold=300, elsewhere=10)
    presence.heard(payload, 0)
    assert presence.foreign == 1


@pytest.mark.parametrize("time", [-(1 << 63), -1, 0, LATEST, LATEST + 1, (1 << 63) - 1])
def test_a_time_that_is_none_makes_no_id_that_cannot_be_used(time: int) -> None:
    """Producers set it in a topic with message.timestamp.type=CreateTime."""
    record = Record("lobby", "ada", "hi", "1", AUTHOR)
    builder = MemoryRecordsBuilder(2, 0, 1 << 20)
    builder.append(timestamp=1_700_000_000_000, key=None, value=encode(record), headers=[])
    builder.close()
    data = bytearray(builder.buffer())
    data[35:43] = time.to_bytes(8, "big", signed=True)
    data[17:21] = crc32c.crc32c(bytes(data[21:])).to_bytes(4, "big")
    (batch,) = batches.split(bytes(data))
    (entry,), _ = entries(batch, 0, partition_of("lobby", 3), 3)
    position = StoredMessage(0, "log", 0, entry.ts, entry).position
    assert Position.parse(str(position)) == position
    datetime.fromtimestamp(entry.ts / 1000, UTC)
    assert entry.ts == (time if 0 < time <= LATEST else 0)


@st.composite
def kafka_batches(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Batches as kafka-python writes them, and what it reads in them."""
    data, values = b"", []
    offset = draw(st.integers(0, 1 << 40))
    for _ in range(draw(st.integers(1, 3))):
        builder = MemoryRecordsBuilder(2, 0, 1 << 20)
        for _ in range(draw(st.integers(1, 5))):
            headers = draw(
                st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary()), max_size=2)
            )
            key, value = draw(st.none() | st.binary()), draw(st.none() | st.binary(max_size=300))
            builder.append(draw(st.integers(0, 1 << 45)), key, value, headers)
        builder.close()
        batch = bytearray(builder.buffer())
        struct.pack_into(">q", batch, 0, offset)
        found = [
            (record.offset, record.value or b"")
            for record in MemoryRecords(bytes(batch)).next_batch()
        ]
        values += found
        data += packed(batch, draw(st.sampled_from([0, 0, 1, 2, 3, 4])))
        offset = found[-1][0] + 1 + draw(st.integers(0, 3))
    return data, values


PACK = {
    1: cramjam.gzip.compress,
    2: cramjam.snappy.compress_raw,
    3: cramjam.lz4.compress,
    4: cramjam.zstd.compress,
}


def packed(batch: bytearray, codec: int) -> bytes:
    """The batch as a producer, or the broker, would compress it."""
    if codec == 0:
        return bytes(batch)
    return sealed(batch[:61] + bytes(PACK[codec](bytes(batch[61:]))), codec)


def sealed(batch: bytearray, codec: int = 0) -> bytes:
    """The batch with the length, codec and checksum that belong to it."""
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    struct.pack_into(">h", batch, 21, codec)
    struct.pack_into(">I", batch, 17, crc32c.crc32c(bytes(batch[21:])))
    return bytes(batch)


def batch_of(*values: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> bytearray:
    builder = MemoryRecordsBuilder(2, 0, 1 << 20)
    for value in values:
        builder.append(0, None, value, list(headers))
    builder.close()
    return bytearray(builder.buffer())


class NotText(str):
    """A header's key that is no UTF-8: brokers take it."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        return b"\xff\xfe"


def by_the_chat(data: bytes, start: int = 0) -> tuple[list[tuple[int, bytes]], int]:
    values, unreadable = [], 0
    for batch in batches.split(data):
        read = batches.read(batch, start)
        values += read.values
        unreadable += read.unreadable
    return values, unreadable


@settings(max_examples=40)
@given(kafka_batches(), st.data())
def test_batches_are_read_as_kafka_python_reads_them(
    made: tuple[bytes, list[tuple[int, bytes]]], data: st.DataObject
) -> None:
    batch, values = made
    assert by_the_chat(batch) == (values, 0)
    start = data.draw(st.sampled_from([offset for offset, _ in values]))
    assert by_the_chat(batch, start)[0] == [one for one in values if one[0] >= start]


@settings(max_examples=60)
@given(st.data())
def test_a_batch_may_hold_anything_at_all(data: st.DataObject) -> None:
    """Its checksum is right; of what it says of itself, nothing needs to be."""
    codec = data.draw(st.integers(0, 7))
    whole = packed(batch_of(b"one", b"two", b"three"), codec if codec in PACK else 0)
    body = data.draw(damaged(st.just(whole[61:])) | st.binary(max_size=200))
    count = data.draw(st.sampled_from([3, 3, 0, -1, 1 << 30]))
    changed = bytearray(whole[:57] + struct.pack(">i", count) + body)
    by_the_chat(sealed(changed, codec) + whole)


@pytest.mark.parametrize("deltas", [(0, 0), (0, 2), (1, 0), (-1, 0)])
def test_records_without_an_offset_of_their_own_are_skipped(deltas: tuple[int, int]) -> None:
    """No two messages have one id, and none has one that is beyond its batch."""
    one, two = bytes(batch_of(b"one")[61:]), bytes(batch_of(b"two")[61:])
    # Length, attributes, time, and then the delta: each is a byte, and numbers are zigzag.
    body = b"".join(
        whole[:3] + bytes([(delta << 1) ^ (delta >> 63)]) + whole[4:]
        for whole, delta in zip((one, two), deltas, strict=True)
    )
    values, unreadable = by_the_chat(sealed(batch_of(b"one", b"two")[:61] + body))
    offsets = [offset for offset, _ in values]
    assert offsets == sorted(set(offsets))
    assert set(offsets) <= {0, 1}
    assert len(values) + unreadable == 2
    assert unreadable > 0


@settings(max_examples=60)
@given(st.binary(max_size=300) | damaged(kafka_batches().map(lambda made: made[0])))
def test_bytes_that_are_no_batch_are_told_as_such(data: bytes) -> None:
    with contextlib.suppress(CorruptRecordError):
        by_the_chat(data)


def test_a_damaged_batch_is_named_and_those_before_it_are_read() -> None:
    whole = bytes(batch_of(b"one"))
    damaged_one = bytearray(batch_of(b"two"))
    damaged_one[:8] = (1).to_bytes(8, "big")
    damaged_one[-2] ^= 1
    fetched = Fetched(
        0,
        TopicPartition("chat", 2),
        SimpleNamespace(_buffer=whole + bytes(damaged_one)),
        on_drain=lambda _: None,
    )
    assert [batch.first for batch in fetched.take(10)] == [0]
    assert fetched.next_fetch_offset == 1
    fetched = Fetched(
        1,
        TopicPartition("chat", 2),
        SimpleNamespace(_buffer=bytes(damaged_one) + whole),
        on_drain=lambda _: None,
    )
    with pytest.raises(CorruptRecordError) as error:
        fetched.take(10)
    assert named(error.value).startswith(
        "topic chat, partition 2, offset 1: the checksum of the batch is wrong. "
    )


@pytest.mark.parametrize("codec", PACK)
def test_a_batch_that_unpacks_to_too_much_is_not_unpacked(codec: int) -> None:
    batch = batch_of(b"x")
    # One record, and then nothing, for very long.
    content = bytes(batch[61:]).ljust(batches.MOST_BYTES + 1, b"\0")
    assert by_the_chat(sealed(batch[:61] + bytes(PACK[codec](content)), codec)) == ([], 1)
    within = content[: batches.MOST_BYTES]
    assert by_the_chat(sealed(batch[:61] + bytes(PACK[codec](within)), codec))[0] == [(0, b"x")]


def test_a_batch_in_the_blocks_of_the_java_library_is_read() -> None:
    batch = batch_of(b"one", b"two")
    blocks = [
        bytes(cramjam.snappy.compress_raw(bytes(part))) for part in (batch[61:70], batch[70:])
    ]
    framed = b"".join(struct.pack(">i", len(block)) + block for block in blocks)
    body = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + framed
    assert by_the_chat(sealed(batch[:61] + body, 2)) == ([(0, b"one"), (1, b"two")], 0)


def test_a_header_of_any_bytes_hides_no_record() -> None:
    batch = batch_of(b"one", headers=[("kk", b"v")])
    at = batch.index(b"kk")
    batch[at : at + 2] = b"\xff\xfe"
    data = sealed(batch)
    assert by_the_chat(data) == ([(0, b"one")], 0)
    # What made this module necessary.
    with pytest.raises(CorruptRecordError):
        list(MemoryRecords(data).next_batch())


async def test_replicas_go_on_beside_broken_records_and_signals(
    replica: Replica, kafka: dict[str, str], kafka_broker: KafkaBroker
) -> None:
    one, other = await replica(kafka), await replica(kafka)
    topic, signals = kafka["KAFKA_TOPIC"], kafka["KAFKA_SIGNAL_TOPIC"]
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers)
    ) as producer:
        place = partition_of("lobby", 3)
        producer.send(topic, value=BROKEN_UTF8, partition=place).get(10)
        headers = [(NotText("key"), b"v")]
        producer.send(topic, value=b"with a header", headers=headers, partition=place).get(10)
        for partition in range(3):
            producer.send(signals, value=b'{"replica":"\xff"}', partition=partition).get(10)
    async with ChatClient(one.port) as ada, ChatClient(other.port, user="bob") as bob:
        await joined(ada)
        await joined(bob)
        await ada.send("lobby", "still here")
        assert (await bob.hear("message"))["text"] == "still here"
        # Presence goes on too.
        frame = await ada.hear("presence")
        while frame["count"] != 2:
            frame = await ada.hear("presence")
    await until(lambda: one.relay.foreign_records == other.relay.foreign_records == 2)
    # One that starts now reads them in its rewind.
    late = await replica(kafka)
    assert late.relay.foreign_records == 2


async def test_the_longest_of_everything_comes_through_the_log(
    replica: Replica, kafka: dict[str, str]
) -> None:
    longest = {
        "CHAT_TEXT_BYTES": str(bounds.TEXT_BYTES),
        "CHAT_TEXT_GRAPHEMES": str(bounds.TEXT_BYTES),
        "CHAT_FRAME_BYTES": "1048576",
        "CHAT_OUTBOX_BYTES": "8388608",
    }
    one, other = await replica(kafka, longest), await replica(kafka, longest)
    room, cid = "r" * bounds.ROOM_LENGTH, "\N{GRINNING FACE}" * bounds.CID_LENGTH
    # Flags have eight bytes each; a quotation mark has two in JSON.
    user = "\N{REGIONAL INDICATOR SYMBOL LETTER D}\N{REGIONAL INDICATOR SYMBOL LETTER E}" * 32
    text = '"' * bounds.TEXT_BYTES
    assert len(user.encode()) == bounds.USER_BYTES
    async with (
        ChatClient(one.port, user=user, max_size=None) as ada,
        ChatClient(other.port, user="bob", max_size=None) as bob,
    ):
        await bob.join(room)
        await ada.join(room)
        await ada.send(room, text, cid)
        heard = await bob.hear("message")
        assert (heard["room"], heard["user"], heard["text"], heard["cid"]) == (
            room,
            user,
            text,
            cid,
        )
        # And it is read back from the log.
        partition = partition_of(room, 3)
        (entry,) = (await other.relay.read(partition, -1, 0)).entries
        assert (entry.record.user, entry.record.text, entry.record.cid) == (user, text, cid)
    assert one.relay.foreign_records == other.relay.foreign_records == 0


def test_unpacking_a_batch_takes_no_more_memory_than_it_holds() -> None:
    data = packed(batch_of(b"x" * 1000), 4)
    by_the_chat(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        by_the_chat(data)
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    # Of 4 KiB each.
    assert pages * 4096 < 20 * batches.MOST_BYTES / 32


def test_no_more_text_is_handed_over_at_once_however_well_it_is_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed: list[int] = []

    def hand_over(_: object, delivered: Sequence[Batch], *__: object) -> None:
        handed.append(sum(len(entry.record.text) for batch in delivered for entry in batch.entries))

    there = Watcher(
        {},
        "t",
        "s",
        Appender({}, "t", in_flight=1, in_flight_bytes=1, delivery_seconds=1),
        Signaller({}, "s"),
    )
    reader = Reader({}, "t", "s", there, rewind=0)
    monkeypatch.setattr(reader, "_hand_over", hand_over)
    reader._next = {0: 0}
    data = b""
    for number in range(100):
        texts = [
            Record("room", "ada", "x" * 8000, f"{number}-{one}", "a" * 32) for one in range(10)
        ]
        batch = batch_of(*map(encode, texts))
        struct.pack_into(">q", batch, 0, 10 * number)
        data += packed(batch, 4)
    assert len(data) < 100_000
    reader._take(0, list(batches.split(data)), 1)
    reader._hand_over_taken()
    assert sum(handed) == 8_000_000
    assert max(handed) < HANDED_OVER_BYTES + 100_000
