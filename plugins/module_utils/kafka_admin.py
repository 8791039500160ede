"""Shared by the Kafka modules: options, and a client with clear errors."""

from __future__ import annotations

import contextlib
import functools
import logging
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaError
    from kafka.net.compat import KafkaNetClient
except ImportError:
    IMPORT_ERROR: str | None = traceback.format_exc()
else:
    IMPORT_ERROR = None

if TYPE_CHECKING:
    from typing import Any

CONNECTION_OPTIONS: dict[str, Any] = {
    "bootstrap_servers": {"type": "list", "elements": "str", "required": True},
    "timeout": {"type": "int", "default": 30},
}


@contextlib.contextmanager
def connected(module: AnsibleModule) -> Iterator[KafkaAdminClient]:
    """Return an admin client, or fail the module with one clear sentence."""
    if IMPORT_ERROR:
        module.fail_json(
            msg=missing_required_lib("kafka-python"),
            exception=IMPORT_ERROR,
        )
    # The client's retries are its own affair: what matters is in the exception.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    servers, timeout = module.params["bootstrap_servers"], module.params["timeout"]
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=servers,
            client_id="ansible",
            bootstrap_timeout_ms=timeout * 1000,
            request_timeout_ms=timeout * 1000,
            # A host that hangs takes connections and does not answer. The client would wait 10 s
            # for each, and has no option for it.
            kafka_client=functools.partial(
                KafkaNetClient, socket_connection_setup_timeout_ms=min(timeout, 10) * 1000
            ),
        )
    except (KafkaError, OSError, ValueError) as error:
        module.fail_json(
            msg=f"No Kafka broker answered at {', '.join(servers)} within {timeout} s: {error}"
        )
    with contextlib.closing(admin):
        try:
            yield admin
        except KafkaError as error:
            module.fail_json(msg=f"Kafka at {', '.join(servers)} answered: {error}")
