"""Shared documentation of the Kafka modules: the options of module_utils/kafka_admin."""

from __future__ import annotations


class ModuleDocFragment:
    """The cluster's address and the timeout."""

    DOCUMENTATION = r"""
options:
  bootstrap_servers:
    description: Brokers to connect to first, as C(HOST:PORT). All brokers must be reachable.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds to wait for each response of the cluster.
    type: int
    default: 30
requirements:
  - kafka-python >= 3.0
"""
