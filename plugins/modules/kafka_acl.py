#!/usr/bin/python
"""Ansible module kafka_acl: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kafka_acl
short_description: Set what a principal may do on a resource of Kafka
description:
  - >-
    C(operations) is the complete list for this principal, resource, host and permission: missing
    operations are added, and others are removed. ACLs of other principals, resources, hosts and
    permissions are not changed.
  - The cluster must have an authorizer. The module ends when the broker that it asks has the ACLs.
options:
  principal:
    description: >-
      Whom the ACLs are about, as C(User:NAME). C(User:*) is everybody. Required without C(acls).
    type: str
  resource_type:
    description: Kind of the resource.
    type: str
    choices: [TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID]
    default: TOPIC
  resource_name:
    description: >-
      Name of the resource. The only name of C(CLUSTER) is C(kafka-cluster). With C(LITERAL), C(*)
      is every resource of the kind. Required without C(acls).
    type: str
  pattern_type:
    description: Whether C(resource_name) is the whole name, or what names begin with.
    type: str
    choices: [LITERAL, PREFIXED]
    default: LITERAL
  operations:
    description: Operations by Kafka's names. An empty list removes all. Required without C(acls).
    type: list
    elements: str
    choices: &operations
      - ALL
      - READ
      - WRITE
      - CREATE
      - DELETE
      - ALTER
      - DESCRIBE
      - CLUSTER_ACTION
      - DESCRIBE_CONFIGS
      - ALTER_CONFIGS
      - IDEMPOTENT_WRITE
  permission:
    description: Whether the operations are allowed or denied. What is denied stays denied.
    type: str
    choices: [ALLOW, DENY]
    default: ALLOW
  host:
    description: IP address from which the principal connects. C(*) is any.
    type: str
    default: "*"
  acls:
    description: Several of them, set in this order, in one connection.
    type: list
    elements: dict
    suboptions:
      principal:
        description: As above.
        type: str
        required: true
      resource_type:
        description: As above.
        type: str
        choices: [TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID]
        default: TOPIC
      resource_name:
        description: As above.
        type: str
        required: true
      pattern_type:
        description: As above.
        type: str
        choices: [LITERAL, PREFIXED]
        default: LITERAL
      operations:
        description: As above.
        type: list
        elements: str
        choices: *operations
        required: true
      permission:
        description: As above.
        type: str
        choices: [ALLOW, DENY]
        default: ALLOW
      host:
        description: As above.
        type: str
        default: "*"
extends_documentation_fragment: [baremetal_chat.platform.kafka]
attributes:
  check_mode:
    description: Compares with the cluster's ACLs.
    support: full
  diff_mode:
    description: The operations, before and after.
    support: full
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Let the chat use its topics
  baremetal_chat.platform.kafka_acl:
    bootstrap_servers: [192.0.2.11:9092, 192.0.2.12:9092]
    acls:
      - {principal: User:chat, resource_name: chat, operations: [READ, WRITE, DESCRIBE_CONFIGS]}
      - {principal: User:chat, resource_name: chat-signals, operations: [READ, WRITE]}
  delegate_to: localhost

- name: Take all rights on a topic away from a user
  baremetal_chat.platform.kafka_acl:
    bootstrap_servers: [192.0.2.11:9092, 192.0.2.12:9092]
    principal: User:ada
    resource_name: chat
    operations: []
  delegate_to: localhost
"""

RETURN = r"""
operations:
  description: The operations that the ACLs list now, or would.
  returned: success, without C(acls)
  type: list
  elements: str
  sample: [DESCRIBE_CONFIGS, READ, WRITE]
"""

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_admin import (
    CONNECTION_OPTIONS,
    connected,
    read_until,
)

with contextlib.suppress(ImportError):  # `connected` says so.
    from kafka.admin import (
        ACL,
        ACLFilter,
        ACLOperation,
        ACLPermissionType,
        ACLResourcePatternType,
        KafkaAdminClient,
        ResourcePattern,
        ResourceType,
    )
    from kafka.errors import KafkaError, NoError, SecurityDisabledError

OPERATIONS = [
    "ALL",
    "READ",
    "WRITE",
    "CREATE",
    "DELETE",
    "ALTER",
    "DESCRIBE",
    "CLUSTER_ACTION",
    "DESCRIBE_CONFIGS",
    "ALTER_CONFIGS",
    "IDEMPOTENT_WRITE",
]


