"""Replicas for tests, in this process or in their own, each test with its own log."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chat_client import ChatClient, Frame
from hypothesis import settings as hypothesis_settings
from kafka import KafkaAdminClient
from kafka_broker import ALONE, KafkaBroker
from provider import Provider

from chat import settings as chat_settings
from chat.__main__ import members_for, relay_for, revocations_for, sanctions_for
from chat.server import Server

ROOT = Path(__file__).parent.parent.parent

# Settings for tests: free ports, quick answers, and a short drain.
ENVIRONMENT = {
    "CHAT_ADDRESS": "127.0.0.1",
    "CHAT_PORT": "0",
    "CHAT_INTERNAL_PORT": "0",
    "CHAT_POSITION_SECONDS": "0.05",
    "CHAT_DRAIN_SECONDS": "2",
    "CHAT_RATE": "10000",
    "CHAT_BURST": "10000",
}

# Use the same examples in each run, and no time limits, because the machine may be busy.
hypothesis_settings.register_profile("chat", deadline=None, derandomize=True)
hypothesis_settings.load_profile("chat")

# Partitions of each topic that a test creates.
PARTITIONS = 3

Replica = Callable[..., Awaitable[Server]]


@pytest.fixture(autouse=True)
def nothing_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if anything was logged as an error: clients must not be able to cause one."""
    yield
    for phase in ("setup", "call"):
        for line in caplog.get_records(phase):
            ours = not line.name.startswith(("kafka", "asyncio.kafka"))
            assert line.levelno < logging.ERROR or not ours, line.getMessage()


@pytest.fixture
def kafka_admin(kafka_broker: KafkaBroker) -> Iterator[KafkaAdminClient]:
    with contextlib.closing(
        KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap_servers)
    ) as admin:
        yield admin


@pytest.fixture
def lone_broker(kafka_home: Path, tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker for one test, which may lose what it has written."""
    # With a shorter timeout, ZooKeeper would lose sessions on a busy machine; with a longer one, it
    # would notice a killed broker late.
    settings = ALONE | {"zookeeper.session.timeout.ms": "3000"}
    broker = KafkaBroker(kafka_home, tmp_path, settings=settings)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


def make_topic(admin: KafkaAdminClient, *names: str, replicas: int = 1, **configs: str) -> None:
    topic = {
        "num_partitions": PARTITIONS,
        "replication_factor": replicas,
        "configs": {"message.timestamp.type": "LogAppendTime"} | configs,
    }
    admin.create_topics(dict.fromkeys(names, topic))
    admin.wait_for_topics(list(names))


def signals_of(topic: str) -> str:
    """The name of the signal topic that belongs to a test's topic."""
    return f"{topic}-signals"


def revocations_of(topic: str) -> str:
    """The same for the revoked tokens."""
    return f"{topic}-revocations"


def sanctions_of(topic: str) -> str:
    """The same for the people whom moderators have muted or banned."""
    return f"{topic}-sanctions"


def members_of(topic: str) -> str:
    """The same for private rooms."""
    return f"{topic}-members"


def make_topics(admin: KafkaAdminClient) -> str:
    """Topics for replicas that share them. Returns the name of the messages' topic."""
    name = f"chat-{uuid.uuid4().hex[:12]}"
    make_topic(admin, name, signals_of(name), revocations_of(name))
    make_topic(admin, sanctions_of(name), **{"retention.ms": "-1"})
    make_topic(admin, members_of(name), **{"cleanup.policy": "compact"})
    return name


@pytest.fixture
def topic(kafka_admin: KafkaAdminClient) -> str:
    return make_topics(kafka_admin)


@pytest.fixture
def kafka(kafka_broker: KafkaBroker, topic: str) -> dict[str, str]:
    """The environment of replicas that share a topic created for this test."""
    return environment_of(kafka_broker, topic)


def environment_of(broker: KafkaBroker, topic: str) -> dict[str, str]:
    return {
        "KAFKA_ENABLED": "true",
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "KAFKA_SIGNAL_TOPIC": signals_of(topic),
        "KAFKA_REVOCATION_TOPIC": revocations_of(topic),
        "KAFKA_SANCTION_TOPIC": sanctions_of(topic),
        "KAFKA_MEMBER_TOPIC": members_of(topic),
    }


@pytest.fixture(params=["memory", "kafka"])
def log(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment for each relay: both must keep the same promises."""
    environment: dict[str, str] = (
        request.getfixturevalue("kafka") if request.param == "kafka" else {}
    )
    return environment


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    """Start replicas in this process. Each is ready when it is returned."""
    servers: list[Server] = []

    async def start(*environments: dict[str, str], ready: bool = True, **more: str) -> Server:
        environment = dict(ENVIRONMENT)
        for one in (*environments, more):
            environment |= one
        settings = chat_settings.load(environment)
        server = Server(
            settings,
            relay_for(settings),
            revocations_for(settings),
            sanctions_for(settings),
            members_for(settings),
        )
        servers.append(server)
        await server.start()
        if ready:
            await until(lambda: server.relay.up and not server.look_ready())
        return server

    yield start
    await asyncio.gather(*(server.drain() for server in servers if not server.draining))


@pytest.fixture
async def server(replica: Replica, environment: dict[str, str]) -> Server:
    """A replica with the environment of the tests' module."""
    return await replica(environment)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    one = Provider()
    yield one
    await one.close()


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until the condition holds; fail if it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.01)


async def joined(client: ChatClient, since: str | None = None) -> Frame:
    """Join the lobby, as soon as the replica has read the log."""
    frame = {"type": "join", "room": "lobby"} | ({"since": since} if since else {})
    async with asyncio.timeout(30):
        while True:
            await client.say(**frame)
            answer = await client.hear("joined", "error")
            if answer["type"] == "joined":
                return answer
            await asyncio.sleep(0.05)


@dataclass
class Process:
    """A replica in its own process, as in production."""

    popen: subprocess.Popen[str]
    port: int
    internal_port: int
    log: Path


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    with processes(tmp_path) as start:
        yield start


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[Callable[..., Process]]:
    """Start replicas as processes. Each is listening when it is returned. Their logs are in
    `folder`.
    """
    running: list[subprocess.Popen[str]] = []
    # Threads may start several at once, so each has its own log, from which its ports are read.
    numbers = itertools.count()

    def start(
        *environments: dict[str, str], descriptors: int | None = None, **more: str
    ) -> Process:
        environment = {"PATH": os.environ["PATH"], **ENVIRONMENT}
        for one in (*environments, more):
            environment |= one
        log = folder / f"replica-{next(numbers)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [
                    *(["prlimit", f"--nofile={descriptors}"] if descriptors else []),
                    sys.executable,
                    "-m",
                    "chat",
                ],
                cwd=ROOT,
                env=environment,
                stderr=output,
                text=True,
            )
        running.append(popen)
        deadline = time.monotonic() + 30
        while not (ports := re.search(r"page on port (\d+), .* on port (\d+)", log.read_text())):
            assert popen.poll() is None, f"it ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"it does not listen:\n{log.read_text()}"
            time.sleep(0.02)
        return Process(popen, int(ports[1]), int(ports[2]), log)

    try:
        yield start
    finally:
        for popen in running:
            popen.kill()
            popen.wait()
