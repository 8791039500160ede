"""Shared by the Kafka modules: options, and a client with clear errors."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_security import (
    Security,
    SecurityError,
)

try:
    from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_handshake import (
        limit_handshakes,
    )
    from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_refusal import (
        explain,
    )
    from kafka.admin import KafkaAdminClient
    from kafka.errors import AuthorizationError, KafkaError
    from kafka.net.compat import KafkaNetClient
except ImportError:
    IMPORT_ERROR: str | None = traceback.format_exc()
else:
    IMPORT_ERROR = None

if TYPE_CHECKING:
    from typing import Any

# Options that are passed to `Security` under the same names.
SECURITY_OPTIONS: dict[str, Any] = {
    "security_protocol": {
        "type": "str",
        "choices": ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        "default": "PLAINTEXT",
    },
    "ca_file": {"type": "path"},
    "certificate_file": {"type": "path"},
    "key_file": {"type": "path"},
    "sasl_mechanism": {
        "type": "str",
        "choices": ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        "default": "SCRAM-SHA-512",
    },
    "sasl_username": {"type": "str"},
    "sasl_password": {"type": "str", "no_log": True},
}
CONNECTION_OPTIONS: dict[str, Any] = {
    "bootstrap_servers": {"type": "list", "elements": "str", "required": True},
    "timeout": {"type": "int", "default": 30},
    **SECURITY_OPTIONS,
}
# Additional time to ask brokers why they refuse the client, after `timeout`.
EXPLAIN_SECONDS = 2

T = TypeVar("T")


def security(module: AnsibleModule) -> Security:
    """The connection options of the module."""
    given = {option: module.params[option] for option in SECURITY_OPTIONS}
    return Security(**{option: value for option, value in given.items() if value is not None})


def client_options(module: AnsibleModule) -> dict[str, Any]:
    """The options for all kafka-python clients. Fails the module if they are invalid."""
    try:
        return {
            "bootstrap_servers": module.params["bootstrap_servers"],
            "client_id": "ansible",
            **security(module).client_options(),
        }
    except SecurityError as error:
        module.fail_json(msg=str(error))


@contextlib.contextmanager
def connected(module: AnsibleModule) -> Iterator[KafkaAdminClient]:
    """Yield an admin client, or fail the module with one clear sentence."""
    if IMPORT_ERROR:
        module.fail_json(
            msg=missing_required_lib("kafka-python"),
            exception=IMPORT_ERROR,
        )
    # Suppress the client's log of retries: the exception has the important part.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    servers, timeout = module.params["bootstrap_servers"], module.params["timeout"]
    limit_handshakes()
    try:
        admin = KafkaAdminClient(
            **client_options(module),
            bootstrap_timeout_ms=timeout * 1000,
            request_timeout_ms=timeout * 1000,
            # A host that hangs accepts connections but does not answer. The client would wait 10 s
            # for each, and has no option for that.
            kafka_client=functools.partial(
                KafkaNetClient, socket_connection_setup_timeout_ms=min(timeout, 10) * 1000
            ),
        )
    except (KafkaError, OSError, ValueError) as error:
        why = explain(servers, security(module), EXPLAIN_SECONDS)
        module.fail_json(
            msg=f"No Kafka broker answered at {', '.join(servers)} within {timeout} s:"
            f" {why or error}"
        )
    with contextlib.closing(admin):
        try:
            yield admin
        except AuthorizationError as error:
            module.fail_json(
                msg=f"Kafka at {', '.join(servers)} answered: {error}."
                f" {security(module).who} lacks a right: grant it, or connect as another user"
            )
        except KafkaError as error:
            module.fail_json(msg=f"Kafka at {', '.join(servers)} answered: {error}")


def read_until(read: Callable[[], T], done: Callable[[T], bool], seconds: float) -> T:
    """What `read` returns, as soon as that is `done`; otherwise what it returns when the seconds
    have passed. After a change: each broker hears of it by itself.
    """
    deadline = time.monotonic() + seconds
    while not done(found := read()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
