"""kubectl, and what the commands ask the cluster."""

import subprocess
import time

from microk8s import paths
from microk8s.paths import CREDENTIALS, SNAP


def kubectl(*words: str, given: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(kubectl_command(*words), input=given, capture_output=True, text=True)


def kubectl_command(*words: str) -> list[str]:
    return [str(SNAP / "bin/kubectl"), f"--kubeconfig={CREDENTIALS / 'client.config'}", *words]


def is_ready() -> bool:
    """As the real snap has it: the API answers with its own service, and some node is Ready."""
    services = kubectl("get", "service/kubernetes", "--no-headers").stdout
    return "kubernetes" in services and " Ready " in kubectl("get", "nodes").stdout


def wait_for_ready(timeout: float) -> bool:
    """Without a timeout (0) this waits for ever, as the real one does."""
    deadline = time.monotonic() + timeout
    while not is_ready():
        if timeout and time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


def api_address() -> str:
    return f"{paths.default_address()}:{paths.API_PORT}"
