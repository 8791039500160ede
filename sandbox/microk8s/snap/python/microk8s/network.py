"""The pod network, in place of Calico: a bridge and a /24 per node, and routes to the others'.

The controller manager gives each node its /24. This thread of kubelite writes the node's CNI
configuration when it learns it, which makes the node Ready, and keeps the routes: they are gone
after every restart, and nodes come and go.
"""

import http.client
import json
import ssl
import subprocess
import time
from pathlib import Path

from microk8s import paths
from microk8s.paths import ARGS, CERTS, WORKER

PODS = "10.1.0.0/16"
CONFIGURATION = ARGS / "cni-network/10-bridge.conflist"
CONTROL_PLANE = paths.LOCKS / "control-plane"  # on a worker: the address of its API server


def keep() -> None:
    masquerade()
    configured: object = None
    while True:
        try:
            nodes = list_nodes()
        except (OSError, http.client.HTTPException, ValueError):
            nodes = {}  # the API server is away: what is set stays
        mine = nodes.pop(paths.node_name(), (None, None))[1]
        wanted = (mine, nodes)
        if mine and wanted != configured:
            write_configuration(mine)
            for address, subnet in nodes.values():
                if subnet:
                    subprocess.run(["ip", "route", "replace", subnet, "via", address], check=False)
            configured = wanted
        time.sleep(5 if configured else 0.3)


def list_nodes() -> dict[str, tuple[str, str | None]]:
    """The nodes' internal addresses and pod networks, by name."""
    authority = CERTS / ("ca.remote.crt" if WORKER.exists() else "ca.crt")
    server = CONTROL_PLANE.read_text().strip() if WORKER.exists() else "127.0.0.1"
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(CERTS / "proxy.crt", CERTS / "proxy.key")
    connection = http.client.HTTPSConnection(server, paths.API_PORT, context=context, timeout=5)
    try:
        connection.request("GET", "/api/v1/nodes")
        items = json.load(connection.getresponse()).get("items", [])
    finally:
        connection.close()
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
    """Pods reach each other as themselves and everything else by their node's address."""
    rule = ["POSTROUTING", "-s", PODS, "!", "-d", PODS, "-j", "MASQUERADE"]
    for action in ("-C", "-A"):  # add it unless it is there
        command = ["iptables", "-w", "-t", "nat", action, *rule]
        if (
            subprocess.run(command, env=paths.environment(), stderr=subprocess.DEVNULL).returncode
            == 0
        ):
            return


def write_configuration(subnet: str) -> None:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        # Kept where a restart of the host clears it, because no pod survives one.
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": subnet}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni-addresses",
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    text = json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}, indent=2)
    new = Path(f"{CONFIGURATION}.new")
    new.write_text(text)
    new.replace(CONFIGURATION)
