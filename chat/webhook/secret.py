"""The state of the webhooks in a Secret of Kubernetes, whichever host they run on.

Each write is one request to the API, and names the version of the Secret that it replaces. If
somebody else has written since, Kubernetes refuses it, and this process must end: another one took
over while this one's host was cut off, or the operator has changed something. Whoever starts next
begins with what is there. A write that changes nothing is refused likewise, and costs no write to
the cluster's database.

The cluster keeps its own state in the same database, which is made for few writes. So there is a
pause after each, and what several webhooks have to write meanwhile is written at once.
"""

from __future__ import annotations

import threading
import time
from http import HTTPStatus

import requests

from chat.kubernetes import Secrets, field
from chat.webhook.state import Keeper, StateError

PAUSE_SECONDS = 0.05


class Secret(Keeper):
    """`name`: NAMESPACE/NAME of a Secret that is there. Raises `OSError`."""

    def __init__(self, secrets: Secrets, name: str) -> None:
        self._secrets = secrets
        self._name = name
        self._found = secrets.read(name)
        self._version: str = self._found["metadata"]["resourceVersion"]
        self._unwritten: dict[str, bytes] = {}
        # Of `_unwritten`, which others fill while one thread writes.
        self._filling = threading.Lock()
        self._writing = threading.Lock()

    def read(self, file: str) -> bytes | None:
        return field(self._found, file) or None

    def write(self, file: str, content: bytes) -> None:
        with self._filling:
            self._unwritten[file] = content
        with self._writing:
            with self._filling:
                if self._unwritten.get(file) is not content:
                    # Another thread has written it.
                    return
                written, self._unwritten = self._unwritten, {}
            try:
                self._replace(written)
            except BaseException:
                with self._filling:
                    self._unwritten = written | self._unwritten
                raise
            finally:
                time.sleep(PAUSE_SECONDS)

    def place(self, file: str) -> str:
        return f"{file} of Secret {self._name}"

    def _replace(self, files: dict[str, bytes]) -> None:
        try:
            answer = self._secrets.write(self._name, files, resourceVersion=self._version)
        except requests.HTTPError as refused:
            if refused.response is None or refused.response.status_code != HTTPStatus.CONFLICT:
                raise
            raise StateError(
                f"Secret {self._name}: somebody else has changed it: this process goes, and the"
                " next one begins with what is there"
            ) from None
        self._version = answer["metadata"]["resourceVersion"]
