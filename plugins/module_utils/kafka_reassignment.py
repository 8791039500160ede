"""Moves replicas between brokers: start, throttle, wait, and remove the throttle.

Kafka moves the replicas, even after the module has ended. But nobody else removes a throttle, which
is a setting of brokers and topics. It would later slow down a broker that catches up.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_assignment import (
    Assignment,
)

with contextlib.suppress(ImportError):  # `kafka_admin.connected` says so.
    from kafka import TopicPartition
    from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType
    from kafka.errors import KafkaError

if TYPE_CHECKING:
    from kafka.admin import KafkaAdminClient

RATES = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"]
REPLICAS = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"]
# In seconds. Kafka needs milliseconds, but a machine may pause.
FOLLOWED_WITHIN = 30
# Seconds between two reads.
AGREED_FOR = 0.5


def assignment(admin: KafkaAdminClient) -> Assignment:
    """The brokers of each partition. For a partition that is being moved, its target.

    A broker learns of the end of a move slightly later than the controller. In between, the
    controller no longer lists the move, but the broker still reports the old place. So this reads
    until two reads agree.
    """
    current = _read_assignment(admin)
    deadline = time.monotonic() + FOLLOWED_WITHIN
    while time.monotonic() < deadline:
        time.sleep(AGREED_FOR)
        last, current = current, _read_assignment(admin)
        if current == last:
            return current
    raise KafkaError(
        f"partitions have been moved, made or removed for {FOLLOWED_WITHIN} s: run this again when"
        " nobody else does that"
    )


def _read_assignment(admin: KafkaAdminClient) -> Assignment:
    moving = admin.list_partition_reassignments()
    current = {
        (topic["name"], partition["partition_index"]): list(partition["replica_nodes"])
        for topic in admin.describe_topics()
        for partition in topic["partitions"]
    }
    for place, move in moving.items():
        current[place.topic, place.partition] = _target(move)
    return current


def throttle(admin: KafkaAdminClient, before: Assignment, plan: Assignment, rate: int) -> None:
    """Limit replication of current moves and of the plan to `rate` bytes/s per broker and
    direction.

    0 means no limit. A rate below the producers' rate never lets replicas catch up. A new call with
    another rate fixes that, even while Kafka moves replicas.
    """
    if not rate:
        _unthrottle(admin)
        return
    held, target = dict(before), dict(plan)
    for place, move in admin.list_partition_reassignments().items():
        partition = place.topic, place.partition
        held[partition] = [id_ for id_ in move["replicas"] if id_ not in move["adding_replicas"]]
        target.setdefault(partition, _target(move))
    from_, to = defaultdict(list), defaultdict(list)
    for (topic, number), replicas in target.items():
        sources = held[topic, number]
        from_[topic] += [f"{number}:{broker}" for broker in sources]
        to[topic] += [f"{number}:{broker}" for broker in replicas if broker not in sources]
    involved = {broker for place, ids in target.items() for broker in held[place] + ids}
    # A dead broker accepts no settings, and needs none.
    brokers = sorted(involved & _alive(admin))
    _set(admin, "BROKER", {str(broker): dict.fromkeys(RATES, str(rate)) for broker in brokers})
    _set(
        admin,
        "TOPIC",
        {
            topic: dict(zip(REPLICAS, (",".join(from_[topic]), ",".join(to[topic])), strict=True))
            for topic in from_
        },
    )


def begin(admin: KafkaAdminClient, plan: Assignment) -> None:
    """Start the moves of the plan.

    Raises KafkaError for the first partition that a broker refuses.
    """
    asked = {TopicPartition(*partition): replicas for partition, replicas in plan.items()}
    for place, error in admin.alter_partition_reassignments(asked).items():
        if error:
            raise error(f"{place.topic}-{place.partition} cannot go to {asked[place]}")


def finish(admin: KafkaAdminClient, seconds: float) -> int:
    """Wait up to `seconds` for the moves to end. Return how many partitions are still being moved.

    If there are none, preferred leaders lead again and all throttles are removed.
    """
    deadline = time.monotonic() + seconds
    while moving := len(admin.list_partition_reassignments()):
        if time.monotonic() > deadline:
            return moving
        time.sleep(0.2)
    _unthrottle(admin)
    admin.elect_leaders(0, raise_errors=False)
    return 0


def _target(move: dict[str, list[int]]) -> list[int]:
    return [broker for broker in move["replicas"] if broker not in move["removing_replicas"]]


def _alive(admin: KafkaAdminClient) -> set[int]:
    return {broker["broker_id"] for broker in admin.describe_cluster()["brokers"]}


def _unthrottle(admin: KafkaAdminClient) -> None:
    _remove(admin, "BROKER", [str(broker) for broker in sorted(_alive(admin))], RATES)
    _remove(admin, "TOPIC", admin.list_topics(), REPLICAS)


def _remove(admin: KafkaAdminClient, kind: str, names: list[str], settings: list[str]) -> None:
    """Remove settings where they are set. Others are not touched."""
    if not names:
        return
    found = _told(admin, kind, names)
    present = {
        name: {key: (AlterConfigOp.DELETE, None) for key in settings if key in found[name]}
        for name in names
    }
    _set(admin, kind, {name: changes for name, changes in present.items() if changes})


def _set(admin: KafkaAdminClient, kind: str, changes: dict[str, dict[str, Any]]) -> None:
    """Change settings, and wait until they are in effect: brokers apply them slightly later."""
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
    deadline = time.monotonic() + FOLLOWED_WITHIN
    while behind := _behind(_told(admin, kind, list(changes)), changes):
        if time.monotonic() > deadline:
            raise KafkaError(
                f"the throttle of {kind.lower()} {', '.join(behind)} was set {FOLLOWED_WITHIN} s"
                " ago and does not hold: see whether ZooKeeper serves it, and run this again"
            )
        time.sleep(0.1)


def _told(admin: KafkaAdminClient, kind: str, names: list[str]) -> dict[str, dict[str, Any]]:
    """The dynamic settings that brokers and topics report for themselves, by name."""
    resources = [ConfigResource(ConfigResourceType[kind], name) for name in names]
    found = admin.describe_configs(resources)[kind.lower()]
    return {
        name: {key: setting["value"] for key, setting in found.get(name, {}).items()}
        for name in names
    }


def _behind(told: dict[str, dict[str, Any]], changes: dict[str, dict[str, Any]]) -> list[str]:
    """Names that still report other values than the last ones set."""
    removed = (AlterConfigOp.DELETE, None)
    return [
        name
        for name, settings in changes.items()
        if any(told[name].get(key, removed) != value for key, value in settings.items())
    ]
