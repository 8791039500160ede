"""Replicas in processes of their own, their brokers, and what can happen to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
import urllib.request
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from conftest import PARTITIONS, Process, make_topic, revocations_of, signals_of, until
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError
from kafka_broker import KafkaBroker, KafkaCluster
from power_cut import cut_tail, records_in
from provider import ec_key, jwks, signed

from chaos.judge import Shown, Version
from chat.protocol import Position
from chat.relay.base import Record, partition_of
from chat.relay.kafka.record import decode

REPLICAS = 3
# Between two faults of a kind.
PAUSE_SECONDS = (1.0, 4.0)

# What can happen to something, one at a time.
Faults = dict[str, Callable[[], Awaitable[None]]]
Start = Callable[..., Process]
# Of each room, what a partition's log held.
Rooms = dict[str, list[Shown]]


class Tokens:
    """What people bring where nobody is let in without. Replicas know the key from a file."""

    def __init__(self, folder: Path) -> None:
        self._key = ec_key("chaos")
        keys = folder / "keys.json"
        keys.write_bytes(jwks(self._key))
        issuer = {"issuer": "chaos", "audience": "chat", "jwks": str(keys)}
        self.environment = {"CHAT_AUTH": "required", "CHAT_AUTH_ISSUERS": json.dumps([issuer])}

    def headers(self, name: str, subject: str) -> dict[str, str]:
        now = int(time.time())
        claims = {"iss": "chaos", "aud": "chat", "sub": subject, "preferred_username": name}
        token = signed(claims | {"iat": now, "exp": now + 60}, self._key)
        return {"Authorization": f"Bearer {token}"}


class Site:
    """Three replicas on topics of their own. Each kind of site adds its brokers."""

    def __init__(
        self, bootstrap_servers: str, start: Start, rng: random.Random, *, copies: int
    ) -> None:
        # What replicas need to require tokens, and who signs these; None if nobody signs in.
        self.tokens: Tokens | None = None
        self.topic = f"chaos-{uuid.uuid4().hex[:12]}"
        self.done: Counter[str] = Counter()
        # What partitions held before they lost their end, and when that was (monotonic).
        self.lost: defaultdict[int, list[Rooms]] = defaultdict(list)
        self.lost_at: defaultdict[int, list[float]] = defaultdict(list)
        self._bootstrap_servers = bootstrap_servers
        self._start = start
        self._random = rng
        self._copies = copies
        self._epoch = ""
        self._replicas: list[Process] = []
        self.replica_faults: Faults = {
            "a replica is killed": self._kill_replica,
            "a replica is terminated": self._terminate_replica,
            "a replica is frozen": self._freeze_replica,
        }
        self.broker_faults: Faults = {}
        # How often each is drawn, beside others.
        self.weights: defaultdict[str, int] = defaultdict(lambda: 1)

    async def open(self) -> None:
        with self._admin() as admin:
            topics = self.topic, signals_of(self.topic), revocations_of(self.topic)
            make_topic(admin, *topics, replicas=self._copies)
            await until(lambda: self._learn_epoch(admin))
        await asyncio.gather(*(self._add_replica() for _ in range(REPLICAS)))
        # Who is on one of them, the others know from now on.
        await until(lambda: all(map(_hears_all, self._replicas)))

    def _learn_epoch(self, admin: KafkaAdminClient) -> bool:
        """Whether the broker that was asked knows the topic: each learns of a new one by itself."""
        (described,) = admin.describe_topics([self.topic])
        self._epoch = str(described["topic_id"] or "")
        return bool(self._epoch)

    def ports(self) -> list[int]:
        return [replica.port for replica in self._replicas]

    def sign_in(self, name: str, subject: str) -> dict[str, str]:
        """The headers of somebody."""
        return self.tokens.headers(name, subject) if self.tokens else {}

    async def cause(self, faults: Faults, enough: Callable[[], bool]) -> None:
        """Cause each fault once, in any order, and then whatever comes, until it is enough."""
        while (left := [one for one in faults if not self.done[one]]) or not enough():
            # Meanwhile people talk, also where nothing happens.
            await asyncio.sleep(self._random.uniform(*PAUSE_SECONDS))
            drawn = left or list(faults)
            (fault,) = self._random.choices(drawn, [self.weights[one] for one in drawn])
            await faults[fault]()
            self.done[fault] += 1

    async def versions(self, rooms: Sequence[str]) -> dict[str, list[Version]]:
        """Of each room, what the log held before each loss, and what it holds now."""
        now = await asyncio.to_thread(self._read)
        return {
            room: [
                *(lost.get(room, []) for lost in self.lost[partition_of(room, PARTITIONS)]),
                now.get(room, []),
            ]
            for room in rooms
        }

    async def _add_replica(self) -> None:
        environment = {
            "KAFKA_ENABLED": "true",
            "KAFKA_BOOTSTRAP_SERVERS": self._bootstrap_servers,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_SIGNAL_TOPIC": signals_of(self.topic),
            "KAFKA_REVOCATION_TOPIC": revocations_of(self.topic),
            "CHAT_DRAIN_SECONDS": "1",
        }
        if self.tokens:
            environment |= self.tokens.environment
        self._replicas.append(await asyncio.to_thread(self._start, environment))

    async def _kill_replica(self) -> None:
        self._take_one().popen.kill()
        await self._add_replica()

    async def _terminate_replica(self) -> None:
        replica = self._take_one()
        replica.popen.terminate()
        await self._add_replica()
        assert await asyncio.to_thread(replica.popen.wait, 20) == 0

    async def _freeze_replica(self) -> None:
        replica = self._random.choice(self._replicas)
        replica.popen.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._random.uniform(0.2, 4))
        replica.popen.send_signal(signal.SIGCONT)

    def _take_one(self) -> Process:
        return self._replicas.pop(self._random.randrange(len(self._replicas)))

    def _admin(self) -> contextlib.closing[KafkaAdminClient]:
        return contextlib.closing(KafkaAdminClient(bootstrap_servers=self._bootstrap_servers))

    def _read(self) -> Rooms:
        """All that the topic holds."""
        raise NotImplementedError

    def _rooms(self, partition: int, records: Iterable[tuple[int, int, bytes]]) -> Rooms:
        """What records (offset, time, value) of a partition say, without repeats."""
        rooms: defaultdict[str, dict[tuple[str, str], Shown]] = defaultdict(dict)
        for offset, at, value in records:
            record = decode(value)
            assert isinstance(record, Record)
            place = Position(self._epoch, partition, offset, at)
            shown = Shown(str(place), record.author, record.user, record.cid, record.text)
            rooms[record.room].setdefault((record.author, record.cid), shown)
        return {room: list(shown.values()) for room, shown in rooms.items()}


def _hears_all(replica: Process) -> bool:
    url = f"http://127.0.0.1:{replica.internal_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        return f"chat_replicas {REPLICAS}.0".encode() in answer.read()


class ClusterSite(Site):
    """On three brokers, of which two are enough."""

    def __init__(self, cluster: KafkaCluster, start: Start, rng: random.Random) -> None:
        super().__init__(cluster.bootstrap_servers, start, rng, copies=3)
        self._cluster = cluster
        self.broker_faults = {
            "a leader is killed": self._kill_leader,
            "a broker is restarted": self._restart_broker,
            "a broker is frozen": self._freeze_broker,
        }

    def _read(self) -> Rooms:
        """By other means than the chat's."""
        with contextlib.closing(
            KafkaConsumer(
                bootstrap_servers=self._bootstrap_servers,
                group_id=None,
                auto_offset_reset="earliest",
            )
        ) as consumer:
            partitions = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            found: dict[int, list[tuple[int, int, bytes]]] = defaultdict(list)
            while any(consumer.position(tp) < end for tp, end in ends.items()):
                for tp, records in consumer.poll(timeout_ms=500).items():
                    found[tp.partition] += [
                        (one.offset, one.timestamp, one.value) for one in records
                    ]
        return {
            room: shown
            for partition, records in found.items()
            for room, shown in self._rooms(partition, records).items()
        }

    async def _kill_leader(self) -> None:
        (described,) = await asyncio.to_thread(self._describe)
        leader = described["partitions"][self._random.randrange(PARTITIONS)]["leader_id"]
        broker = self._cluster.brokers[leader]
        broker.kill()
        await self._all_back()

    async def _restart_broker(self) -> None:
        broker = self._random.choice(self._cluster.brokers)
        await asyncio.to_thread(broker.stop)
        await self._all_back()

    async def _freeze_broker(self) -> None:
        broker = self._random.choice(self._cluster.brokers)
        broker.pause()
        await asyncio.sleep(self._random.uniform(0.5, 5))
        broker.resume()
        await self._all_in_sync()

    async def _all_back(self) -> None:
        await asyncio.sleep(self._random.uniform(0, 2))
        await self._all_in_sync()

    async def _all_in_sync(self) -> None:
        # The next broker goes when this one is back: with two away, nothing can be written. Each
        # is asked itself, for ZooKeeper believes in a dead one for seconds.
        await asyncio.to_thread(self._cluster.start)
        async with asyncio.timeout(240):
            while True:
                with contextlib.suppress(KafkaError):
                    (described,) = await asyncio.to_thread(self._describe)
                    copies = [len(one["isr_nodes"]) for one in described["partitions"]]
                    if copies == [3] * PARTITIONS:
                        return
                await asyncio.sleep(0.2)

    def _describe(self) -> list[dict[str, Any]]:
        with self._admin() as admin:
            described: list[dict[str, Any]] = admin.describe_topics([self.topic])
        return described


