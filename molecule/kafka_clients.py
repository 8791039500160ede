"""Kafka and ZooKeeper as their clients see them, from outside the hosts."""

import re
import socket

from hosts import address, group
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

BROKERS = group("kafka")


def bootstrap(*names: str) -> list[str]:
    return [f"{address(name)}:9092" for name in names or BROKERS]


def zookeeper_mode(name: str) -> str:
    """What a ZooKeeper member says it is: `leader`, `follower` or nothing."""
    with socket.create_connection((address(name), 2181), timeout=5) as connection:
        connection.sendall(b"srvr")
        answer = connection.makefile().read()
    mode = re.search(r"^Mode: (\w+)$", answer, re.MULTILINE)
    return mode[1] if mode else ""


def produce(topic: str, via: str, values: list[bytes]) -> None:
    """Send in order; return when all in-sync copies have them."""
    producer = KafkaProducer(bootstrap_servers=bootstrap(via), acks="all")
    try:
        for sent in [producer.send(topic, value=value, partition=0) for value in values]:
            sent.get(timeout=30)
    finally:
        producer.close()


def consume(topic: str, via: str, count: int) -> list[bytes]:
    """The first `count` values, or as many as come within twenty seconds."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap(via), consumer_timeout_ms=20_000)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        return [record.value for _, record in zip(range(count), consumer, strict=False)]
    finally:
        consumer.close()


def copies_in_sync(topic: str) -> list[int]:
    """How many brokers hold all of each partition."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap())
    try:
        (described,) = admin.describe_topics([topic])
        return [len(partition["isr_nodes"]) for partition in described["partitions"]]
    finally:
        admin.close()
