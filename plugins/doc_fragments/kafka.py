"""What our Kafka modules share in their documentation: the options of module_utils/kafka_admin."""

from __future__ import annotations


class ModuleDocFragment:
    """Where the cluster is, and how long to wait for it."""

    DOCUMENTATION = r"""
options:
  bootstrap_servers:
    description: Brokers to ask first, as C(HOST:PORT). All brokers must be reachable.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds to wait for the cluster, for each answer.
    type: int
    default: 30
requirements:
  - kafka-python >= 3.0
"""