class LoneSite(Site):
    """On one broker, which may lose what it has acknowledged."""

    def __init__(self, broker: KafkaBroker, start: Start, rng: random.Random) -> None:
        super().__init__(broker.bootstrap_servers, start, rng, copies=1)
        self._broker = broker
        self.broker_faults = {
            "the log loses its tail": self._lose_tail,
            "the broker is killed": self._kill_broker,
            "the broker is frozen": self._freeze_broker,
            "the topic's settings change": self._change_settings,
        }
        self.weights["the log loses its tail"] = 4

    def _read(self) -> Rooms:
        return {
            room: shown
            for partition in range(PARTITIONS)
            for room, shown in self._read_partition(partition).items()
        }

    def _read_partition(self, partition: int) -> Rooms:
        return self._rooms(partition, records_in(self._broker.segments(self.topic, partition)))

    async def _lose_tail(self) -> None:
        cut = self._random.sample(range(PARTITIONS), self._random.randint(1, PARTITIONS))
        await until(lambda: all(self._tail(number).stat().st_size for number in cut), 60)
        self._broker.kill()
        for partition in range(PARTITIONS):
            if partition in cut:
                await asyncio.to_thread(self._cut, partition, self._random.randint(1, 5))
            signals = self._broker.segments(signals_of(self.topic), partition)
            cut_tail(signals[-1], self._random.randint(0, 5))
        await self._start_broker()

    def _cut(self, partition: int, batches: int) -> None:
        self.lost[partition].append(self._read_partition(partition))
        self.lost_at[partition].append(time.monotonic())
        cut_tail(self._tail(partition), batches)

    def _tail(self, partition: int) -> Path:
        return self._broker.segments(self.topic, partition)[-1]

    async def _kill_broker(self) -> None:
        self._broker.kill()
        await self._start_broker()

    async def _start_broker(self) -> None:
        await asyncio.sleep(self._random.uniform(0, 1))
        await asyncio.to_thread(self._broker.start)

    async def _freeze_broker(self) -> None:
        self._broker.pause()
        await asyncio.sleep(self._random.uniform(0.5, 5))
        self._broker.resume()

    async def _change_settings(self) -> None:
        settings = {
            "compression.type": self._random.choice(
                ["producer", "gzip", "snappy", "lz4", "zstd", "uncompressed"]
            ),
            # A log of many files, or of one.
            "segment.bytes": self._random.choice(["16384", "1073741824"]),
        }
        async with asyncio.timeout(60):
            # A broker that has just started knows the topic a moment later.
            while True:
                with contextlib.suppress(KafkaError):
                    if await asyncio.to_thread(self._set, settings) == "OK":
                        return
                await asyncio.sleep(0.1)

    def _set(self, settings: dict[str, str]) -> str:
        resource = ConfigResource(ConfigResourceType.TOPIC, self.topic, configs=settings)
        with self._admin() as admin:
            answer = admin.alter_configs([resource], raise_on_unknown=False)
        outcome: str = answer["topic"][self.topic]
        return outcome
