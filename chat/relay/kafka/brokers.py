"""Which broker a client asks, and which answer it believes.

kafka-python (3.0.12) asks the broker with the fewest open requests. A consumer has an open fetch at
each broker that lives, so it asks a dead one for the new leaders, each time until the attempt to
connect fails. And it believes the last answer: a broker that has lost ZooKeeper names itself as
leader for as long as it runs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from kafka import TopicPartition
from kafka.cluster import ClusterMetadata
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector


class Failures:
    """Which brokers failed, and were not connected to since. All clients of a relay share it, so a
    new one does not begin with a broker that another one waited for.
    """

    def __init__(self) -> None:
        # Host and port -> when it failed last, in seconds of the monotonic clock.
        self._failed: dict[tuple[str, int], float] = {}

    def watch(self, broker: Any, connection: Any) -> None:
        address = _address(broker)
        connection.init_future.add_callback(lambda _: self._failed.pop(address, None))
        connection.close_future.add_errback(
            lambda _: self._failed.update({address: time.monotonic()})
        )

    def soundest(self, brokers: Sequence[Any]) -> list[Any]:
        """Those that have not failed; if there are none, the one that failed longest ago."""
        sound = [broker for broker in brokers if _address(broker) not in self._failed]
        return (
            sound or sorted(brokers, key=lambda broker: self._failed.get(_address(broker), 0.0))[:1]
        )


def _address(broker: Any) -> tuple[str, int]:
    return broker.host, broker.port


class Connections(KafkaConnectionManager):  # type: ignore[misc]  # It carries no types.
    """The connections of one client to all brokers, and what it knows of these."""

    def __init__(self, net: NetworkSelector, failures: Failures, **config: Any) -> None:
        self._failures = failures
        super().__init__(net, **config)
        # A client begins with one of these, chosen at random.
        every = self.cluster.bootstrap_brokers
        self.cluster.bootstrap_brokers = lambda: failures.soundest(every())
        update = self.cluster.update_metadata

        def update_if_newer(metadata: Any) -> None:
            keep_newer_leaders(self.cluster, metadata)
            update(metadata)

        self.cluster.update_metadata = update_if_newer

    def get_connection(self, node_id: Any, *arguments: Any, **options: Any) -> Any:
        known = self._conns.get(node_id)
        connection = super().get_connection(node_id, *arguments, **options)
        if connection is not known:
            self._failures.watch(self.cluster.broker_metadata(node_id), connection)
        return connection

    def least_loaded_node(self) -> Any:
        """The id of any broker that has not failed. None if all must be left alone for a moment.

        Not always the same one: it may have lost ZooKeeper.
        """
        brokers = self._failures.soundest(
            [
                broker
                for broker in self.cluster.brokers()
                if not self.connection_delay(broker.node_id) and not self._paused(broker.node_id)
            ]
        )
        return random.choice(brokers).node_id if brokers else None

    def _paused(self, node_id: Any) -> bool:
        connection = self._conns.get(node_id)
        return connection is not None and bool(connection.paused)


def keep_newer_leaders(cluster: ClusterMetadata, metadata: Any) -> None:
    """Replace leaders in the answer of a broker by those that are known from a later election."""
    for topic in metadata.topics:
        if topic.topic_id is None or cluster.topic_id(topic.name) != topic.topic_id:
            continue
        for found in topic.partitions:
            place = TopicPartition(topic.name, found.partition_index)
            epoch = cluster.leader_epoch_for_partition(place)
            if epoch is not None and found.leader_epoch < epoch:
                found.leader_id = cluster.leader_for_partition(place)
                found.leader_epoch = epoch


class Client(KafkaNetClient):  # type: ignore[misc]
    """What `KafkaConsumer`, `KafkaProducer` and `KafkaAdminClient` take as `kafka_client`."""

    def __init__(self, failures: Failures, **config: Any) -> None:
        net = NetworkSelector(**config)
        super().__init__(net=net, manager=Connections(net, failures, **config))
