"""The thread that reads all partitions, and hands over to the event loop once per poll.

Every replica reads by `assign()`, in no consumer group: nothing to join, to rebalance or to leak.
It begins some way back from the end, so that rooms have their history.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka.errors import KafkaError, LogTruncationError

from chat.relay.base import Batch, Listener
from chat.relay.kafka.client import POLL_MS, POLL_RECORDS, Topic, named, new_consumer
from chat.relay.kafka.record import entries
from chat.relay.kafka.watcher import Watcher

log = logging.getLogger("chat.kafka")

# Polls the reader may be ahead of the event loop: what it holds while the loop is busy stays
# bounded.
POLLS_AHEAD = 4


class Reader:
    """`rewind`: where to begin, in records before a partition's end.

    `delivered` is the log whose records are delivered; for a moment it is not the one that the
    watcher found.
    """

    def __init__(
        self,
        connect: Mapping[str, Any],
        topic: str,
        signal_topic: str,
        watcher: Watcher,
        *,
        rewind: int,
    ) -> None:
        self._connect = connect
        self._topic = topic
        self._signal_topic = signal_topic
        self._watcher = watcher
        self._rewind = rewind
        self._loop: asyncio.AbstractEventLoop
        self._listener: Listener
        # The reader's place: the log it reads, and the next offset of each partition.
        self._reading: Topic | None = None
        self._next: dict[int, int] = {}
        self.lag: dict[int, int] = {}
        self._handovers = threading.BoundedSemaphore(POLLS_AHEAD)
        # The event loop's.
        self.delivered: Topic | None = None
        self.caught_up = False
        self.foreign = 0

    def start(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        self._loop = loop
        self._listener = listener

    # The reader's thread.

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            topic = self._watcher.messages
            if topic is not None:
                try:
                    self._read_topic(topic, self._watcher.signals, stopping)
                except LogTruncationError:
                    log.warning("Kafka lost records that were read: starting over")
                    # It may be because the topic is another one of the same name. The watcher will
                    # tell: positions of one log must not be taken for those of another.
                    self._reading = None
                    self._watcher.forget()
                except KafkaError as error:
                    # Kafka being away is no news here: the watcher has said it.
                    level = logging.WARNING if self._watcher.reachable else logging.DEBUG
                    log.log(level, "reading is interrupted: %s", named(error))
            stopping.wait(POLL_MS / 1000)

    def _read_topic(self, topic: Topic, signals: Topic | None, stopping: threading.Event) -> None:
        """Read until a topic is another one or the relay stops. Raises `KafkaError`."""
        with contextlib.closing(new_consumer(self._connect)) as consumer:
            partitions = topic.named(self._topic)
            signalling = signals.named(self._signal_topic) if signals else []
            consumer.assign(partitions + signalling)
            if signalling:
                consumer.seek_to_end(*signalling)
            first = {tp.partition: at for tp, at in consumer.beginning_offsets(partitions).items()}
            end = {tp.partition: at for tp, at in consumer.end_offsets(partitions).items()}
            if not self._can_go_on(topic, first, end):
                self._start_over(topic, first, end)
            for tp in partitions:
                consumer.seek(tp, self._next[tp.partition])
            behind = {number for number, at in end.items() if self._next[number] < at}
            if not behind:
                self._hand_over(self._catch_up)
            while not stopping.is_set() and self._still(topic, signals):
                polled = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
                batches, foreign, payloads = [], 0, []
                for tp, records in polled.items():
                    if tp.topic == self._signal_topic:
                        payloads += [record.value for record in records if record.value is not None]
                        continue
                    ours = list(entries(records, topic.partitions))
                    foreign += len(records) - len(ours)
                    self._next[tp.partition] = consumer.position(tp)
                    batches.append(Batch(tp.partition, self._next[tp.partition] - 1, ours))
                self.lag = {
                    tp.partition: max(0, (consumer.highwater(tp) or 0) - self._next[tp.partition])
                    for tp in partitions
                }
                if batches:
                    self._hand_over(self._deliver, batches, foreign)
                if payloads:
                    self._hand_over(self._listener.signalled, payloads)
                if behind:
                    behind = {number for number in behind if self._next[number] < end[number]}
                    if not behind:
                        self._hand_over(self._catch_up)

    def _still(self, topic: Topic, signals: Topic | None) -> bool:
        return (self._watcher.messages, self._watcher.signals) == (topic, signals)

    def _can_go_on(self, topic: Topic, first: Mapping[int, int], end: Mapping[int, int]) -> bool:
        """Whether the log still has what follows the last record that was read."""
        return self._reading == topic and all(
            first[number] <= self._next[number] <= end[number] for number in range(topic.partitions)
        )

    def _start_over(self, topic: Topic, first: Mapping[int, int], end: Mapping[int, int]) -> None:
        self._next = {number: max(first[number], end[number] - self._rewind) for number in first}
        self._reading = topic
        self._hand_over(
            self._reset, topic, [self._next[number] - 1 for number in range(topic.partitions)]
        )

    def _hand_over(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have the event loop make the call, in the order of handing over."""
        self._handovers.acquire()
        self._loop.call_soon_threadsafe(functools.partial(self._take_over, call, *arguments))

    # On the event loop again.

    def _take_over(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        finally:
            self._handovers.release()

    def _reset(self, topic: Topic, positions: Sequence[int]) -> None:
        self.caught_up = False
        self.delivered = topic
        self._listener.reset(topic.epoch, positions)

    def _deliver(self, batches: Sequence[Batch], foreign: int) -> None:
        self.foreign += foreign
        self._listener.deliver(batches)

    def _catch_up(self) -> None:
        if not self.caught_up:
            log.info("all that the topic held is read")
        self.caught_up = True
