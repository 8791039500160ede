"""Which broker a client of Kafka asks if one of them is dead, and which leaders it believes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaConnectionError
from kafka.future import Future
from kafka.net.selector import NetworkSelector

from chat.relay.kafka.brokers import Connections, Failures

BROKERS = [SimpleNamespace(node_id=n, host="127.0.0.1", port=9000 + n, rack=None) for n in range(3)]
DEAD = BROKERS[0]


def connection(open_requests: int = 0, *, connected: bool = True) -> Any:
    return SimpleNamespace(
        connected=connected,
        paused=False,
        in_flight_requests=[None] * open_requests,
        init_future=Future(),
        close_future=Future(),
    )


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
def connect(failures: Failures, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Connections]:
    """A client that knows all brokers and is connected to none."""

    def connect() -> Connections:
        servers = [f"{broker.host}:{broker.port}" for broker in BROKERS]
        client = Connections(NetworkSelector(), failures, bootstrap_servers=servers)
        monkeypatch.setattr(client.cluster, "brokers", lambda: BROKERS)
        return client

    return connect


def lose(failures: Failures, broker: Any) -> None:
    lost = connection()
    failures.watch(broker, lost)
    lost.close_future.failure(KafkaConnectionError())


def asked(client: Connections) -> set[int]:
    """The brokers that it may ask next."""
    return {client.least_loaded_node() for _ in range(100)}


def test_a_client_asks_busy_brokers_rather_than_an_idle_one_that_failed(
    connect: Callable[[], Connections], failures: Failures
) -> None:
    client = connect()
    client._conns = {0: connection(connected=False), 1: connection(2), 2: connection(1)}
    lose(failures, DEAD)
    assert asked(client) == {1, 2}
    del client._conns[0]
    assert asked(client) == {1, 2}


def test_a_client_does_not_ask_the_same_broker_alone_because_it_is_connected(
    connect: Callable[[], Connections],
) -> None:
    """That one may have lost ZooKeeper, and would never tell of other leaders."""
    client = connect()
    client._conns = {0: connection(1)}
    assert asked(client) == {0, 1, 2}


def test_a_new_client_begins_with_a_broker_that_failed_no_other_client(
    connect: Callable[[], Connections], failures: Failures
) -> None:
    for broker in BROKERS[:2]:
        lose(failures, broker)
    client = connect()
    assert asked(client) == {2}
    assert [broker.port for broker in client.cluster.bootstrap_brokers()] == [9002]


def test_if_all_failed_a_client_asks_the_one_that_failed_longest_ago(
    connect: Callable[[], Connections], failures: Failures
) -> None:
    for broker in (BROKERS[1], BROKERS[2], DEAD):
        lose(failures, broker)
    assert asked(connect()) == {1}


def test_a_broker_that_takes_connections_again_is_asked_like_the_others(
    connect: Callable[[], Connections], failures: Failures
) -> None:
    lose(failures, DEAD)
    assert asked(connect()) == {1, 2}
    back = connection()
    failures.watch(DEAD, back)
    back.init_future.success(None)
    assert asked(connect()) == {0, 1, 2}


def answer(leader: int, epoch: int, topic_id: uuid.UUID) -> Any:
    """What a broker says of a topic with one partition."""
    partition = SimpleNamespace(partition_index=0, leader_id=leader, leader_epoch=epoch)
    topic = SimpleNamespace(
        error_code=0, name="chat", topic_id=topic_id, is_internal=False, partitions=[partition]
    )
    return SimpleNamespace(
        API_VERSION=12,
        brokers=[(broker.node_id, broker.host, broker.port, broker.rack) for broker in BROKERS],
        controller_id=0,
        cluster_id="cluster",
        topics=[topic],
    )


def test_an_old_leader_that_knows_of_no_election_is_not_believed(
    connect: Callable[[], Connections],
) -> None:
    cluster = connect().cluster
    place, topic_id = TopicPartition("chat", 0), uuid.uuid4()
    for leader, epoch, believed in ((0, 7, 0), (1, 8, 1), (0, 7, 1), (2, 9, 2), (-1, 10, -1)):
        cluster.update_metadata(answer(leader, epoch, topic_id))
        assert cluster.leader_for_partition(place) == believed
    # Another topic of the same name counts its elections anew.
    cluster.update_metadata(answer(0, 1, uuid.uuid4()))
    assert cluster.leader_for_partition(place) == 0
