"""The relay whose log is in Kafka.

Reading: every replica reads all partitions. Writing: a record's key is its room, its partition is
computed from the room here, and it counts once all in-sync replicas have it. Epoch: the topic's id,
which changes when the topic is recreated.

Signals have their own topic, which keeps them for a minute. Nobody waits for them and none is sent
twice, so they also have their own producer. Without that topic there are no signals, and everything
else works.

kafka-python blocks, so it runs in separate threads; this class connects them to the event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence

from chat.relay.base import Listener, Portion, Record, Relay, UnavailableError
from chat.relay.kafka.client import POLL_MS, Topic, connection_options
from chat.relay.kafka.producer import Appender, Signaller
from chat.relay.kafka.readback import ReadersBack
from chat.relay.kafka.reader import Reader
from chat.relay.kafka.record import Skipped
from chat.relay.kafka.watcher import Watcher
from chat.relay.security import PLAINTEXT, Security

LAST_SIGNAL_SECONDS = 0.5


class KafkaRelay(Relay):
    """`rewind`: start this many records before the end of each partition. `in_flight` and
    `in_flight_bytes`: limits on open appends.

    Raises `SecurityError` if a file of `security` has invalid content.
    """

    def __init__(
        self,
        bootstrap_servers: Sequence[str],
        topic: str,
        signal_topic: str,
        *,
        client_id: str,
        rewind: int,
        in_flight: int,
        in_flight_bytes: int,
        delivery_seconds: float,
        security: Security = PLAINTEXT,
    ) -> None:
        connect = connection_options(bootstrap_servers, client_id, security)
        self._appender = Appender(
            connect,
            topic,
            in_flight=in_flight,
            in_flight_bytes=in_flight_bytes,
            delivery_seconds=delivery_seconds,
        )
        self._signaller = Signaller(connect, signal_topic)
        self._watcher = Watcher(
            connect, topic, signal_topic, self._appender, self._signaller, security
        )
        self._reader = Reader(connect, topic, signal_topic, self._watcher, rewind=rewind)
        self._readers_back = ReadersBack(connect, topic, self._watcher)
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    @property
    def up(self) -> bool:
        return self._watcher.reachable and self._appender.producer is not None

    @property
    def caught_up(self) -> bool:
        return self._reader.caught_up

    @property
    def trouble(self) -> str:
        return self._watcher.trouble or self._reader.trouble

    @property
    def away(self) -> str:
        return self._watcher.away

    @property
    def lag(self) -> Mapping[int, int]:
        return self._reader.lag

    @property
    def foreign_records(self) -> int:
        return self._reader.skipped[Skipped.FOREIGN]

    @property
    def unknown_records(self) -> int:
        return self._reader.skipped[Skipped.UNKNOWN]

    async def start(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        self._appender.start(loop)
        self._signaller.start(loop)
        self._watcher.start(loop)
        self._reader.start(loop, listener)
        for name, work in (
            ("kafka-watcher", self._watcher.run),
            ("kafka-reader", self._reader.run),
        ):
            thread = threading.Thread(target=work, args=(self._stopping,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def append(self, record: Record) -> asyncio.Future[None]:
        return self._appender.append(record, self._usable().partitions)

    async def read(self, partition: int, after: int, upto: int) -> Portion:
        return await self._readers_back.read(self._usable(), partition, after, upto)

    async def time_at(self, partition: int, offset: int) -> int | None:
        return await self._readers_back.time_at(self._usable(), partition, offset)

    def _usable(self) -> Topic:
        """The log to append to and to read back. Raises `UnavailableError`.

        A position belongs to a log, so only the log that members see is used.
        """
        topic, delivered = self._watcher.messages, self._reader.delivered
        if topic is None or not self._watcher.reachable or delivered is None:
            raise UnavailableError("Kafka cannot be reached: try again.")
        if topic != delivered:
            raise UnavailableError("The log is being replaced: try again.")
        return topic

    def signal(self, payload: bytes) -> None:
        topic = self._watcher.signals
        if topic is not None and self._watcher.reachable:
            self._signaller.signal(payload, topic)

    async def stop(self, seconds: float) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._close, seconds)

    def _close(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._appender.close(seconds)
        # Wait only a moment for the last signals of a replica that shuts down.
        self._signaller.close(min(seconds, LAST_SIGNAL_SECONDS))
        self._readers_back.close()
        for thread in self._threads:
            # A thread that waits for a broker that does not respond ends with the process.
            thread.join(max(deadline - time.monotonic(), 2 * POLL_MS / 1000))
