"""Effective values of Kafka settings: from the topic, the broker or the default."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

with contextlib.suppress(ImportError):  # `kafka_admin.connected` says so.
    from kafka.admin import ConfigResource, ConfigResourceType
    from kafka.errors import RetriableError

if TYPE_CHECKING:
    from kafka.admin import KafkaAdminClient


def min_insync_replicas(admin: KafkaAdminClient, topics: list[str]) -> dict[str, int]:
    """The number of replicas that must store a record sent with acks=all, for each topic."""
    found = _in_effect(admin, "TOPIC", topics, "min.insync.replicas")
    return {topic: int(value) for topic, value in found.items()}


def protocol_version(admin: KafkaAdminClient, broker: int) -> str:
    """The inter-broker protocol version reported by the broker itself. Raises KafkaError if it does
    not answer.
    """
    [version] = _in_effect(admin, "BROKER", [str(broker)], "inter.broker.protocol.version").values()
    return version.partition("-")[0]


def _in_effect(
    admin: KafkaAdminClient, kind: str, names: list[str], setting: str
) -> dict[str, str]:
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType[kind], name, [setting]) for name in names]
    found = admin.describe_configs(resources, config_filter="all")[kind.lower()]
    for name in names:
        # kafka-python 3.0.12 drops the broker's error. Usually the broker has not heard of a new
        # topic yet.
        if setting not in found[name]:
            raise RetriableError(f"{setting} of {kind.lower()} {name} is not told")
    return {name: str(found[name][setting]["value"]) for name in names}
