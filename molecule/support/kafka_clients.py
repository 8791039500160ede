"""Clients of Kafka and ZooKeeper, outside the hosts."""

import re
import socket
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosts import STATE, address, eventually, group, variable
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourceType,
)

BROKERS = group("kafka")
# The authority and certificates of a cluster that is installed with TLS.
CERTIFICATES = STATE / "kafka-tls"
# Those of the site's own authority, while the cluster has them.
GIVEN = STATE / "kafka-tls-given"
_NAMES = {variable(name, "kafka_broker_id"): name for name in BROKERS}


def bootstrap(*names: str, port: int = 9092) -> list[str]:
    return [f"{address(name)}:{port}" for name in names or BROKERS]


def certificates() -> Path:
    """The folder with the authority, and with the playbooks' certificate."""
    return GIVEN if GIVEN.exists() else CERTIFICATES


def connection(*names: str) -> dict[str, Any]:
    """Options for a client with all rights, like the playbooks."""
    servers: dict[str, Any] = {"bootstrap_servers": bootstrap(*names)}
    if not certificates().exists():
        return servers
    return servers | {
        "security_protocol": "SSL",
        "ssl_cafile": str(certificates() / "ca.crt"),
        "ssl_certfile": str(certificates() / "playbooks.pem"),
        "ssl_keyfile": str(certificates() / "playbooks.pem"),
    }


def tls_context() -> ssl.SSLContext:
    """For a connection with the playbooks' certificate."""
    context = ssl.create_default_context(cafile=certificates() / "ca.crt")
    context.load_cert_chain(certificates() / "playbooks.pem")
    return context


def kept_password(user: str) -> str:
    """The password that the first run generated for a user."""
    return (CERTIFICATES / "passwords" / user).read_text().strip()


def by_password(user: str, password: str) -> dict[str, Any]:
    """Options for a client that logs in as a user."""
    return {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(CERTIFICATES / "ca.crt"),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": password,
    }


def application() -> tuple[list[str], dict[str, Any]]:
    """Addresses and options for a client like the chat, which has a password if there is TLS."""
    if not certificates().exists():
        return bootstrap(), {}
    return bootstrap(port=9093), by_password("chat", kept_password("chat"))


def let_applications_use(prefix: str) -> None:
    """Give clients like the chat their rights on topics whose names begin so."""
    topics = ResourcePattern(ResourceType.TOPIC, prefix, ACLResourcePatternType.PREFIXED)
    with KafkaAdminClient(**connection()) as admin:
        made = admin.create_acls(
            [
                ACL("User:chat", "*", operation, ACLPermissionType.ALLOW, topics)
                for operation in (ACLOperation.READ, ACLOperation.WRITE)
            ]
        )
    assert not made["failed"], made


@contextmanager
def new_topic(partitions: int = 1, replicas: int = -1) -> Iterator[str]:
    """Create a topic with the cluster's defaults; delete it at the end. Yields its name."""
    name = f"test-{uuid.uuid4()}"
    with KafkaAdminClient(**connection()) as admin:
        admin.create_topics({name: {"num_partitions": partitions, "replication_factor": replicas}})
        admin.wait_for_topics([name])
    yield name
    # A new client, because the brokers may have failed since the first one connected.
    with KafkaAdminClient(**connection()) as admin:
        admin.delete_topics([name])


def leader(topic: str, *via: str) -> str:
    """The host that leads a topic's first partition; '' while it has no leader."""
    with KafkaAdminClient(**connection(*via)) as admin:
        (described,) = admin.describe_topics([topic])
    leaders = {each["partition_index"]: each["leader_id"] for each in described["partitions"]}
    return _NAMES.get(leaders[0], "")


def controller(*via: str) -> str:
    """The controller's host according to these brokers (default: all); '' if they disagree."""
    named = set()
    for name in via or BROKERS:
        with KafkaAdminClient(**connection(name)) as admin:
            named.add(_NAMES.get(admin.describe_cluster()["controller_id"], ""))
    return named.pop() if len(named) == 1 else ""


def controller_last() -> list[str]:
    """The brokers in the order of a rolling restart: that of the inventory, the controller last."""
    last = eventually(controller, within=30, what="all brokers agree on the controller")
    return [*(name for name in BROKERS if name != last), last]


def whole() -> bool:
    """Whether all brokers are registered and every replica is in sync.

    The queried broker may have been cut off and have old metadata. So this also asks the controller
    to validate a topic with a replica on every broker, which raises KafkaError if one is missing.
    """
    with KafkaAdminClient(**connection()) as admin:
        everywhere = {"num_partitions": 1, "replication_factor": len(BROKERS)}
        admin.create_topics({"everywhere": everywhere}, validate_only=True)
        brokers = {broker["broker_id"] for broker in admin.describe_cluster()["brokers"]}
        partitions = [each for topic in admin.describe_topics() for each in topic["partitions"]]
    return brokers == _NAMES.keys() and all(
        set(each["isr_nodes"]) == set(each["replica_nodes"]) for each in partitions
    )


def settings_of(name: str) -> dict[str, str]:
    """The settings that a broker reports, including defaults, by Kafka's names."""
    asked = ConfigResource(ConfigResourceType.BROKER, str(variable(name, "kafka_broker_id")))
    with KafkaAdminClient(**connection(name)) as admin:
        (settings,) = admin.describe_configs([asked], config_filter="all")["broker"].values()
    return {setting: str(told["value"]) for setting, told in settings.items()}


def zookeeper_mode(name: str) -> str:
    """The mode that a ZooKeeper member reports, such as `leader`; '' if it does not serve."""
    mode = re.search(r"^Mode: (\w+)$", four_letters(name, "srvr"), re.MULTILINE)
    return mode[1] if mode else ""


def four_letters(name: str, word: str) -> str:
    """A ZooKeeper member's answer to a four-letter command."""
    plain = socket.create_connection((address(name), 2181), timeout=5)
    if certificates().exists():
        plain = tls_context().wrap_socket(plain, server_hostname=address(name))
    with plain as connected:
        connected.sendall(word.encode())
        return connected.makefile().read()


def produce(topic: str, via: str, values: list[bytes]) -> None:
    """Send in order; return when all in-sync replicas have the messages."""
    with KafkaProducer(**connection(via), acks="all") as producer:
        for sent in [producer.send(topic, value=value, partition=0) for value in values]:
            sent.get(timeout=30)


def consume(topic: str, via: str, count: int) -> list[bytes]:
    """The first `count` values; fewer if none arrives for twenty seconds."""
    with KafkaConsumer(**connection(via), consumer_timeout_ms=20_000) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        return [record.value for _, record in zip(range(count), consumer, strict=False)]


def copies_in_sync(topic: str) -> list[int]:
    """The number of in-sync replicas of each partition."""
    with KafkaAdminClient(**connection()) as admin:
        (described,) = admin.describe_topics([topic])
    return [len(partition["isr_nodes"]) for partition in described["partitions"]]
