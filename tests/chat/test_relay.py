"""The promises of a relay, tested on both implementations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from conftest import until

from chat import settings as chat_settings
from chat.__main__ import relay_for
from chat.relay.base import Batch, Record, Relay, UnavailableError, partition_of
from chat.relay.memory import MemoryLog, MemoryRelay


class Recorder:
    """A listener that records its calls."""

    def __init__(self) -> None:
        self.epochs: list[str] = []
        self.started_at: Sequence[int] = ()
        self.positions: dict[int, int] = {}
        self.heard: list[tuple[int, int, Record]] = []
        self.signals: list[bytes] = []

    def reset(self, epoch: str, positions: Sequence[int]) -> None:
        self.epochs.append(epoch)
        self.started_at = list(positions)
        self.positions = dict(enumerate(positions))

    def deliver(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            for entry in batch.entries:
                assert entry.offset > self.positions[batch.partition], "in order, none twice"
                self.positions[batch.partition] = entry.offset
                self.heard.append((batch.partition, entry.offset, entry.record))
            assert batch.position >= self.positions[batch.partition]
            self.positions[batch.partition] = batch.position

    def signalled(self, payloads: Sequence[bytes]) -> None:
        self.signals += payloads

    @property
    def records(self) -> list[Record]:
        return [record for _, _, record in self.heard]


@pytest.fixture
async def relay(log: dict[str, str]) -> AsyncIterator[Callable[..., Any]]:
    """Start relays on one log. Each has caught up when it is returned, together with its
    listener.
    """
    started: list[Relay] = []
    in_memory = MemoryLog()

    async def start() -> tuple[Relay, Recorder]:
        made = relay_for(chat_settings.load(log)) if log else MemoryRelay(in_memory)
        started.append(made)
        listener = Recorder()
        await made.start(listener)
        await until(lambda: made.caught_up and made.up)
        return made, listener

    yield start
    await asyncio.gather(*(made.stop(2) for made in started))


AUTHOR = "0123456789abcdef" * 2


def record(number: int, room: str = "lobby") -> Record:
    return Record(room, "ada", f"text {number}", str(number), AUTHOR)


async def test_what_is_appended_is_delivered_in_order(relay: Callable[..., Any]) -> None:
    made, listener = await relay()
    records = [record(number, room) for number in range(50) for room in ("lobby", "kafka", "x")]
    await asyncio.gather(*(made.append(one) for one in records))
    await until(lambda: len(listener.heard) == len(records))
    for room in ("lobby", "kafka", "x"):
        wanted = [one for one in records if one.room == room]
        assert [one for one in listener.records if one.room == room] == wanted


async def test_a_room_s_records_are_in_its_partition(relay: Callable[..., Any]) -> None:
    made, listener = await relay()
    rooms = [f"room-{number}" for number in range(20)]
    await asyncio.gather(*(made.append(record(0, room)) for room in rooms))
    await until(lambda: len(listener.heard) == len(rooms))
    partitions = len(listener.started_at)
    assert all(
        partition == partition_of(one.room, partitions) for partition, _, one in listener.heard
    )


async def test_time_is_the_log_s_in_milliseconds(relay: Callable[..., Any]) -> None:
    made, listener = await relay()
    times: list[int] = []
    listener.deliver = lambda batches: times.extend(
        entry.ts for batch in batches for entry in batch.entries
    )
    await made.append(record(0))
    await until(lambda: times)
    assert 1_700_000_000_000 < times[0] < 5_000_000_000_000


async def test_stopping_takes_no_more_and_loses_nothing(relay: Callable[..., Any]) -> None:
    made, _ = await relay()
    held = [made.append(record(number)) for number in range(200)]
    await made.stop(10)
    assert all(one.done() and one.exception() is None for one in held)
    with pytest.raises(UnavailableError):
        made.append(record(200))


async def test_relays_of_one_log_deliver_the_same(relay: Callable[..., Any]) -> None:
    (one, first), (other, second) = await relay(), await relay()
    appends = [made.append(record(n)) for n in range(30) for made in (one, other)]
    await asyncio.gather(*appends)
    await until(lambda: len(first.heard) == len(second.heard) == 60)
    assert first.heard == second.heard
    assert first.epochs == second.epochs


async def test_one_that_comes_later_is_delivered_what_was_there(
    relay: Callable[..., Any],
) -> None:
    made, listener = await relay()
    await asyncio.gather(*(made.append(record(number)) for number in range(50)))
    await until(lambda: len(listener.heard) == 50)
    _, later = await relay()
    assert later.heard == listener.heard


async def test_a_signal_reaches_every_replica_and_is_not_in_the_log(
    relay: Callable[..., Any],
) -> None:
    (one, first), (other, second) = await relay(), await relay()
    payloads = [f"from {name} {number}".encode() for number in range(20) for name in ("one", "two")]

    async def heard_by_both() -> None:
        for payload in payloads:
            (one if b"one" in payload else other).signal(payload)
        await until(lambda: set(payloads) <= set(first.signals) & set(second.signals), 1)

    # A replica misses signals from before it subscribed, and nothing reports when it has.
    async with asyncio.timeout(20):
        while True:
            first.signals.clear()
            second.signals.clear()
            with contextlib.suppress(AssertionError):
                await heard_by_both()
                break
    for name in (b"one", b"two"):
        sent = [payload for payload in payloads if name in payload]
        for listener in (first, second):
            assert [payload for payload in listener.signals if name in payload][-20:] == sent
    assert first.heard == second.heard == []


async def test_a_relay_that_does_not_run_drops_signals(relay: Callable[..., Any]) -> None:
    made, listener = await relay()
    await made.stop(2)
    made.signal(b"nobody is there")
    assert listener.signals == []


async def test_the_log_can_be_read_back_beside_the_delivery(relay: Callable[..., Any]) -> None:
    made, listener = await relay()
    partition = partition_of("lobby", len(listener.started_at))
    await asyncio.gather(*(made.append(record(number)) for number in range(100)))
    await until(lambda: len(listener.heard) == 100)

    async def texts(after: int, upto: int) -> list[str]:
        return [entry.record.text for entry in (await made.read(partition, after, upto)).entries]

    def between(first: int, last: int) -> list[str]:
        return [f"text {number}" for number in range(first, last)]

    assert await texts(-1, 99) == between(0, 100)
    assert await texts(9, 19) == between(10, 20)
    assert await texts(19, 19) == []
    # Only existing records are returned, at both ends.
    assert await texts(89, 1000) == between(90, 100)
    assert await texts(-50, 1) == between(0, 2)
    many = await asyncio.gather(*(texts(at, at + 10) for at in range(50)), made.append(record(100)))
    assert many[:-1] == [between(at + 1, at + 11) for at in range(50)]
    await until(lambda: len(listener.heard) == 101)
    (entry,) = (await made.read(partition, 41, 42)).entries
    assert (entry.offset, entry.record) == listener.heard[42][1:]
