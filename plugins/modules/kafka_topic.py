#!/usr/bin/python
"""Ansible module kafka_topic: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kafka_topic
short_description: Create or update Kafka topics
description:
  - >-
    Creates a missing topic. For an existing topic, adds partitions, and changes the number of
    replicas and settings.
  - Refuses changes that would silently lose data or order. Partitions cannot be removed.
  - >-
    In check mode the brokers validate the change, so that it is refused if they would refuse it.
options:
  name:
    description: Name of the topic. Either this or C(topics) is required.
    type: str
  partitions:
    description: Number of partitions. Raising it moves keys to other partitions.
    type: int
    default: 1
  replication_factor:
    description:
      - Number of replicas of each partition. Default for a new topic, the cluster's default; an
        existing topic is not changed. New replicas are copied without a rate limit; copying
        continues after C(timeout).
    type: int
  config:
    description:
      - Settings of the topic, by Kafka's own names. Other settings are not changed.
    type: dict
    default: {}
  topics:
    description:
      - >-
        Several topics, made in this order, in one connection. The first that is refused ends it.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the topic.
        type: str
        required: true
      partitions:
        description: As above.
        type: int
        default: 1
      replication_factor:
        description: As above.
        type: int
      config:
        description: As above.
        type: dict
        default: {}
extends_documentation_fragment: [baremetal_chat.platform.kafka]
attributes:
  check_mode:
    description: Validated by the brokers.
    support: full
  diff_mode:
    description: Partitions, replication factor and the topic's own settings.
    support: full
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Make the topic of the chat
  baremetal_chat.platform.kafka_topic:
    bootstrap_servers: [192.0.2.11:9092, 192.0.2.12:9092]
    name: chat
    partitions: 12
    replication_factor: 3
    config:
      min.insync.replicas: 2
      retention.ms: 604800000
  delegate_to: localhost

- name: Make several topics
  baremetal_chat.platform.kafka_topic:
    bootstrap_servers: [192.0.2.11:9092, 192.0.2.12:9092]
    topics:
      - {name: orders, partitions: 6}
      - {name: customers, config: {cleanup.policy: compact}}
  delegate_to: localhost
"""

RETURN = r"""
topic:
  description: The topic as it is now, or would be.
  returned: success, with C(name)
  type: dict
  contains:
    partitions:
      description: Number of partitions.
      type: int
    replication_factor:
      description: Replicas of each partition. Absent in check mode when the cluster chooses.
      type: int
    config:
      description: The topic's own settings.
      type: dict
  sample:
    partitions: 12
    replication_factor: 3
    config: {min.insync.replicas: "2"}
topics:
  description: Each topic like C(topic), by its name.
  returned: success, with C(topics)
  type: dict
"""

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_admin import (
    CONNECTION_OPTIONS,
    connected,
    read_until,
)
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_assignment import (
    Assignment,
    ImpossibleError,
    changes,
    resize,
)
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_reassignment import (
    assignment,
    begin,
    finish,
)
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_settings import (
    min_insync_replicas,
)

with contextlib.suppress(ImportError):  # `connected` says so.
    from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
    from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

Topic = dict[str, Any]


