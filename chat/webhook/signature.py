"""Signatures of the Standard Webhooks specification 1.0.0 (standardwebhooks.com), symmetric.

What is signed is `ID.TIMESTAMP.BODY`. No id has a full stop, so nothing else reads the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import stat
from collections.abc import Sequence
from pathlib import Path

PREFIX = "whsec_"
# Of a secret; from the specification.
FEWEST_BYTES, MOST_BYTES = 24, 64
# The new one, and the one before, until all receivers know the new one.
MOST_SECRETS = 2
_FILE_BYTES = 1000
_MAKE = f'(umask 077; echo "{PREFIX}$(openssl rand -base64 32)" > FILE)'


class SecretsError(Exception):
    """There are no secrets in the file. The text says why, and the remedy, and no secret."""


class Secrets:
    """The keys of one receiver. Each signs everything, so that a secret can be replaced."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"<{len(self._keys)} secrets>"

    def sign(self, identity: str, timestamp: int, body: bytes) -> str:
        """The value of `webhook-signature`; `timestamp` in seconds since the epoch."""
        signed = f"{identity}.{timestamp}.".encode() + body
        return " ".join(
            "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
            for key in self._keys
        )


def read_secrets(path: Path) -> Secrets:
    """Read a file with one secret a line. Raises `SecretsError`."""
    try:
        with path.open("rb") as file:
            _require_private(path, os.fstat(file.fileno()))
            lines = file.read(_FILE_BYTES).decode("ascii").split()
    except OSError as error:
        raise SecretsError(f"{path}: {error.strerror}: make it with {_MAKE}") from None
    except UnicodeDecodeError:
        lines = []
    if not 0 < len(lines) <= MOST_SECRETS:
        raise SecretsError(
            f"{path} has {len(lines)} secrets: give one, or two while it is replaced, each on a"
            f" line; make it with {_MAKE}"
        )
    return Secrets([_key(path, line) for line in lines])


def _key(path: Path, line: str) -> bytes:
    try:
        key = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not line.startswith(PREFIX) or not FEWEST_BYTES <= len(key) <= MOST_BYTES:
        raise SecretsError(
            f"{path}: give {PREFIX} and {FEWEST_BYTES} to {MOST_BYTES} bytes in base64; make it"
            f" with {_MAKE}"
        )
    return key


def _require_private(path: Path, status: os.stat_result) -> None:
    """A file of another owner may be readable for a group of ours: Kubernetes gives Secrets so."""
    shared = stat.S_IRWXO | (stat.S_IRWXG if status.st_uid == os.geteuid() else stat.S_IWGRP)
    if status.st_mode & shared:
        raise SecretsError(f"{path}: others may read or change it: chmod 600 {path}")
