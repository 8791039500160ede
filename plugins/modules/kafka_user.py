#!/usr/bin/python
"""Ansible module kafka_user: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kafka_user
short_description: Create, change or remove a user of Kafka
description:
  - Sets the SCRAM-SHA-512 credential of a user. Kafka stores a salted hash of the password.
  - >-
    Kafka does not tell passwords. If the module itself connects with SCRAM-SHA-512, or is told
    C(login_servers), it tries to log in as the user, and changes the password only if that fails.
    Otherwise it cannot know, and sets the password at every run, unless C(update_password) is
    C(on_create).
  - >-
    The module ends when the cluster shows the change. A new password counts for new connections;
    brokers do not close those that exist.
options:
  name:
    description: Name of the user, without C(,) and C(=), which SCRAM would have to escape.
    type: str
    required: true
  password:
    description: Password of the user. Required if the user is to be present. Keep it in a vault.
    type: str
  update_password:
    description: >-
      Whether to correct the password of a user who exists (C(always)), or to set it for new users
      only (C(on_create)).
    type: str
    choices: [always, on_create]
    default: always
  login_servers:
    description: >-
      Where to try the password, as C(HOST:PORT) of a listener with SCRAM-SHA-512, over TLS if
      C(security_protocol) is. Those that cannot be reached from here are passed over. Default,
      C(bootstrap_servers) if the module itself connects with SCRAM-SHA-512.
    type: list
    elements: str
  iterations:
    description: Rounds of the hash, 4096 to 16384.
    type: int
    default: 8192
  state:
    description: >-
      C(absent) removes all SCRAM credentials of the user. ACLs stay, and would count for a later
      user of that name.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment: [baremetal_chat.platform.kafka]
attributes:
  check_mode:
    description: Reads the credentials, and tries the password where it can.
    support: full
  diff_mode:
    description: Whether the user exists, the rounds, and whether the password changes.
    support: full
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Make the user of the chat
  baremetal_chat.platform.kafka_user:
    bootstrap_servers: [192.0.2.11:9093, 192.0.2.12:9093]
    security_protocol: SASL_SSL
    ca_file: "{{ inventory_dir }}/kafka-ca.crt"
    sasl_username: admin
    sasl_password: "{{ vault_kafka_admin_password }}"
    name: chat
    password: "{{ vault_chat_kafka_sasl_password }}"
  delegate_to: localhost
"""

RETURN = r"""
user:
  description: The user as it is now, or would be; empty if absent. Never the password.
  returned: success
  type: dict
  contains:
    iterations:
      description: Rounds of the hash.
      type: int
  sample: {iterations: 8192}
"""

import contextlib
import dataclasses
import socket
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_admin import (
    CONNECTION_OPTIONS,
    connected,
    read_until,
    security,
)
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_security import (
    Security,
)

with contextlib.suppress(ImportError):  # `connected` says so.
    from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_refusal import (
        explain,
    )
    from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion
    from kafka.errors import KafkaError, NotControllerError, for_code
    from kafka.protocol.admin import AlterUserScramCredentialsRequest

MECHANISM = "SCRAM-SHA-512"
# To log in once, at one broker.
LOGIN_SECONDS = 5
# What the diff says of a password.
DECLARED = "as declared"
OTHER = "another one"
NOT_KNOWN = "not known"


