"""The register in Kafka: the first partition of a topic, which is small. Each replica reads it from
its beginning when it starts, and again after a fault.

It has its own thread and connections, so that a fault here delays no messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from chat.relay.base import UnavailableError
from chat.relay.kafka.batches import read
from chat.relay.kafka.client import (
    ANSWER_MS,
    POLL_BATCHES,
    POLL_MS,
    bounds,
    connection_options,
    end,
    named,
    new_consumer,
    note_interruptions,
)
from chat.relay.refusal import missing_rights
from chat.relay.register import Kept, Note, Register, Take, ignore
from chat.relay.security import PLAINTEXT, Security

log = logging.getLogger("chat.kafka")

# Between two attempts to read the topic.
AGAIN_SECONDS = 1.0
# Maximum size of a fetch, and how long a broker may hold one back that has nothing to tell.
FETCH_BYTES = 1 << 20
FETCH_WAIT_MS = 2000
FETCH_ANSWER_MS = 10_000
# Values per handover to the event loop, and handovers that it has not processed.
HANDED_OVER = 500
HANDOVERS_AHEAD = 4
# Values that wait to be stored, and the time for one. Storing one takes milliseconds.
MOST_WAITING = 100
PUT_SECONDS = 5.0
RIGHTS = ("READ", "WRITE")
SETTINGS_RIGHT = "DESCRIBE_CONFIGS"


class _UnusableError(Exception):
    """The topic cannot be used; the text says why, and the remedy."""


class KafkaRegister(Register):
    """`keep_seconds`: for how long the topic must keep what it holds; None: until its key is put
    again, or removed.

    Raises `SecurityError` if a file of `security` has invalid content.
    """

    def __init__(
        self,
        bootstrap_servers: Sequence[str],
        topic: str,
        *,
        client_id: str,
        keep_seconds: int | None,
        security: Security = PLAINTEXT,
    ) -> None:
        self._connect = connection_options(bootstrap_servers, client_id, security)
        self._topic = topic
        self._who = security.who
        self._keep_seconds = keep_seconds
        self._loop: asyncio.AbstractEventLoop
        self._take: Take
        self._begin: Note
        self._whole: Note
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._handovers = threading.BoundedSemaphore(HANDOVERS_AHEAD)
        # Set by the thread. Others read it.
        self._away = ""
        # Used only on the event loop.
        self._caught_up = False
        self._waiting = 0
        # One thread stores values, so only it uses the producer.
        self._writer = ThreadPoolExecutor(1, "kafka-register-writer")
        self._producer: KafkaProducer | None = None

    @property
    def caught_up(self) -> bool:
        return self._caught_up

    @property
    def away(self) -> str:
        return self._away

    async def start(self, take: Take, *, begin: Note = ignore, whole: Note = ignore) -> None:
        self._loop = asyncio.get_running_loop()
        self._take, self._begin, self._whole = take, begin, whole
        self._thread = threading.Thread(target=self._run, name="kafka-register", daemon=True)
        self._thread.start()

    async def put(self, key: str, value: bytes) -> None:
        await self._store(key, value)

    async def remove(self, key: str) -> None:
        await self._store(key, None)

    async def _store(self, key: str, value: bytes | None) -> None:
        if self._waiting >= MOST_WAITING:
            raise UnavailableError("Kafka is slow, and too much waits for it: try again.")
        self._waiting += 1
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._writer, self._write, key.encode(), value, time.monotonic() + PUT_SECONDS
            )
        except KafkaError as error:
            raise UnavailableError(f"Kafka did not take it: {named(error)}. Try again.") from None
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.shutdown(wait=False, cancel_futures=True)
        if self._producer is not None:
            end(self._producer, POLL_MS / 1000)
        if self._thread is not None:
            # A thread that waits for a broker that does not respond ends with the process.
            self._thread.join(2 * POLL_MS / 1000)

    # The writer's thread.

    def _write(self, key: bytes, value: bytes | None, deadline: float) -> None:
        """Raises `KafkaError`."""
        if time.monotonic() >= deadline:
            # Others waited for Kafka before it.
            raise KafkaTimeoutError
        put_ms = round(PUT_SECONDS * 1000)
        if self._producer is None:
            self._producer = KafkaProducer(
                **self._connect,
                bootstrap_timeout_ms=put_ms,
                acks="all",
                # A value that is stored twice would be read after others that came later.
                enable_idempotence=True,
                allow_auto_create_topics=False,
                linger_ms=0,
                request_timeout_ms=put_ms,
                delivery_timeout_ms=put_ms,
                max_block_ms=put_ms,
                metrics_enabled=False,
            )
        try:
            self._producer.send(self._topic, key=key, value=value, partition=0).get(PUT_SECONDS)
        except BaseException:
            # A producer may never recover from a fault (kafka-python 3.0.12).
            producer, self._producer = self._producer, None
            end(producer, 0)
            raise

    # The reader's thread.

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._check()
                self._follow()
            except _UnusableError as why:
                self._note(str(why))
            except KafkaError as error:
                self._note(named(error))
            self._stopping.wait(AGAIN_SECONDS)

    def _check(self) -> None:
        """Raises `_UnusableError` unless the topic can be used, and `KafkaError`."""
        with contextlib.closing(
            KafkaAdminClient(
                **self._connect, request_timeout_ms=ANSWER_MS, bootstrap_timeout_ms=ANSWER_MS
            )
        ) as admin:
            (topic,) = admin.describe_topics([self._topic])
            code = topic["error_code"]
            if code == UnknownTopicOrPartitionError.errno:
                raise _UnusableError(f"there is no topic {self._topic}: create it")
            if code and code != TopicAuthorizationFailedError.errno:
                raise for_code(code)()
            missing = ["DESCRIBE"] if code else missing_rights(topic, RIGHTS)
            if missing:
                raise _UnusableError(
                    f"{self._who} may not {', '.join(missing)} topic {self._topic}: grant it READ,"
                    " WRITE and DESCRIBE_CONFIGS there"
                )
            if not missing_rights(topic, [SETTINGS_RIGHT]):
                self._check_settings(admin)

    def _check_settings(self, admin: KafkaAdminClient) -> None:
        names = ["cleanup.policy", "retention.ms", "retention.bytes"]
        topic = ConfigResource(ConfigResourceType.TOPIC, self._topic, names)
        settings: Mapping[str, Any] = admin.describe_configs([topic], config_filter="all")[
            "topic"
        ].get(self._topic, {})
        if not settings.keys() >= set(names):
            raise UnknownTopicOrPartitionError
        if "delete" not in settings["cleanup.policy"]["value"]:
            return
        if self._keep_seconds is None:
            for name in ("retention.ms", "retention.bytes"):
                value = int(settings[name]["value"])
                if value >= 0:
                    raise _UnusableError(
                        f"topic {self._topic} has {name}={value}: set it to -1, or cleanup.policy"
                        " to compact"
                    )
            return
        kept, least = int(settings["retention.ms"]["value"]), self._keep_seconds * 1000
        if 0 <= kept < least:
            raise _UnusableError(
                f"topic {self._topic} has retention.ms={kept}: set it to at least {least}"
            )

    def _follow(self) -> None:
        """Deliver everything, from the beginning, until the register stops or a fetch fails.

        Raises `KafkaError`.
        """
        with contextlib.closing(self._consumer()) as consumer:
            partition = TopicPartition(self._topic, 0)
            consumer.assign([partition])
            first, following = bounds(consumer, [partition], ANSWER_MS)
            consumer.seek(partition, first[partition])
            self._note("")
            self._hand_over(self._begin)
            behind = True
            # A broker that has lost records since does not say so: begin anew.
            interrupted = note_interruptions(consumer)
            while not self._stopping.is_set() and not interrupted.is_set():
                if behind and consumer.position(partition) >= following[partition]:
                    behind = False
                    self._hand_over(self._note_whole)
                polled = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_BATCHES)
                for batch in polled.get(partition, ()):
                    records = read(batch, batch.first, keyed=True)
                    values = [
                        Kept(batch.time, value, key)
                        for (_, value), key in zip(records.values, records.keys, strict=True)
                    ]
                    for at in range(0, len(values), HANDED_OVER):
                        self._hand_over(
                            functools.partial(self._take, values[at : at + HANDED_OVER])
                        )

    def _consumer(self) -> KafkaConsumer:
        return new_consumer(
            self._connect,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=FETCH_ANSWER_MS,
        )

    def _note(self, away: str) -> None:
        if away != self._away:
            if away:
                log.warning("topic %s is not read: %s", self._topic, away)
            else:
                log.info("topic %s is read", self._topic)
        self._away = away

    def _hand_over(self, call: Note) -> None:
        """Have it called on the event loop, in order."""
        self._handovers.acquire()
        self._loop.call_soon_threadsafe(self._take_over, call)

    # On the event loop again.

    def _take_over(self, call: Note) -> None:
        try:
            call()
        finally:
            self._handovers.release()

    def _note_whole(self) -> None:
        self._whole()
        self._caught_up = True
