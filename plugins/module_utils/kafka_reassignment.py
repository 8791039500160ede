"""Moving replicas between brokers: begin, watch, and leave no throttle behind.

Kafka does the moving; whoever began it need not stay. A throttle however is a setting of brokers
and topics that nobody else removes, and that would hold back a broker which catches up later.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ansible.module_utils.kafka_assignment import Assignment

with contextlib.suppress(ImportError):  # `kafka_admin.connected` says so.
    from kafka import TopicPartition
    from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType
    from kafka.errors import KafkaError

if TYPE_CHECKING:
    from kafka.admin import KafkaAdminClient

RATES = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"]
REPLICAS = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"]


def assignment(admin: KafkaAdminClient) -> Assignment:
    """What each broker holds; of a partition that is being moved, where it goes."""
    moving = admin.list_partition_reassignments()
    current = {
        (topic["name"], partition["partition_index"]): list(partition["replica_nodes"])
        for topic in admin.describe_topics()
        for partition in topic["partitions"]
    }
    for place, move in moving.items():
        current[place.topic, place.partition] = [
            broker for broker in move["replicas"] if broker not in move["removing_replicas"]
        ]
    return current


def begin(
    admin: KafkaAdminClient, before: Assignment, plan: Assignment, throttle: int | None
) -> None:
    """Let Kafka move what the plan says, at most `throttle` bytes/s to and from each broker.

    Raises KafkaError with the first partition that a broker refuses.
    """
    if throttle:
        _throttle(admin, before, plan, throttle)
    asked = {TopicPartition(*partition): replicas for partition, replicas in plan.items()}
    for place, error in admin.alter_partition_reassignments(asked).items():
        if error:
            raise error(f"{place.topic}-{place.partition} cannot go to {asked[place]}")


def finish(admin: KafkaAdminClient, seconds: float) -> int:
    """Wait so long for what is being moved; return how many partitions still are.

    When none is, preferred leaders lead again and no throttle is left.
    """
    deadline = time.monotonic() + seconds
    while moving := len(admin.list_partition_reassignments()):
        if time.monotonic() > deadline:
            return moving
        time.sleep(0.2)
    _unthrottle(admin)
    admin.elect_leaders(0, raise_errors=False)
    return 0


def _throttle(admin: KafkaAdminClient, before: Assignment, plan: Assignment, rate: int) -> None:
    from_, to = defaultdict(list), defaultdict(list)
    for (topic, number), replicas in plan.items():
        from_[topic] += [f"{number}:{broker}" for broker in before[topic, number]]
        to[topic] += [
            f"{number}:{broker}" for broker in replicas if broker not in before[topic, number]
        ]
    moved = {partition: {*before[partition], *replicas} for partition, replicas in plan.items()}
    brokers = sorted(set().union(*moved.values()))
    _set(admin, "BROKER", {str(broker): dict.fromkeys(RATES, str(rate)) for broker in brokers})
    _set(
        admin,
        "TOPIC",
        {
            topic: dict(zip(REPLICAS, (",".join(from_[topic]), ",".join(to[topic])), strict=True))
            for topic in from_
        },
    )


def _unthrottle(admin: KafkaAdminClient) -> None:
    brokers = [str(broker["broker_id"]) for broker in admin.describe_cluster()["brokers"]]
    _remove(admin, "BROKER", brokers, RATES)
    _remove(admin, "TOPIC", admin.list_topics(), REPLICAS)


def _remove(admin: KafkaAdminClient, kind: str, names: list[str], settings: list[str]) -> None:
    """Remove settings where they are set: what was never throttled is not touched."""
    if not names:
        return
    resources = [ConfigResource(ConfigResourceType[kind], name) for name in names]
    found = admin.describe_configs(resources)[kind.lower()]
    present = {
        name: {key: (AlterConfigOp.DELETE, None) for key in settings if key in found.get(name, {})}
        for name in names
    }
    _set(admin, kind, {name: changes for name, changes in present.items() if changes})


def _set(admin: KafkaAdminClient, kind: str, changes: dict[str, dict[str, Any]]) -> None:
    if not changes:
        return
    resources = [
        ConfigResource(ConfigResourceType[kind], name, settings)
        for name, settings in changes.items()
    ]
    answer = admin.alter_configs(resources, raise_on_unknown=False)[kind.lower()]
    for name, result in answer.items():
        if result != "OK":
            raise KafkaError(f"the throttle of {kind.lower()} {name} cannot be set: {result}")
