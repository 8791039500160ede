"""A log of this process alone: no Kafka, the same promises, and all of it forgotten at the end."""

from __future__ import annotations

import asyncio
import time
import uuid

from chat.relay.base import Batch, Entry, Listener, Record, Relay, UnavailableError, partition_of


class MemoryRelay(Relay):
    """Keeps no records: whoever listens has had them all since the process began.

    The epoch is new in every process, so positions of an earlier one are recognised as lost.
    """

    def __init__(self, partitions: int = 4) -> None:
        self._offsets = [-1] * partitions
        self._listener: Listener | None = None

    @property
    def up(self) -> bool:
        return self._listener is not None

    @property
    def caught_up(self) -> bool:
        return self._listener is not None

    async def start(self, listener: Listener) -> None:
        self._listener = listener
        listener.reset(uuid.uuid4().hex, self._offsets)

    def append(self, record: Record) -> asyncio.Future[None]:
        if self._listener is None:
            raise UnavailableError("The service is not running.")
        partition = partition_of(record.room, len(self._offsets))
        self._offsets[partition] += 1
        entry = Entry(self._offsets[partition], time.time_ns() // 1_000_000, record)
        # Later, as with Kafka: nobody may rely on a delivery while they append.
        loop = asyncio.get_running_loop()
        loop.call_soon(self._listener.deliver, [Batch(partition, entry.offset, [entry])])
        held: asyncio.Future[None] = loop.create_future()
        held.set_result(None)
        return held

    async def stop(self, seconds: float) -> None:  # noqa: ARG002 - nothing waits
        self._listener = None