class AclChange:
    """The ACLs of one principal on one resource: what they are, and the calls that change them."""

    def __init__(
        self, module: AnsibleModule, admin: KafkaAdminClient, params: dict[str, Any]
    ) -> None:
        self._module = module
        self._admin = admin
        # What errors name.
        resource = f"{params['resource_type']} {params['resource_name']}"
        self._whose = f"ACLs of {params['principal']} on {resource}"
        self._about: dict[str, Any] = {
            "principal": params["principal"],
            "host": params["host"],
            "permission_type": ACLPermissionType[params["permission"]],
            "resource_pattern": ResourcePattern(
                ResourceType[params["resource_type"]],
                params["resource_name"],
                ACLResourcePatternType[params["pattern_type"]],
            ),
        }
        self.before = self._read()
        self.after = set(params["operations"])

    def _read(self) -> set[str]:
        acls, _ = self._admin.describe_acls(ACLFilter(operation=ACLOperation.ANY, **self._about))
        return {acl.operation.name for acl in acls}

    def apply(self) -> None:
        """Add first: nobody loses a right in between that they keep."""
        new = [
            ACL(operation=ACLOperation[name], **self._about)
            for name in sorted(self.after - self.before)
        ]
        if new and (failed := self._admin.create_acls(new)["failed"]):
            raise failed[0](f"{self._whose} cannot be made")
        old = [
            ACLFilter(operation=ACLOperation[name], **self._about)
            for name in sorted(self.before - self.after)
        ]
        for _, _, error in self._admin.delete_acls(old) if old else ():
            if error is not NoError:
                raise error(f"{self._whose} cannot be removed")
        self._wait()

    def _wait(self) -> None:
        """Until the broker that is asked has heard of it: each does so by itself."""
        timeout = self._module.params["timeout"]
        found = read_until(self._read, self.after.__eq__, timeout)
        if found != self.after:
            raise KafkaError(
                f"{self._whose} are to be {sorted(self.after)}, and after {timeout} s are"
                f" {sorted(found)}: see whether somebody else changes ACLs, and run this again"
            )


OWN: dict[str, Any] = {
    "principal": {"type": "str"},
    "resource_type": {
        "type": "str",
        "choices": ["TOPIC", "GROUP", "CLUSTER", "TRANSACTIONAL_ID"],
        "default": "TOPIC",
    },
    "resource_name": {"type": "str"},
    "pattern_type": {"type": "str", "choices": ["LITERAL", "PREFIXED"], "default": "LITERAL"},
    "operations": {"type": "list", "elements": "str", "choices": OPERATIONS},
    "permission": {"type": "str", "choices": ["ALLOW", "DENY"], "default": "ALLOW"},
    "host": {"type": "str", "default": "*"},
}
REQUIRED = ["principal", "resource_name", "operations"]
OF_SEVERAL = OWN | {name: OWN[name] | {"required": True} for name in REQUIRED}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=CONNECTION_OPTIONS
        | OWN
        | {"acls": {"type": "list", "elements": "dict", "options": OF_SEVERAL}},
        mutually_exclusive=[("acls", name) for name in OWN],
        required_together=[REQUIRED],
        required_one_of=[("acls", "principal")],
        supports_check_mode=True,
    )
    several = module.params["acls"]
    wanted = [module.params] if several is None else several
    for principal in (each["principal"] for each in wanted):
        kind, _, name = principal.partition(":")
        if not kind or not name:
            module.fail_json(msg=f"principal='{principal}': say User:NAME")
    before, after = [], []
    with connected(module) as admin:
        try:
            for each in wanted:
                change = AclChange(module, admin, each)
                if change.before != change.after and not module.check_mode:
                    change.apply()
                before.append(sorted(change.before))
                after.append(sorted(change.after))
        except SecurityDisabledError:
            module.fail_json(
                msg=f"Kafka at {', '.join(module.params['bootstrap_servers'])} has no authorizer,"
                " and allows everything to everybody: set authorizer.class.name on the brokers"
            )
    if several is None:
        module.exit_json(
            changed=before != after,
            operations=after[0],
            diff={"before": {"operations": before[0]}, "after": {"operations": after[0]}},
        )
    module.exit_json(
        changed=before != after,
        diff={
            "before": {"acls": shown(several, before)},
            "after": {"acls": shown(several, after)},
        },
    )


def shown(acls: list[dict[str, Any]], operations: list[list[str]]) -> list[dict[str, Any]]:
    """The ACLs with these operations."""
    return [acl | {"operations": names} for acl, names in zip(acls, operations, strict=True)]


if __name__ == "__main__":
    main()
