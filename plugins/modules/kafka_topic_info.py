#!/usr/bin/python
"""Ansible module kafka_topic_info: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kafka_topic_info
short_description: List the topics of a Kafka cluster with their settings
description:
  - Reads all topics, including Kafka's internal ones. It changes nothing.
extends_documentation_fragment:
  - baremetal_chat.platform.kafka
  - baremetal_chat.platform.read_only
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Write down all topics
  baremetal_chat.platform.kafka_topic_info:
    bootstrap_servers: [192.0.2.11:9092, 192.0.2.12:9092]
  delegate_to: localhost
  register: cluster
"""

RETURN = r"""
topics:
  description: All topics, by name.
  returned: success
  type: dict
  sample:
    chat:
      config: {retention.ms: "604800000"}
      replicas: {"0": [1, 2, 3], "1": [2, 3, 1]}
"""

import contextlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_admin import (
    CONNECTION_OPTIONS,
    connected,
)

with contextlib.suppress(ImportError):  # `connected` says so.
    from kafka.admin import ConfigResource, ConfigResourceType


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=CONNECTION_OPTIONS, supports_check_mode=True)
    with connected(module) as admin:
        described = sorted(admin.describe_topics(), key=lambda topic: topic["name"])
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic["name"]) for topic in described]
        settings = admin.describe_configs(resources)["topic"] if resources else {}
    topics = {
        topic["name"]: {
            "config": {
                key: setting["value"] for key, setting in sorted(settings[topic["name"]].items())
            },
            "replicas": {
                str(partition["partition_index"]): list(partition["replica_nodes"])
                for partition in sorted(topic["partitions"], key=lambda p: p["partition_index"])
            },
        }
        for topic in described
    }
    module.exit_json(changed=False, topics=topics)


if __name__ == "__main__":
    main()
