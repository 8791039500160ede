"""Whatever is killed, every acknowledged message is seen by everybody once and in the same order.

Three replicas in processes of their own and three brokers; people come and go, and something is
killed, stopped or frozen all the time. A trial is one person who lost their connection and went on
where they were, on whatever replica. What is done and when is drawn from a seed, which is printed;
how the machine interleaves it is not, so the same seed is the same course and not the same second.

    pytest tests/chat/test_chaos.py --trials 1000 --seed 7
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from chaos import Person, Shown, Verdict, judge, rooms_of
from conftest import Process, signals_of, until
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka_broker import KafkaCluster

PEOPLE_PER_ROOM = 6
ROOMS = ("lobby", "kafka", "garden")
REPLICAS = 3
PARTITIONS = 6

Start = Callable[..., Process]


def shown(offset: int) -> Shown:
    return Shown(f"e:0:{offset}", "ada", f"c-{offset}", f"text {offset}")


@pytest.mark.parametrize(
    ("seen", "acks", "verdict"),
    [
        ([0, 1, 2], {"c-1": "e:0:1"}, (0, 0, 0)),
        ([0, 2], {}, (1, 0, 0)),
        ([0, 1, 1, 2], {}, (0, 1, 0)),
        ([0, 1, 2, 3], {}, (0, 1, 0)),
        ([1, 0, 2], {}, (0, 0, 1)),
        ([0, 1, 2], {"c-9": "e:0:9"}, (1, 0, 0)),
        ([0, 1, 2], {"c-1": "e:0:2"}, (0, 0, 1)),
    ],
)
def test_the_judge_finds_what_is_wrong(
    seen: list[int], acks: dict[str, str], verdict: tuple[int, int, int]
) -> None:
    ada = Person("ada", "lobby", list, random.Random(), acks=acks, seen=[shown(n) for n in seen])
    found = judge([shown(n) for n in range(3)], [ada])
    assert (len(found.lost), len(found.duplicated), len(found.misordered)) == verdict


class Site:
    """The replicas and the brokers, and what can happen to them."""

    def __init__(self, cluster: KafkaCluster, topic: str, start: Start, rng: random.Random) -> None:
        self.topic = topic
        self.done: Counter[str] = Counter()
        self._cluster = cluster
        self._start = start
        self._random = rng
        self._replicas: list[Process] = []
        self.faults: dict[str, Callable[[], Awaitable[None]]] = {
            "a replica is killed": self._kill_replica,
            "a replica is terminated": self._terminate_replica,
            "a replica is frozen": self._freeze_replica,
            "a leader is killed": self._kill_leader,
            "a broker is restarted": self._restart_broker,
            "a broker is frozen": self._freeze_broker,
        }

    @property
    def bootstrap_servers(self) -> str:
        return self._cluster.bootstrap_servers

    def ports(self) -> list[int]:
        return [replica.port for replica in self._replicas]

    async def add_replica(self) -> None:
        environment = {
            "KAFKA_ENABLED": "true",
            "KAFKA_BOOTSTRAP_SERVERS": self._cluster.bootstrap_servers,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_SIGNAL_TOPIC": signals_of(self.topic),
            "CHAT_DRAIN_SECONDS": "1",
        }
        self._replicas.append(await asyncio.to_thread(self._start, environment))

    async def cause(self, fault: str) -> None:
        await self.faults[fault]()
        self.done[fault] += 1

    async def _kill_replica(self) -> None:
        self._take_one().popen.kill()
        await self.add_replica()

    async def _terminate_replica(self) -> None:
        replica = self._take_one()
        replica.popen.terminate()
        await self.add_replica()
        assert await asyncio.to_thread(replica.popen.wait, 20) == 0

    async def _freeze_replica(self) -> None:
        replica = self._random.choice(self._replicas)
        replica.popen.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._random.uniform(0.2, 4))
        replica.popen.send_signal(signal.SIGCONT)

    def _take_one(self) -> Process:
        return self._replicas.pop(self._random.randrange(len(self._replicas)))

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
                    if all(len(one["isr_nodes"]) == 3 for one in described["partitions"]):
                        return
                await asyncio.sleep(0.2)

    def _describe(self) -> list[dict[str, object]]:
        with contextlib.closing(
            KafkaAdminClient(bootstrap_servers=self._cluster.bootstrap_servers)
        ) as admin:
            return admin.describe_topics([self.topic])


@pytest.fixture
async def site(kafka_cluster: KafkaCluster, process: Start, seed: int) -> Site:
    topic = f"chaos-{uuid.uuid4().hex[:12]}"
    with contextlib.closing(
        KafkaAdminClient(bootstrap_servers=kafka_cluster.bootstrap_servers)
    ) as admin:
        settings = {"message.timestamp.type": "LogAppendTime"}
        made = {"num_partitions": PARTITIONS, "replication_factor": 3, "configs": settings}
        admin.create_topics({topic: made, signals_of(topic): made})
        admin.wait_for_topics([topic, signals_of(topic)])
    made_here = Site(kafka_cluster, topic, process, random.Random(seed))
    await asyncio.gather(*(made_here.add_replica() for _ in range(REPLICAS)))
    return made_here


@pytest.mark.timeout(1800)
async def test_everything_may_be_killed_and_nothing_is_lost(
    site: Site, trials: int, seed: int, record_property: Callable[[str, object], None]
) -> None:
    rng = random.Random(seed)
    people = [
        Person(f"{room}-{number}", room, site.ports, random.Random(rng.random()))
        for room in ROOMS
        for number in range(PEOPLE_PER_ROOM)
    ]
    living = [asyncio.create_task(person.live()) for person in people]
    try:
        await until(lambda: all(person.position for person in people))
        for person in people:
            person.talks = person.leaves = True
        began = time.monotonic()
        while (resumes := sum(person.resumes for person in people)) < trials or (
            len(site.done) < len(site.faults)
        ):
            # Each once, in any order, and then whatever comes.
            left = [fault for fault in site.faults if fault not in site.done]
            await site.cause(rng.choice(left or list(site.faults)))
            await asyncio.sleep(rng.uniform(0.2, 1))
        took = time.monotonic() - began
        for person in people:
            person.talks = person.leaves = False
        await until(lambda: not any(person.pending for person in people), 60)
        epoch = people[0].seen[0].id.split(":")[0]
        log = await asyncio.to_thread(rooms_of, site.bootstrap_servers, site.topic, epoch)
        with contextlib.suppress(AssertionError):
            # What is missing after this is not late but lost, and the judge says what.
            await until(
                lambda: all(set(log[person.room]) <= set(person.seen) for person in people), 20
            )
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)

    verdict = Verdict()
    for room in ROOMS:
        found = judge(log[room], [person for person in people if person.room == room])
        verdict.lost += found.lost
        verdict.duplicated += found.duplicated
        verdict.misordered += found.misordered
    figures = {
        "seed": seed,
        "trials": resumes,
        "seconds": round(took),
        "messages": sum(len(messages) for messages in log.values()),
        "acknowledged": sum(len(person.acks) for person in people),
        "seen": sum(len(person.seen) for person in people),
        "lost": len(verdict.lost),
        "duplicated": len(verdict.duplicated),
        "misordered": len(verdict.misordered),
        "reloads": sum(person.reloads for person in people),
        **site.done,
    }
    record_property("chaos", figures)
    print("\n" + ", ".join(f"{name}: {figure}" for name, figure in figures.items()))
    assert verdict, verdict
    assert figures["reloads"] == 0, "nobody was away for longer than the window"
