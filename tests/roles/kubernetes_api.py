"""A stand-in for the Kubernetes API of a cluster with one node, this machine, on a loopback port.

Applied objects replace existing ones, are not validated, and are ready at once. As in a cluster, an
object without `data` keeps the data that others wrote, and the answer contains it. As in a cluster,
a dry run in a missing namespace is refused. Unlike in a cluster, applying an object there is not.
A Deployment's ReplicaSet is the Deployment itself.
"""

from __future__ import annotations

import json
import platform
import re
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

NODE = {
    "metadata": {"name": platform.node()},
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [
            {"type": "InternalIP", "address": "192.0.2.11"},
            {"type": "Hostname", "address": platform.node()},
        ],
    },
}


def resource(kind: str, *, namespaced: bool = False) -> dict[str, Any]:
    return {
        "name": f"{kind.lower()}s",
        "singularName": kind.lower(),
        "kind": kind,
        "namespaced": namespaced,
        "verbs": ["create", "delete", "get", "list", "patch"],
    }


NAMESPACED = {
    "apps/v1": ["DaemonSet", "Deployment", "ReplicaSet"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "batch/v1": ["CronJob"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
    "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"],
    "traefik.io/v1alpha1": ["IngressRoute", "Middleware", "TLSOption", "TLSStore"],
}
CLUSTER_WIDE = {
    "apiextensions.k8s.io/v1": ["CustomResourceDefinition"],
    "rbac.authorization.k8s.io/v1": ["ClusterRole", "ClusterRoleBinding"],
}


def group(version: str) -> dict[str, Any]:
    known = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [known], "preferredVersion": known}


ANSWERS: dict[str, dict[str, Any]] = {
    "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "groups": [group(version) for version in sorted(NAMESPACED | CLUSTER_WIDE)],
    },
    **{
        f"/apis/{version}": {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [
                *(resource(kind, namespaced=True) for kind in NAMESPACED.get(version, [])),
                *(resource(kind) for kind in CLUSTER_WIDE.get(version, [])),
            ],
        }
        for version in NAMESPACED | CLUSTER_WIDE
    },
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            resource("Node"),
            resource("Namespace"),
            *(
                resource(kind, namespaced=True)
                for kind in ("ConfigMap", "Pod", "Secret", "Service", "ServiceAccount")
            ),
        ],
    },
    "/api/v1/nodes": {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": [NODE]},
}


NAMESPACES = "/api/v1/namespaces"


def ready(item: dict[str, Any]) -> dict[str, Any]:
    """A status with which a workload is ready and a resource definition is established."""
    replicas = item.get("spec", {}).get("replicas")
    return {
        "conditions": [{"type": "Established", "status": "True"}],
        **dict.fromkeys(("replicas", "availableReplicas"), replicas),
        **dict.fromkeys(
            ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady"),
            1,
        ),
    }


def is_in(collection: str, path: str) -> bool:
    return path.rpartition("/")[0] == collection


def selects(selector: str, item: dict[str, Any]) -> bool:
    """Whether an object has the labels; `selector` has one term: `a=b` or `a in (b, c)`."""
    name, values = re.fullmatch(r"(\S+?) *(?:=| in) *\(?(.*?)\)?", selector).groups()
    return item["metadata"].get("labels", {}).get(name) in re.split(", *", values)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        objects = self.server.objects
        if kept := objects.get(path):
            self._answer({**kept, "status": ready(kept)})
        elif known := ANSWERS.get(path):
            self._answer(known)
        else:
            collection = path.replace("/replicasets", "/deployments")
            found = [one for key, one in objects.items() if is_in(collection, key)]
            for selector in parse_qs(query).get("labelSelector", []):
                found = [one for one in found if selects(selector, one)]
            for selector in parse_qs(query).get("fieldSelector", []):
                name = selector.removeprefix("metadata.name=")
                found = [one for one in found if one["metadata"]["name"] == name]
            self._answer({"kind": "List", "apiVersion": "v1", "items": found} if found else None)

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        meta = made["metadata"]
        if prefix := meta.pop("generateName", None):
            meta["name"] = f"{prefix}x7k2p"
        if "dryRun" not in query:
            self.server.objects[f"{path}/{meta['name']}"] = made
        self._answer(made)

    def do_DELETE(self) -> None:
        self._answer(self.server.objects.pop(self.path.partition("?")[0], None))

    def do_PATCH(self) -> None:
        path, _, query = self.path.partition("?")
        applied = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "dryRun" in query and not is_in(NAMESPACES, path):
            namespace = applied["metadata"].get("namespace")
            if namespace and f"{NAMESPACES}/{namespace}" not in self.server.objects:
                self._answer(None)
                return
        kept = self.server.objects.get(path, {})
        if "data" in kept:
            applied = {"data": kept["data"]} | applied
        if "dryRun" not in query:
            self.server.objects[path] = applied
        self._answer(applied)

    def _answer(self, answer: dict[str, Any] | None) -> None:
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer or {}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Stores objects by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, dict[str, Any]] = {}


class KubernetesApi:
    """Serves within the block. Its key and certificate are in `folder`."""

    def __init__(self, folder: Path) -> None:
        key, certificate = folder / "api.key", folder / "api.crt"
        subject = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=api"
        subprocess.run(
            ["openssl", *subject.split(), "-keyout", key, "-out", certificate],
            check=True,
            capture_output=True,
        )
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)

    def __enter__(self) -> Self:
        self._server = Server()
        self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def objects(self) -> dict[str, dict[str, Any]]:
        """The applied objects, by path in the API."""
        return self._server.objects

    def make_namespaces(self, *names: str) -> None:
        for name in names:
            meta = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self.objects[f"{NAMESPACES}/{name}"] = meta

    def make(self, item: dict[str, Any]) -> None:
        """Add an object of a namespace."""
        version, meta = item["apiVersion"], item["metadata"]
        path = NAMESPACES if version == "v1" else f"/apis/{version}/namespaces"
        path += f"/{meta['namespace']}/{item['kind'].lower()}s/{meta['name']}"
        self.objects[path] = item

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def kubeconfig(self) -> dict[str, Any]:
        """Like the one that `microk8s config` prints."""
        cluster = {"server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "microk8s", "cluster": cluster}],
            "contexts": [{"name": "microk8s", "context": {"cluster": "microk8s", "user": "admin"}}],
            "users": [{"name": "admin", "user": {"token": "none"}}],
            "current-context": "microk8s",
        }
