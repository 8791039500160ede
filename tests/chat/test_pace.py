"""A busy log is fetched less often, a quiet one at once. The tests have their own clock."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from chat.relay.kafka import reader as reader_module
from chat.relay.kafka.batches import RecordBatch
from chat.relay.kafka.client import GATHER_MS, Topic
from chat.relay.kafka.pace import BUSY_RATE, Pace
from chat.relay.kafka.producer import Appender, Signaller
from chat.relay.kafka.reader import Reader
from chat.relay.kafka.watcher import Watcher

TP = TopicPartition("t", 0)
POLL_SECONDS = 0.001
RECORD_BYTES = 250


class Log(threading.Event):
    """A consumer of one partition that gets `rate` records a second. It is also the event that
    stops its reader, after `seconds` of its clock.
    """

    def __init__(self, rate: float, seconds: float) -> None:
        super().__init__()
        self.now = 0.0
        self.polls = 0
        self.config = {"fetch_min_bytes": 1, "fetch_max_wait_ms": 500}
        self._rate, self._seconds = rate, seconds
        self._read = 0
        self._fetcher = SimpleNamespace(
            config=dict(self.config), _handle_fetch_error=None, _handle_fetch_response=None
        )

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        assert partitions == [TP]

    def seek(self, _: object, offset: int) -> None:
        self._read = offset

    def beginning_offsets(self, _: object, _timeout_ms: int | None) -> dict[TopicPartition, int]:
        return {TP: 0}

    def end_offsets(self, _: object, _timeout_ms: int | None) -> dict[TopicPartition, int]:
        return {TP: 0}

    def highwater(self, _: object) -> int:
        return int(self.now * self._rate)

    def poll(self, **_: object) -> dict[TopicPartition, list[RecordBatch]]:
        """Fetch, and wait as a broker would."""
        self.polls += 1
        config = self._fetcher.config
        enough = self._read + config["fetch_min_bytes"] / RECORD_BYTES
        deadline = self.now + config["fetch_max_wait_ms"] / 1000
        self.now += POLL_SECONDS
        while self.highwater(TP) < enough and self.now < deadline:
            self.now += POLL_SECONDS
        first, self._read = self._read, self.highwater(TP)
        if first == self._read:
            return {}
        return {TP: [RecordBatch(first, self._read - 1, 0, 0, memoryview(bytes(61)))]}

    def close(self) -> None: ...

    def is_set(self) -> bool:
        return self.now >= self._seconds


def read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic("epoch", 1)
    appender = Appender({}, "t", in_flight=1, in_flight_bytes=1, delivery_seconds=1)
    watcher = Watcher({}, "t", "s", appender, Signaller({}, "s"))
    watcher.messages = topic
    reader = Reader({}, "t", "s", watcher, rewind=1_000_000)

    def hand_over(*_: Any) -> None: ...

    monkeypatch.setattr(reader, "_consumer", lambda: log)
    monkeypatch.setattr(reader, "_hand_over", hand_over)
    monkeypatch.setattr(reader_module, "time", SimpleNamespace(monotonic=lambda: log.now))
    reader._read_topic(topic, None, log)


def test_a_busy_log_is_fetched_fifty_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(rate=6000, seconds=10)
    read(log, monkeypatch)
    # Before the log is known to be busy, it is fetched once per millisecond.
    assert log.polls <= 10 * 1000 / GATHER_MS + 101


def test_the_busier_a_log_the_more_often_it_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(rate=200_000, seconds=10)
    read(log, monkeypatch)
    assert log.polls >= 3 * 10 * 1000 / GATHER_MS


def test_a_quiet_log_is_fetched_for_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(rate=BUSY_RATE / 2, seconds=10)
    read(log, monkeypatch)
    assert log.polls >= 10 * BUSY_RATE / 2


def test_a_burst_does_not_make_a_log_busy() -> None:
    pace = Pace(0.0)
    pace.count(90, 0.001)
    assert not pace.busy
    pace.count(0, 0.2)
    assert not pace.busy


def test_a_log_that_was_busy_is_quiet_again_with_the_first_record_after_a_while() -> None:
    pace = Pace(0.0)
    pace.count(1000, 0.1)
    assert pace.busy
    pace.count(1, 0.3)
    assert not pace.busy
