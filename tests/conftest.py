"""What tests of several folders share: a real Kafka broker, started once."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from _pytest.nodeid import coerce_node_id
from kafka_broker import KafkaBroker, KafkaCluster, unpack
from secured_broker import SecuredBroker

# The environment's commands, also if pytest was started by its path.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def kafka_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Kafka archive, unpacked: the folder with bin/, config/ and libs/."""
    try:
        return unpack(tmp_path_factory.mktemp("kafka"))
    except FileNotFoundError as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture(scope="session")
def kafka_broker(
    kafka_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaBroker]:
    """A running broker. Whoever stops or pauses it, starts or resumes it again."""
    broker = KafkaBroker(kafka_home, tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def secured_broker(
    kafka_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecuredBroker]:
    """A running broker with TLS, passwords and ACLs, and without users."""
    secured = SecuredBroker(kafka_home, tmp_path_factory.mktemp("secured"))
    try:
        secured.broker.start()
        yield secured
    finally:
        secured.close()


@pytest.fixture(scope="session")
def any_kafka_cluster(
    kafka_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """Three brokers, in whatever state the last test left them."""
    cluster = KafkaCluster(kafka_home, tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def kafka_cluster(any_kafka_cluster: KafkaCluster) -> KafkaCluster:
    """Three running brokers that know of each other. Whoever pauses one resumes it."""
    any_kafka_cluster.start()
    return any_kafka_cluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--trials", type=int, default=50, help="trials of the chaos test (50)")
    parser.addoption("--seed", type=int, help="what the chaos test draws its course from")


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> int:
    wanted: int = request.config.getoption("trials")
    return wanted


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    given: int | None = request.config.getoption("seed")
    drawn = random.randrange(1_000_000) if given is None else given
    print(f"--seed {drawn}")
    return drawn


def clusters_of(item: pytest.Item) -> set[str]:
    """The fixtures with brokers of their own, which not all workers need."""
    names = {"any_kafka_cluster", "three_brokers", "secured_broker"}
    return names.intersection(getattr(item, "fixturenames", ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name the tests that share a worker under `--dist loadgroup`: those of a file, which share
    fixtures, and those that share a cluster. What takes longest runs first, so that no worker is
    idle at the end: tests with a cluster, one cluster after the other, and the files of roles.
    """

    def place(item: pytest.Item) -> tuple[str, bool]:
        return min(clusters_of(item), default="~"), not item.nodeid.startswith("tests/roles/")

    for item in items:
        name = min(clusters_of(item), default=item.nodeid.split("::")[0])
        # A mark would be in vain: pytest-xdist 3.8 writes its name where pytest 9.2 does not look.
        if hasattr(config, "workerinput"):
            item._id = coerce_node_id(f"{item.nodeid}@{name}")
    items.sort(key=place)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End brokers after the last of their tests, because idle ones take processor time."""
    for name in clusters_of(item) - (clusters_of(nextitem) if nextitem else set()):
        if used := getattr(item, "funcargs", {}).get(name):
            used.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test that used brokers shows the end of their logs."""
    report = yield
    if report.failed:
        for used in getattr(item, "funcargs", {}).values():
            brokers = used.brokers if isinstance(used, KafkaCluster) else [used]
            for broker in (one for one in brokers if isinstance(one, KafkaBroker)):
                title = f"end of the log of Kafka broker {broker.bootstrap_servers}"
                report.sections.append((title, broker.log[-5000:]))
    return report
