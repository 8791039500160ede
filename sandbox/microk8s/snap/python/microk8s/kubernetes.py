"""kubectl, and requests of commands and daemons to the cluster."""

import http.client
import json
import ssl
import subprocess
import time

from microk8s import paths
from microk8s.paths import CERTS, CREDENTIALS, SNAP, WORKER


def kubectl(*words: str, given: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(kubectl_command(*words), input=given, capture_output=True, text=True)


def kubectl_command(*words: str) -> list[str]:
    return [str(SNAP / "bin/kubectl"), f"--kubeconfig={CREDENTIALS / 'client.config'}", *words]


def get(path: str) -> dict:
    """The response of the API server at `path`, with kube-proxy's rights. May raise OSError,
    HTTPException or ValueError.
    """
    authority = CERTS / ("ca.remote.crt" if WORKER.exists() else "ca.crt")
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(CERTS / "proxy.crt", CERTS / "proxy.key")
    # On a worker, this port is the proxy to any API server (apiserver_proxy.py).
    connection = http.client.HTTPSConnection(
        "127.0.0.1", paths.API_PORT, context=context, timeout=5
    )
    try:
        connection.request("GET", path)
        return json.load(connection.getresponse())
    finally:
        connection.close()


def is_ready() -> bool:
    """As in the real snap: the API returns its own service, and a node is Ready."""
    services = kubectl("get", "service/kubernetes", "--no-headers").stdout
    return "kubernetes" in services and " Ready " in kubectl("get", "nodes").stdout


def wait_for_ready(timeout: float) -> bool:
    """A timeout of 0 means to wait forever, as in the real snap."""
    deadline = time.monotonic() + timeout
    while not is_ready():
        if timeout and time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


def api_address() -> str:
    return f"{paths.default_address()}:{paths.API_PORT}"
