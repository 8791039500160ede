"""A real Kafka broker for the workloads that need it. Each run has its own topics."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kafka import KafkaAdminClient

from tests.kafka_broker import KafkaBroker, unpack

PARTITIONS = 12


class Broker:
    """A running broker."""

    def __init__(self, kafka: KafkaBroker, admin: KafkaAdminClient) -> None:
        self._kafka = kafka
        self._admin = admin
        self._numbers = itertools.count()

    @property
    def pid(self) -> int:
        return self._kafka.pid

    def new_topics(self) -> dict[str, str]:
        """Create topics, and return the environment variables that name them."""
        name = f"bench-{next(self._numbers)}"
        topic = {
            "num_partitions": PARTITIONS,
            "replication_factor": 1,
            "configs": {"message.timestamp.type": "LogAppendTime"},
        }
        names = [name, f"{name}-signals"]
        self._admin.create_topics(dict.fromkeys(names, topic))
        self._admin.wait_for_topics(names)
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self._kafka.bootstrap_servers,
            "KAFKA_TOPIC": names[0],
            "KAFKA_SIGNAL_TOPIC": names[1],
        }


@contextlib.contextmanager
def broker() -> Iterator[Broker]:
    """Run ZooKeeper and one broker. Raises `FileNotFoundError` if `sandbox/build kafka` has not
    been run.
    """
    with tempfile.TemporaryDirectory() as folder:
        kafka = KafkaBroker(unpack(Path(folder)), Path(folder))
        try:
            kafka.start()
            with contextlib.closing(
                KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
            ) as admin:
                yield Broker(kafka, admin)
        finally:
            kafka.close()
