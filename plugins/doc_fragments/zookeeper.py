"""Shared documentation of the ZooKeeper modules: the options of module_utils/zookeeper."""

from __future__ import annotations


class ModuleDocFragment:
    """The servers' addresses, the timeout, and how to connect."""

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
  ca_file:
    description:
      - CA certificates in PEM that signed the servers' certificates, on the host where the module
        runs. Default, a connection without TLS.
    type: path
  certificate_file:
    description: Client certificate in PEM. Servers with TLS demand one.
    type: path
  key_file:
    description: Private key of C(certificate_file) in PEM, without a passphrase.
    type: path
"""
