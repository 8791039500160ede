#!/usr/bin/python
"""Ansible module kafka_cluster_info: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kafka_cluster_info
short_description: Get the brokers of a Kafka cluster, and partitions at risk
description:
  - Reads the cluster's metadata. It changes nothing.
  - >-
    Check it before and after stopping a broker. A cluster is healthy if all its brokers are
    registered, and C(silent) and C(under_replicated) are empty.
  - >-
    A dead broker stays registered until its session with ZooKeeper ends, and its partitions look
    replicated until then. Therefore the module also queries each registered broker directly.
extends_documentation_fragment:
  - baremetal_chat.platform.kafka
  - baremetal_chat.platform.read_only
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Wait until no partition is under-replicated
  baremetal_chat.platform.kafka_cluster_info:
    bootstrap_servers: [192.0.2.11:9092, 192.0.2.12:9092]
  delegate_to: localhost
  register: cluster
  until: cluster is succeeded and cluster.under_replicated | length == 0
  retries: 30
  delay: 2
"""

RETURN = r"""
brokers:
  description: The registered brokers, by id.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The broker's id.
      type: int
    host:
      description: The broker's advertised host.
      type: str
    port:
      description: The broker's advertised port.
      type: int
    rack:
      description: The broker's rack, or null.
      type: str
    needed_by:
      description:
        - >-
          Partitions that could not accept records with acks=all without this broker, because too
          few replicas would be in sync.
      type: list
      elements: str
    protocol_version:
      description: Protocol version between brokers, as the broker reports; null if it is silent.
      type: str
  sample:
    - id: 1
      host: 192.0.2.11
      port: 9092
      rack: null
      needed_by: []
      protocol_version: "3.9"
silent:
  description: Registered brokers that do not respond, by id, with the error.
  returned: success
  type: dict
  sample: {"3": "KafkaConnectionError: Connection refused"}
controller:
  description: Id of the controller, or null while there is none.
  returned: success
  type: int
  sample: 1
under_replicated:
  description: Partitions of which a replica is not in sync.
  returned: success
  type: list
  elements: str
  sample: [chat-3]
under_min_isr:
  description: Partitions with fewer replicas in sync than acks=all requires.
  returned: success
  type: list
  elements: str
  sample: []
offline:
  description:
    - >-
      Partitions without a leader. Kafka always counts the last replica in sync as in sync, so a
      partition whose only replica is lost is listed here and not in C(under_replicated).
  returned: success
  type: list
  elements: str
  sample: []
"""

import contextlib
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_admin import (
    CONNECTION_OPTIONS,
    connected,
)
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_settings import (
    min_insync_replicas,
    protocol_version,
)

with contextlib.suppress(ImportError):  # `connected` says so.
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaError


def describe(admin: KafkaAdminClient) -> dict[str, Any]:
    """The values described in RETURN, as far as one broker knows them."""
    cluster = admin.describe_cluster()
    topics = sorted(admin.describe_topics(), key=lambda topic: topic["name"])
    minimum = min_insync_replicas(admin, [topic["name"] for topic in topics])
    under_replicated, under_min_isr, offline = [], [], []
    needed: dict[int, list[str]] = {broker["broker_id"]: [] for broker in cluster["brokers"]}
    for topic in topics:
        for partition in sorted(topic["partitions"], key=lambda p: p["partition_index"]):
            name = f"{topic['name']}-{partition['partition_index']}"
            in_sync = partition["isr_nodes"]
            if len(in_sync) < len(partition["replica_nodes"]):
                under_replicated.append(name)
            if len(in_sync) < minimum[topic["name"]]:
                under_min_isr.append(name)
            if partition["leader_id"] < 0:
                offline.append(name)
            if len(in_sync) <= minimum[topic["name"]]:
                for broker in set(in_sync) & needed.keys():
                    needed[broker].append(name)
    brokers = [
        {key.removeprefix("broker_"): broker[key] for key in ("broker_id", "host", "port", "rack")}
        | {"needed_by": needed[broker["broker_id"]]}
        for broker in cluster["brokers"]
    ]
    return {
        "brokers": sorted(brokers, key=lambda broker: broker["id"]),
        "controller": cluster["controller_id"] if cluster["controller_id"] >= 0 else None,
        "under_replicated": under_replicated,
        "under_min_isr": under_min_isr,
        "offline": offline,
    }


def describe_within(seconds: float, admin: KafkaAdminClient) -> dict[str, Any]:
    """Describe the cluster. Retry if the broker that was asked has just gone.

    Retry once more after the deadline, because a broker that hangs may have used up all the time.
    """
    deadline = time.monotonic() + seconds
    last = False
    while True:
        try:
            return describe(admin)
        except KafkaError as error:
            if not error.retriable or last:
                raise
            last = time.monotonic() > deadline
            time.sleep(0.1)


def ask_each(admin: KafkaAdminClient, cluster: dict[str, Any]) -> None:
    """Add what each broker reports about itself, or why it does not."""
    cluster["silent"] = {}
    for broker in cluster["brokers"]:
        broker["protocol_version"] = None
        try:
            broker["protocol_version"] = protocol_version(admin, broker["id"])
        except KafkaError as error:
            cluster["silent"][str(broker["id"])] = str(error)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=CONNECTION_OPTIONS, supports_check_mode=True)
    with connected(module) as admin:
        cluster = describe_within(module.params["timeout"], admin)
        ask_each(admin, cluster)
    module.exit_json(changed=False, **cluster)


if __name__ == "__main__":
    main()
