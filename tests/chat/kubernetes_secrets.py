"""The part of the Kubernetes API that programs in the cluster use, on a loopback port."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

# Of the service account.
TOKEN = "the-token"


class Kubernetes(ThreadingHTTPServer):
    """Stores Secrets by their paths, and accepts merge patches."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secrets: dict[str, dict[str, Any]] = {}
        self.patched: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def make(self, name: str) -> dict[str, Any]:
        """Make an empty Secret, NAMESPACE/NAME."""
        made: dict[str, Any] = {"metadata": {"resourceVersion": "1"}}
        self.secrets["/api/v1/namespaces/{}/secrets/{}".format(*name.split("/"))] = made
        return made


class Handler(BaseHTTPRequestHandler):
    server: Kubernetes

    def do_GET(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        secret = self.server.secrets.get(self.path)
        if secret is None or not self._known:
            self._answer(403)
            return
        version = secret["metadata"]["resourceVersion"]
        if given["metadata"].pop("resourceVersion", version) != version:
            self._answer(409)
            return
        before = json.dumps(secret)
        merged = (secret.get("data") or {}) | given["data"]
        secret["data"] = {key: value for key, value in merged.items() if value is not None}
        given = given["metadata"].get("annotations", {})
        secret["metadata"].setdefault("annotations", {}).update(given)
        if json.dumps(secret) != before:
            # Kubernetes does not write a patch that changes nothing.
            secret["metadata"]["resourceVersion"] = f"{int(version) + 1}"
        self.server.patched.append(self.path)
        self._answer()

    @property
    def _known(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {TOKEN}"

    def _answer(self, status: int = 200) -> None:
        secret = self.server.secrets.get(self.path)
        self.send_response(status if secret and self._known else 403)
        self.end_headers()
        self.wfile.write(json.dumps(secret).encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""
