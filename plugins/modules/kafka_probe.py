#!/usr/bin/python
"""Ansible module kafka_probe: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kafka_probe
short_description: Write one message to a topic, and read it back
description:
  - >-
    Checks that a Kafka cluster stores and returns messages. The message is written with acks=all
    and read from the offset that Kafka returned. It stays in the topic.
options:
  topic:
    description: An existing topic.
    type: str
    required: true
  text:
    description: The message.
    type: str
    default: Hello, World
extends_documentation_fragment: [baremetal_chat.platform.kafka]
attributes:
  check_mode:
    description: Writes nothing, and returns nothing.
    support: none
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Say hello to Kafka
  baremetal_chat.platform.kafka_probe:
    bootstrap_servers: [192.0.2.11:9092]
    topic: TutorialTopic
  delegate_to: localhost
"""

RETURN = r"""
text:
  description: The message that was read.
  returned: success
  type: str
  sample: Hello, World
partition:
  description: The message's partition.
  returned: success
  type: int
  sample: 0
offset:
  description: The message's offset.
  returned: success
  type: int
  sample: 41
milliseconds:
  description: Time from writing the message until it was read, without connecting.
  returned: success
  type: float
  sample: 11.2
"""

import contextlib
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_admin import (
    CONNECTION_OPTIONS,
    client_options,
    connected,
)

with contextlib.suppress(ImportError):  # `connected` says so.
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition


class ProbeError(Exception):
    """Kafka does not work. The text says what happened instead."""


def round_trip(connect: dict[str, Any], topic: str, text: str, timeout: int) -> dict[str, Any]:
    """Return the values described in RETURN. Raises ProbeError or KafkaError."""
    with (
        contextlib.closing(KafkaProducer(**connect, acks="all")) as to,
        contextlib.closing(KafkaConsumer(**connect)) as back,
    ):
        started = time.monotonic()
        written = to.send(topic, text.encode()).get(timeout)
        place = TopicPartition(topic, written.partition)
        back.assign([place])
        back.seek(place, written.offset)
        records = back.poll(timeout_ms=timeout * 1000).get(place)
        if not records or records[0].value != text.encode():
            raise ProbeError(
                f"partition {topic}-{written.partition} took the message at {written.offset} and"
                f" gave back {records[0].value if records else 'nothing'} from there"
            )
        milliseconds = (time.monotonic() - started) * 1000
    return {
        "text": records[0].value.decode(),
        "partition": written.partition,
        "offset": written.offset,
        "milliseconds": round(milliseconds, 1),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=CONNECTION_OPTIONS
        | {
            "topic": {"type": "str", "required": True},
            "text": {"type": "str", "default": "Hello, World"},
        },
    )
    with connected(module) as admin:
        try:
            if module.params["topic"] not in admin.list_topics():
                raise ProbeError(f"topic {module.params['topic']} does not exist")
            seen = round_trip(
                client_options(module),
                *(module.params[option] for option in ("topic", "text", "timeout")),
            )
        except ProbeError as error:
            module.fail_json(
                msg=f"Kafka at {', '.join(module.params['bootstrap_servers'])}: {error}"
            )
    module.exit_json(changed=False, **seen)


if __name__ == "__main__":
    main()
