"""Which broker a client of Kafka asks, if one of them is dead."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
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


def test_a_client_asks_a_busy_broker_rather_than_one_that_does_not_take_its_connection(
    connect: Callable[[], Connections],
) -> None:
    client = connect()
    client._conns = {0: connection(connected=False), 1: connection(2), 2: connection(1)}
    assert {client.least_loaded_node() for _ in range(20)} == {2}
    del client._conns[0]
    assert {client.least_loaded_node() for _ in range(20)} == {2}


def test_a_client_without_a_connection_asks_a_broker_that_failed_no_client(
    connect: Callable[[], Connections], failures: Failures
) -> None:
    for broker in BROKERS[:2]:
        lost = connection()
        failures.watch(broker, lost)
        lost.close_future.failure(KafkaConnectionError())
    client = connect()
    assert {client.least_loaded_node() for _ in range(20)} == {2}
    assert [broker.port for broker in client.cluster.bootstrap_brokers()] == [9002]


def test_if_all_failed_a_client_asks_the_one_that_failed_longest_ago(
    connect: Callable[[], Connections], failures: Failures
) -> None:
    for broker in (BROKERS[1], BROKERS[2], DEAD):
        lost = connection()
        failures.watch(broker, lost)
        lost.close_future.failure(KafkaConnectionError())
    assert {connect().least_loaded_node() for _ in range(20)} == {1}


def test_a_broker_that_answers_again_is_asked_like_the_others(
    connect: Callable[[], Connections], failures: Failures
) -> None:
    lost, back = connection(), connection()
    failures.watch(DEAD, lost)
    lost.close_future.failure(KafkaConnectionError())
    assert 0 not in {connect().least_loaded_node() for _ in range(50)}
    failures.watch(DEAD, back)
    back.init_future.success(None)
    assert 0 in {connect().least_loaded_node() for _ in range(50)}
