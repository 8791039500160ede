"""Shared documentation of the Kafka modules: the options of module_utils/kafka_admin."""

from __future__ import annotations


class ModuleDocFragment:
    """The cluster's address, the timeout, and how to connect."""

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
  security_protocol:
    description: Protocol of the brokers' listener.
    type: str
    choices: [PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL]
    default: PLAINTEXT
  ca_file:
    description:
      - CA certificates in PEM that signed the brokers' certificates, on the host where the module
        runs. Used with C(SSL) and C(SASL_SSL). Default, the system's CAs.
    type: path
  certificate_file:
    description: Client certificate in PEM, if the brokers demand one.
    type: path
  key_file:
    description: Private key of C(certificate_file) in PEM, without a passphrase.
    type: path
  sasl_mechanism:
    description: Mechanism of C(SASL_SSL) and C(SASL_PLAINTEXT).
    type: str
    choices: [PLAIN, SCRAM-SHA-256, SCRAM-SHA-512]
    default: SCRAM-SHA-512
  sasl_username:
    description: User. Required with C(SASL_SSL) and C(SASL_PLAINTEXT).
    type: str
  sasl_password:
    description: Password of C(sasl_username). Keep it in a vault.
    type: str
requirements:
  - kafka-python >= 3.0
"""
