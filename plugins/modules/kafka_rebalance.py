#!/usr/bin/python
"""Ansible module kafka_rebalance: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kafka_rebalance
short_description: Spread all partitions over a cluster's brokers, or empty a broker
description:
  - >-
    Plans the broker of each replica: evenly spread, with as few moves as possible, and with
    replicas in different racks if there are racks. Then lets Kafka move the replicas.
  - >-
    It continues an earlier, unfinished run. When all replicas are moved, it removes the throttle
    and restores the preferred leaders.
  - It refuses to reduce the number of replicas of a partition.
options:
  retire:
    description: Ids of brokers to empty.
    type: list
    elements: int
    default: []
  throttle:
    description:
      - >-
        Limit in bytes per second, to and from each broker, so that clients are served meanwhile. It
        must be higher than the write rate of the partitions. 0: no limit. It also applies at once
        to moves that an earlier run started.
    type: int
    default: 50000000
  wait:
    description: Seconds to wait for completion. C(remaining) counts what is not moved by then.
    type: int
    default: 30
extends_documentation_fragment: [baremetal_chat.platform.kafka]
attributes:
  check_mode:
    description: Only plans.
    support: full
  diff_mode:
    description: Partitions that move, with their brokers before and after.
    support: full
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Take everything off broker 4
  baremetal_chat.platform.kafka_rebalance:
    bootstrap_servers: [192.0.2.11:9092, 192.0.2.12:9092]
    retire: [4]
  delegate_to: localhost
  register: moved
  until: moved.remaining == 0
  retries: 120
"""

RETURN = r"""
remaining:
  description: Number of partitions that are not moved yet.
  returned: success
  type: int
  sample: 3
replicas:
  description: Number of replicas on each broker, by id.
  returned: success
  type: dict
  sample: {"1": 24, "2": 24, "3": 24}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_admin import (
    CONNECTION_OPTIONS,
    connected,
)
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_assignment import (
    Assignment,
    ImpossibleError,
    changes,
    spread,
)
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_reassignment import (
    assignment,
    begin,
    finish,
    throttle,
)


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