class UserChange:
    """What has to happen to a user, and the calls that do it."""

    def __init__(self, module: AnsibleModule, admin: KafkaAdminClient) -> None:
        self._module = module
        self._admin = admin
        self._name: str = module.params["name"]
        self._password: str = module.params["password"] or ""
        self._iterations: int = module.params["iterations"]
        self._present = module.params["state"] == "present"
        own = security(module)
        # Where passwords can be tried: on a listener that takes this mechanism.
        self._login_servers: list[str] = module.params["bootstrap_servers"]
        if module.params["login_servers"]:
            self._login_servers = [
                server for server in module.params["login_servers"] if _reached(server)
            ]
            own = Security(
                security_protocol="SASL_SSL" if own.tls else "SASL_PLAINTEXT", ca_file=own.ca_file
            )
        self._login = (
            dataclasses.replace(own, sasl_username=self._name, sasl_password=self._password)
            if own.sasl and own.sasl_mechanism == MECHANISM and self._login_servers
            else None
        )
        # The mechanisms, with the rounds of each.
        self._found = self._read()
        self.before = self._before()
        self.after = self._after()

    def _read(self) -> dict[str, int]:
        described = self._admin.describe_user_scram_credentials([self._name])[self._name]
        return {
            credential["mechanism"].name.replace("_", "-"): credential["iterations"]
            for credential in described["credential_infos"]
        }

    def _before(self) -> dict[str, Any]:
        if not self._present:
            return {"mechanisms": sorted(self._found)} if self._found else {}
        if MECHANISM not in self._found:
            return {}
        if self._module.params["update_password"] == "on_create":
            known = DECLARED
        elif self._login is None:
            known = NOT_KNOWN
        else:
            known = DECLARED if self._accepted() else OTHER
        return {"iterations": self._found[MECHANISM], "password": known}

    def _after(self) -> dict[str, Any]:
        if not self._present:
            return {}
        if self.before and self._module.params["update_password"] == "on_create":
            # The hash cannot be made anew without the password.
            return self.before
        return {"iterations": self._iterations, "password": DECLARED}

    def _accepted(self) -> bool:
        """Whether a broker lets the user in with the declared password."""
        return any(
            not explain([server], self._login, LOGIN_SECONDS) for server in self._login_servers
        )

    def apply(self) -> None:
        if self._present:
            made = UserScramCredentialUpsertion(
                self._name, MECHANISM, self._password, iterations=self._iterations
            )
            values = (made.iterations, made.salt, made.salted_password)
            self._alter(upsertions=[(self._name, int(made.mechanism), *values)], deletions=[])
        else:
            mechanisms = [int(ScramMechanism[name.replace("-", "_")]) for name in self._found]
            self._alter(upsertions=[], deletions=[(self._name, number) for number in mechanisms])
        self._until(self._done, "its credentials are not what was set")

    def _done(self) -> bool:
        found = self._read()
        if not self._present:
            return not found
        return found.get(MECHANISM) == self._iterations and (
            self._login is None or self._accepted()
        )

    def _alter(self, **changes: Any) -> None:
        """Send the change to the controller.

        kafka-python's own call (3.0.12) asks any broker. With ZooKeeper, the others refuse, and it
        reports success.
        """

        def sent() -> bool:
            controller = self._admin.describe_cluster()["controller_id"]
            if controller < 0:
                return False
            request = AlterUserScramCredentialsRequest(**changes)
            manager = self._admin._manager
            (result,) = manager.run(manager.send, request, controller).results
            error = for_code(result.error_code)
            if error is NotControllerError:
                return False
            if result.error_code:
                raise error(result.error_message or f"user '{self._name}' cannot be changed")
            return True

        self._until(sent, "there is no controller")

    def _until(self, done: Callable[[], bool], otherwise: str) -> None:
        timeout = self._module.params["timeout"]
        if not read_until(done, bool, timeout):
            raise KafkaError(
                f"user '{self._name}': {otherwise} after {timeout} s. See whether somebody else"
                " changes the user, and whether all brokers are well, and run this again"
            )


def _reached(server: str) -> bool:
    """Whether something listens there. It may be in a network that is not this machine's."""
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), LOGIN_SECONDS).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=CONNECTION_OPTIONS
        | {
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "no_log": True},
            "update_password": {
                "type": "str",
                "choices": ["always", "on_create"],
                "default": "always",
                "no_log": False,
            },
            "login_servers": {"type": "list", "elements": "str"},
            "iterations": {"type": "int", "default": 8192},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
        required_if=[("state", "present", ("password",))],
    )
    params = module.params
    if not params["name"] or set(params["name"]) & set(",="):
        module.fail_json(msg=f"name='{params['name']}': give a name without ',' and '='")
    if params["state"] == "present" and not params["password"]:
        module.fail_json(msg=f"password of user '{params['name']}' is empty: give one")
    if not 4096 <= params["iterations"] <= 16384:
        module.fail_json(msg=f"iterations={params['iterations']}: give 4096 to 16384")
    with connected(module) as admin:
        change = UserChange(module, admin)
        if change.before != change.after and not module.check_mode:
            change.apply()
    module.exit_json(
        changed=change.before != change.after,
        user={key: value for key, value in change.after.items() if key == "iterations"},
        diff={"before": change.before, "after": change.after},
    )


if __name__ == "__main__":
    main()
