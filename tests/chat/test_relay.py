"""What a relay promises, asked of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from conftest import until

from chat import settings as chat_settings
from chat.__main__ import relay_for
from chat.relay.base import Batch, Record, Relay, UnavailableError, partition_of


class Recorder:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.epochs: list[str] = []
        self.started_at: Sequence[int] = ()
        self.positions: dict[int, int] = {}
        self.heard: list[tuple[int, int, Record]] = []

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

    @property
    def records(self) -> list[Record]:
        return [record for _, _, record in self.heard]


@pytest.fixture
async def relay(log: dict[str, str]) -> AsyncIterator[Callable[..., Any]]:
    """Start relays on the log; each has caught up when it is returned, with its listener."""
    started: list[Relay] = []

    async def start(**more: str) -> tuple[Relay, Recorder]:
        made = relay_for(chat_settings.load(log | more))
        started.append(made)
        listener = Recorder()
        await made.start(listener)
        await until(lambda: made.caught_up and made.up)
        return made, listener

    yield start
    await asyncio.gather(*(made.stop(2) for made in started))


def record(number: int, room: str = "lobby") -> Record:
    return Record(room, "ada", f"text {number}", str(number))


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
