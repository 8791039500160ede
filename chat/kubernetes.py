"""The cluster's API, for programs that run in it: what they keep in Secrets."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

# As each pod with a service account has them.
URL = "https://kubernetes.default.svc"
CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# The address may lead to a host that has just died; the next attempt may lead to another one.
CONNECT_SECONDS = 3
ANSWER_SECONDS = 10


class Secrets:
    """Reads and changes Secrets, by the rights of the pod's service account.

    `credentials` is the folder that Kubernetes puts into each pod. Names are NAMESPACE/NAME.
    Methods raise requests.RequestException, which is an OSError.
    """

    def __init__(self, url: str = URL, credentials: Path = CREDENTIALS) -> None:
        self._url = url
        self._credentials = credentials

    def read(self, name: str) -> dict[str, Any]:
        return self._request("GET", name)

    def write(self, name: str, data: Mapping[str, bytes | None], **metadata: Any) -> dict[str, Any]:
        """Replace these fields of a Secret at once, and return it; None removes a field.

        Kubernetes refuses (409) if the Secret has another resourceVersion than a given one.
        """
        encoded = {key: value and b64encode(value).decode() for key, value in data.items()}
        return self._request("PATCH", name, data=encoded, metadata=metadata)

    def _request(self, method: str, name: str, **patch: Any) -> dict[str, Any]:
        namespace, _, name = name.partition("/")
        answer = requests.request(
            method,
            f"{self._url}/api/v1/namespaces/{namespace}/secrets/{name}",
            json=patch or None,
            headers={
                "Authorization": f"Bearer {(self._credentials / 'token').read_text()}",
                "Content-Type": "application/merge-patch+json",
            },
            # Not in a session: there, REQUESTS_CA_BUNDLE would win.
            verify=str(self._credentials / "ca.crt"),
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def field(secret: dict[str, Any], key: str) -> bytes:
    """The content of a Secret's field; empty if there is none."""
    return b64decode((secret.get("data") or {}).get(key, ""))
