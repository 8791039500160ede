"""Shared documentation of the ZooKeeper modules: the options of module_utils/zookeeper."""

from __future__ import annotations


class ModuleDocFragment:
    """The servers' addresses and the timeout."""

    DOCUMENTATION = r"""
options:
  servers:
    description: Servers of the ensemble, as C(HOST:PORT).
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds to wait for each server.
    type: int
    default: 5
"""
