#!/usr/bin/python
"""Ansible module kafka_rebalance: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kafka_rebalance
short_description: Spread all partitions over a cluster's brokers, or take them off one
description:
  - >-
    Plans where each replica shall be, as evenly as can be with as little moved as that takes and
    with replicas in different racks where there are some, and lets Kafka move them.
  - >-
    What a run before this one began is carried on. When nothing is left to move, no throttle is
    left either, and preferred leaders lead.
  - Refuses what would leave a partition with fewer replicas than it has.
options:
  retire:
    description: Ids of brokers that shall hold nothing.
    type: list
    elements: int
    default: []
  throttle:
    description:
      - >-
        Bytes per second that may be moved to each broker, and from each, so that clients are served
        meanwhile. It must be more than what is written to the partitions. 0 is no limit. It holds
        at once for what a run before this one began.
    type: int
    default: 50000000
  wait:
    description: Seconds to wait for the end of it. What is not moved then is in C(remaining).
    type: int
    default: 30
extends_documentation_fragment: [kafka]
attributes:
  check_mode:
    description: Plans, and moves nothing.
    support: full
  diff_mode:
    description: Partitions that move, with their brokers before and after.
    support: full
author:
  - baremetal-chat
"""

EXAMPLES = r"""
- name: Take everything off broker 4
  kafka_rebalance:
    bootstrap_servers: [192.0.2.11:9092, 192.0.2.12:9092]
    retire: [4]
  delegate_to: localhost
  register: moved
  until: moved.remaining == 0
  retries: 120
"""

RETURN = r"""
remaining:
  description: How many partitions are still to be moved.
  returned: success
  type: int
  sample: 3
replicas:
  description: How many replicas each broker holds, by id.
  returned: success
  type: dict
  sample: {"1": 24, "2": 24, "3": 24}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kafka_admin import CONNECTION_OPTIONS, connected
from ansible.module_utils.kafka_assignment import Assignment, ImpossibleError, changes, spread
from ansible.module_utils.kafka_reassignment import assignment, begin, finish, throttle


def named(part: Assignment) -> dict[str, list[int]]:
    return {f"{topic}-{number}": brokers for (topic, number), brokers in sorted(part.items())}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=CONNECTION_OPTIONS
        | {
            "retire": {"type": "list", "elements": "int", "default": []},
            "throttle": {"type": "int", "default": 50_000_000},
            "wait": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    with connected(module) as admin:
        brokers = {
            broker["broker_id"]: broker["rack"] for broker in admin.describe_cluster()["brokers"]
        }
        before = assignment(admin)
        try:
            after = spread(
                before,
                {broker: brokers[broker] for broker in brokers.keys() - set(params["retire"])},
            )
        except ImpossibleError as error:
            module.fail_json(msg=f"Nothing was moved: {error}")
        plan = changes(before, after)
        remaining = len(plan)
        if not module.check_mode:
            throttle(admin, before, plan, params["throttle"])
            begin(admin, plan)
            remaining = finish(admin, params["wait"])
        held: dict[str, Any] = dict.fromkeys(map(str, sorted(brokers)), 0)
        for topic in admin.describe_topics():
            for partition in topic["partitions"]:
                for broker in partition["replica_nodes"]:
                    held[str(broker)] = held.get(str(broker), 0) + 1
    module.exit_json(
        changed=bool(plan),
        remaining=remaining,
        replicas=held,
        diff={
            "before": named({partition: before[partition] for partition in plan}),
            "after": named(plan),
        },
    )


if __name__ == "__main__":
    main()
