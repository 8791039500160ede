"""The pod network instead of Calico: a bridge and a /24 per node, and routes to the others.

The controller manager assigns a /24 to each node. This thread of kubelite writes the node's CNI
configuration when it learns the /24, which makes the node Ready. It also maintains the routes,
which are lost at every restart, and change as nodes come and go.
"""

import http.client
import json
import subprocess
import time
from pathlib import Path

from microk8s import kubernetes, paths
from microk8s.paths import ARGS

PODS = "10.1.0.0/16"
CONFIGURATION = ARGS / "cni-network/10-bridge.conflist"
BRIDGE = "cni0"
PROTOCOL = "200"  # marks our routes among the host's


def keep() -> None:
    masquerade()
    configured: object = None
    while True:
        try:
            nodes = list_nodes()
        except (OSError, http.client.HTTPException, ValueError):
            nodes = {}  # the API server is down: keep the routes
        mine = nodes.pop(paths.node_name(), (None, None))[1]
        wanted = (mine, nodes)
        if mine and wanted != configured:
            write_configuration(mine)
            write_routes({subnet: address for address, subnet in nodes.values() if subnet})
            configured = wanted
        time.sleep(5 if configured else 0.3)


def list_nodes() -> dict[str, tuple[str, str | None]]:
    """The nodes' internal addresses and pod networks, by name."""
    items = kubernetes.get("/api/v1/nodes").get("items", [])
    return {
        node["metadata"]["name"]: (
            next(
                (
                    a["address"]
                    for a in node["status"].get("addresses", [])
                    if a["type"] == "InternalIP"
                ),
                "",
            ),
            node["spec"].get("podCIDR"),
        )
        for node in items
    }


def masquerade() -> None:
    """Pods use their own addresses among each other, and their node's address for everything
    else.
    """
    rule = ["POSTROUTING", "-s", PODS, "!", "-d", PODS, "-j", "MASQUERADE"]
    for action in ("-C", "-A"):  # add it unless it is there
        command = ["iptables", "-w", "-t", "nat", action, *rule]
        if (
            subprocess.run(command, env=paths.environment(), stderr=subprocess.DEVNULL).returncode
            == 0
        ):
            return


def write_routes(wanted: dict[str, str]) -> None:
    """Set routes to the other nodes' pods. Remove those to nodes that are gone, because this node
    may have their network now.
    """
    ours = ["proto", PROTOCOL]
    listed = subprocess.run(["ip", "-json", "route", "show", *ours], capture_output=True, text=True)
    for route in json.loads(listed.stdout or "[]"):
        if wanted.get(route["dst"]) != route["gateway"]:
            subprocess.run(["ip", "route", "delete", route["dst"], *ours], check=False)
    for subnet, address in wanted.items():
        subprocess.run(["ip", "route", "replace", subnet, "via", address, *ours], check=False)


def write_configuration(subnet: str) -> None:
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        # In a directory that a reboot clears, because no pod survives a reboot.
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": subnet}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni-addresses",
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    text = json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}, indent=2)
    if CONFIGURATION.exists() and CONFIGURATION.read_text() != text:
        # The bridge still has an address from this node's network in another cluster.
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)
    new = Path(f"{CONFIGURATION}.new")
    new.write_text(text)
    new.replace(CONFIGURATION)
