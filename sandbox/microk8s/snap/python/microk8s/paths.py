"""Paths. The names are those of the real snap, because roles and people expect them."""

import os
import socket
from pathlib import Path

SNAP = Path(os.environ.get("SNAP", "/snap/microk8s/current"))
COMMON = Path(os.environ.get("SNAP_COMMON", "/var/snap/microk8s/common"))
DATA = Path(os.environ.get("SNAP_DATA", "/var/snap/microk8s/current"))

ADDONS = SNAP / "addons"
ARGS = DATA / "args"
BACKEND = DATA / "var/kubernetes/backend"
CERTS = DATA / "certs"
CREDENTIALS = DATA / "credentials"
LAUNCH = COMMON / "etc/launcher/install.yaml"
LOCKS = DATA / "var/lock"
SIDELOAD = COMMON / "etc/sideload"
CONTAINERD_SOCKET = COMMON / "run/containerd.sock"

# Exists after `microk8s stop`.
STOPPED = LOCKS / "stopped.lock"
# Exists while this node is a worker of another node's cluster.
WORKER = LOCKS / "clustered.lock"

API_PORT = 16443
AGENT_PORT = 25000


def environment() -> dict[str, str]:
    """The environment for dynamically linked programs of the snap, which brings their libraries."""
    return os.environ | {"LD_LIBRARY_PATH": f"{SNAP}/lib", "XTABLES_LIBDIR": f"{SNAP}/lib/xtables"}


def node_name() -> str:
    return socket.gethostname().lower()


def default_address() -> str:
    """The address of the interface with the default route, or the loopback address without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks for a route
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]