def as_kafka_writes(value: Any) -> str:
    """The string Kafka keeps for a setting: `true` for a YAML boolean, lists joined by commas."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(as_kafka_writes(item) for item in value)
    return str(value)


def describe(admin: KafkaAdminClient, name: str) -> Topic:
    """The topic as it is; empty when there is none."""
    [topic] = admin.describe_topics([name])
    error = for_code(topic["error_code"])
    if error is UnknownTopicOrPartitionError:
        return {}
    if topic["error_code"]:
        raise error(f"topic '{name}' cannot be described")
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    settings = admin.describe_configs([resource])["topic"][name]
    return {
        "partitions": len(topic["partitions"]),
        # A reassignment under way adds replicas for a while: the smallest set is the settled one.
        "replication_factor": min(len(p["replica_nodes"]) for p in topic["partitions"]),
        "config": {key: setting["value"] for key, setting in sorted(settings.items())},
    }


class TopicChange:
    """What has to happen to a topic, and the calls that do it."""

    def __init__(
        self, module: AnsibleModule, admin: KafkaAdminClient, declared: dict[str, Any]
    ) -> None:
        self._module = module
        self._admin = admin
        self._name: str = declared["name"]
        self._partitions: int = declared["partitions"]
        self._replication_factor: int | None = declared["replication_factor"]
        self._config = {key: as_kafka_writes(value) for key, value in declared["config"].items()}
        self.before = describe(admin, self._name)
        self.after = self._after()

    def _after(self) -> Topic:
        before = self.before
        after: Topic = {
            "partitions": self._partitions,
            "replication_factor": self._replication_factor or before.get("replication_factor"),
            "config": dict(sorted((before.get("config", {}) | self._config).items())),
        }
        if after["replication_factor"] is None:
            del after["replication_factor"]
        if before and before["partitions"] > self._partitions:
            self._refuse(
                f"has {before['partitions']} partitions and cannot shrink to {self._partitions}:"
                f" declare at least {before['partitions']}, or make another topic"
            )
        if before:
            in_effect = min_insync_replicas(self._admin, [self._name])[self._name]
            minimum = self._config.get("min.insync.replicas", str(in_effect))
            # What is no number, Kafka refuses in its own words.
            if minimum.isdecimal() and after["replication_factor"] < int(minimum):
                self._refuse(
                    f"has min.insync.replicas {minimum} and cannot do with"
                    f" {after['replication_factor']} replicas: declare more of them, or a lower"
                    " min.insync.replicas"
                )
        return after

    def apply(self) -> None:
        """Make it so; in check mode, only ask the brokers whether they would."""
        if not self.before:
            self._create()
            return
        if self.after["partitions"] > self.before["partitions"]:
            self._grow()
        if self.after["replication_factor"] != self.before["replication_factor"]:
            self._reassign()
        changed = {
            key: value
            for key, value in self._config.items()
            if self.before["config"].get(key) != value
        }
        if changed:
            self._configure(changed)

    def _create(self) -> None:
        topic = {
            "num_partitions": self._partitions,
            "replication_factor": self._replication_factor or -1,
            "configs": self._config,
        }
        answer = self._admin.create_topics(
            {self._name: topic}, validate_only=self._module.check_mode, raise_errors=False
        )
        if answer["topics"][0]["error_code"] == TopicAlreadyExistsError.errno:
            # The controller knows; the broker that was asked had not heard of it yet.
            self.before = self._known()
            self.after = self._after()
            self.apply()
            return
        self._check(answer["topics"])
        if not self._module.check_mode:
            self.after = self._known()  # with what the cluster chose

    def _known(self) -> Topic:
        """The topic, once the brokers that are asked know it: each hears of a new one by itself."""
        timeout = self._module.params["timeout"]
        self._admin.wait_for_topics([self._name], timeout * 1000)

        def described() -> Topic:
            with contextlib.suppress(UnknownTopicOrPartitionError):
                return describe(self._admin, self._name)
            return {}

        topic = read_until(described, bool, timeout)
        if not topic:
            self._refuse(
                f"was created, and not all brokers know it after {timeout} s: see whether ZooKeeper"
                " serves the brokers, and run this again"
            )
        return topic

    def _grow(self) -> None:
        answer = self._admin.create_partitions(
            {self._name: self._partitions},
            validate_only=self._module.check_mode,
            raise_errors=False,
        )
        self._check(answer.to_dict()["results"])

    def _reassign(self) -> None:
        brokers = {
            broker["broker_id"]: broker["rack"]
            for broker in self._admin.describe_cluster()["brokers"]
        }
        held = self._held()
        try:
            after = resize(held, {self._name: self.after["replication_factor"]}, brokers)
        except ImpossibleError as error:
            self._refuse(f"cannot be made so: {error}")
        if not self._module.check_mode:
            begin(self._admin, changes(held, after))
            finish(self._admin, self._module.params["timeout"])

    def _held(self) -> Assignment:
        """Who holds which partition, once there is word of all: of new ones, it takes a moment."""
        timeout = self._module.params["timeout"]

        def known() -> Assignment:
            return {
                partition: replicas
                for partition, replicas in assignment(self._admin).items()
                if partition[0] == self._name
            }

        def complete(held: Assignment) -> bool:
            return len(held) >= self.after["partitions"] or self._module.check_mode

        held = read_until(known, complete, timeout)
        if not complete(held):
            self._refuse(
                f"is to have {self.after['partitions']} partitions, and after {timeout} s there is"
                f" word of {len(held)}: see whether ZooKeeper serves the brokers, and run this"
                " again"
            )
        return held

    def _configure(self, settings: dict[str, str]) -> None:
        resource = ConfigResource(ConfigResourceType.TOPIC, self._name, settings)
        answer = self._admin.alter_configs(
            [resource], validate_only=self._module.check_mode, raise_on_unknown=False
        )
        result = answer["topic"][self._name]
        if result != "OK":
            self._refuse(f"cannot be changed: {result}")

    def _check(self, results: list[dict[str, Any]]) -> None:
        for result in results:
            if result["error_code"]:
                reason = result["error_message"] or for_code(result["error_code"]).__name__
                self._refuse(f"cannot be made so: {reason}")

    def _refuse(self, reason: str) -> None:
        self._module.fail_json(msg=f"Topic '{self._name}' {reason}")


TOPIC_OPTIONS: dict[str, Any] = {
    "name": {"type": "str"},
    "partitions": {"type": "int", "default": 1},
    "replication_factor": {"type": "int"},
    "config": {"type": "dict", "default": {}},
}


def main() -> None:
    """Run the module."""
    required = TOPIC_OPTIONS | {"name": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec=CONNECTION_OPTIONS
        | TOPIC_OPTIONS
        | {"topics": {"type": "list", "elements": "dict", "options": required}},
        mutually_exclusive=[("topics", name) for name in TOPIC_OPTIONS],
        required_one_of=[("topics", "name")],
        supports_check_mode=True,
    )
    before: dict[str, Topic] = {}
    after: dict[str, Topic] = {}
    several = module.params["topics"]
    with connected(module) as admin:
        for declared in [module.params] if several is None else several:
            change = TopicChange(module, admin, declared)
            if change.before != change.after:
                change.apply()
            # If a topic is declared twice, the first time made it.
            before.setdefault(declared["name"], change.before)
            after[declared["name"]] = change.after
    found = {"changed": before != after}
    if several is None:
        name = module.params["name"]
        module.exit_json(
            topic=after[name], diff={"before": before[name], "after": after[name]}, **found
        )
    module.exit_json(topics=after, diff={"before": before, "after": after}, **found)


if __name__ == "__main__":
    main()
