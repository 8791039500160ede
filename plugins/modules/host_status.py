#!/usr/bin/python
"""Ansible module host_status: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_status
short_description: Tell what runs on a host, and what its cluster and registry say
description:
  - >-
    Asks systemd, the programs' own files, and, on a host with MicroK8s, the cluster and its
    registry, all at once, and ends after C(timeout) seconds. What has not answered until then is
    reported; it is no failure. It changes nothing and needs nothing but Python; run it as root.
  - >-
    Each host of a cluster asks the cluster itself, so that any of them can be down. A worker has no
    API server, and tells of itself alone.
options:
  services:
    description: Units whose state is wanted, without C(.service).
    type: list
    elements: str
    default: []
  certificates:
    description: >-
      Certificates in PEM; patterns as of a shell. Of a file, the first one counts. Files without
      one are left out.
    type: list
    elements: str
    default: []
  cluster:
    description: Whether this is a host of the cluster.
    type: bool
    default: false
  microk8s:
    description: The command of MicroK8s.
    type: path
    default: /snap/bin/microk8s
  registry:
    description: The cluster's own registry, as this host reaches it.
    type: str
    default: localhost:32000
  timeout:
    description: Seconds to wait for all answers.
    type: int
    default: 5
extends_documentation_fragment: [baremetal_chat.platform.read_only]
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: See what runs
  baremetal_chat.platform.host_status:
    services: [zookeeper, kafka]
    cluster: true
"""

RETURN = r"""
services:
  description: >-
    For each unit its C(state) as systemd calls it, and the C(version) of Kafka or ZooKeeper that
    its process runs; empty for other programs, and when there is no process.
  returned: always
  type: dict
  sample: {"kafka": {"state": active, "version": 3.8.1}}
certificates:
  description: Days until each certificate ends, by its path or, in the cluster, its secret.
  returned: always
  type: dict
  sample: {"chat/chat-tls": 61}
ending:
  description: >-
    Names of those in C(certificates) that should have been renewed. They end in less than 30 days,
    and in less than a quarter of their lifetime; the second matters for those that are renewed by
    themselves when a third of it is left.
  returned: always
  type: list
  elements: str
  sample: []
microk8s:
  description: Version and channel of MicroK8s, empty where it is not installed.
  returned: always
  type: str
  sample: v1.36.3 (1.36/stable)
registry:
  description: How many images the registry has, or null.
  returned: always
  type: int
  sample: 1
nodes:
  description: For each node of the cluster whether it is ready.
  returned: always
  type: dict
  sample: {"chat1": true}
controllers:
  description: >-
    The node that leads Kubernetes' controllers, C(leader), and the seconds since it last renewed
    its lease, C(silent), by this host's clock; null if the cluster's only control plane leads
    without an election.
  returned: always
  type: dict
  sample: {"leader": "chat1", "silent": 1}
workloads:
  description: >-
    Deployments, daemon sets and stateful sets, each with C(name) as C(NAMESPACE/NAME), C(ready) and
    C(wanted) pods and C(images); C(ours) are those of this project.
  returned: always
  type: list
  elements: dict
  sample:
    - name: chat/chat
      ready: 2
      wanted: 2
      images: ["localhost:32000/chat"]
      ours: true
replicas:
  description: >-
    For each running pod of the chat what it says of itself, C(clients) and C(behind), records of
    the log that it has not read; null for one that does not answer.
  returned: always
  type: dict
  sample: {"chat-5b8f7d9c6d-8xk2p": {"clients": 3, "behind": 0}}
problems:
  description: What did not answer, and why.
  returned: always
  type: dict
  sample: {"registry": "Connection refused"}
"""

import base64
import contextlib
import json
import re
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

DAY = 86400
SOON = 30 * DAY
PART_OF = ("app.kubernetes.io/part-of", "baremetal-chat")
OBJECTS = "nodes,deployments.apps,daemonsets.apps,statefulsets.apps,pods,leases.coordination.k8s.io"
# Namespace and name of the lease that their leader renews.
CONTROLLERS = ("kube-system", "kube-controller-manager")
# MicroK8s prints this, and exits with 0, on a worker, which has no API server.
WORKER = "acting as a node in a cluster"
# One line for each certificate that the cluster serves. Private keys are not requested.
CERTIFICATES = (
    'jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {.data.tls\\.crt}{"\\n"}{end}'
)


class Deadline:
    """The end of the module: all answers share its seconds."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def missed(self) -> OSError:
        return OSError(f"no answer within {self._seconds} s")

    def left(self) -> float:
        """Seconds that are left, more than 0. Raises OSError if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise self.missed
        return left


def run(deadline: Deadline, *command: str, given: bytes | None = None) -> str:
    """The output of a command. If it fails, raises OSError with the last line of its output."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=deadline.left())
    except subprocess.TimeoutExpired:
        raise deadline.missed from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise OSError(said.splitlines()[-1] if said else f"exit code {done.returncode}")
    return done.stdout.decode(errors="replace")


# --- the host ---------------------------------------------------------------------------------


def version(pid: str, service: str) -> str:
    """The version of Kafka or ZooKeeper, from the directory the process was started from."""
    arguments = Path("/proc", pid, "cmdline").read_text(errors="replace")
    found = re.search(r"(/[^\0:=]*/kafka_[\d.]+-(\d+\.\d+\.\d+)[^\0:/]*)/libs/", arguments)
    if not found:
        return ""
    if service != "zookeeper":
        return found[2]
    jars = Path(found[1], "libs").glob("zookeeper-[0-9]*.jar")
    return next((jar.stem.partition("-")[2] for jar in jars), "")


def services(names: list[str], deadline: Deadline) -> dict[str, dict[str, str]]:
    """The values for units described in RETURN."""
    found = {}
    for name in names:
        shown = run(deadline, "systemctl", "show", "--property=ActiveState,MainPID", name)
        properties = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        found[name] = {"state": properties["ActiveState"], "version": ""}
        # The process may end meanwhile.
        with contextlib.suppress(OSError):
            if properties["MainPID"] != "0":
                found[name]["version"] = version(properties["MainPID"], name)
    return found


class Certificate(NamedTuple):
    """Days until it expires (negative if it has expired), and whether it should have been
    renewed.
    """

    days: int
    ending: bool


def examined(certificate: bytes, deadline: Deadline) -> Certificate:
    """The first certificate of a text in PEM."""
    shown = run(deadline, "openssl", "x509", "-noout", "-startdate", "-enddate", given=certificate)
    begins, ends = (ssl.cert_time_to_seconds(line.partition("=")[2]) for line in shown.splitlines())
    left = ends - time.time()
    return Certificate(int(left // DAY), left < min(SOON, (ends - begins) / 4))


def certificates(patterns: list[str], deadline: Deadline) -> dict[str, Certificate]:
    """The files that contain a certificate."""
    found = {}
    root = Path("/")
    for path in sorted({path for given in patterns for path in root.glob(given.lstrip("/"))}):
        content = path.read_bytes() if path.is_file() else b""
        if b"-----BEGIN CERTIFICATE-----" in content:
            found[str(path)] = examined(content, deadline)
    return found


# --- the cluster ------------------------------------------------------------------------------


def snap(deadline: Deadline) -> str:
    """Version and channel, from the columns of `snap list`."""
    _, release, _, channel, *_ = run(deadline, "snap", "list", "microk8s").splitlines()[-1].split()
    return f"{release} ({channel})"


def registry(address: str, deadline: Deadline) -> int:
    """The number of images in the registry. Ignores any proxy in the environment."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://{address}/v2/_catalog", timeout=deadline.left()) as answer:
        return len(json.load(answer)["repositories"])


def ready(node: dict[str, Any]) -> bool:
    return any(
        (condition["type"], condition["status"]) == ("Ready", "True")
        for condition in node["status"].get("conditions", [])
    )


def workload(found: dict[str, Any]) -> dict[str, Any]:
    """The values for a workload described in RETURN."""
    status, daemons = found["status"], found["kind"] == "DaemonSet"
    return {
        "name": f"{found['metadata']['namespace']}/{found['metadata']['name']}",
        "ready": status.get("numberReady" if daemons else "readyReplicas", 0),
        "wanted": status.get("desiredNumberScheduled", 0)
        if daemons
        else found["spec"].get("replicas", 1),
        "images": [each["image"] for each in found["spec"]["template"]["spec"]["containers"]],
        "ours": PART_OF in found["metadata"].get("labels", {}).items(),
    }


def of_controllers(lease: dict[str, Any]) -> bool:
    """Whether it is the lease of the controllers' leader, and had one."""
    name = (lease["metadata"]["namespace"], lease["metadata"]["name"])
    return name == CONTROLLERS and "renewTime" in lease["spec"]


def leadership(lease: dict[str, Any]) -> dict[str, Any]:
    """The value C(controllers) described in RETURN."""
    renewed = datetime.fromisoformat(lease["spec"]["renewTime"].replace("Z", "+00:00"))
    return {
        # The name of the node, and an id of the process.
        "leader": lease["spec"]["holderIdentity"].rpartition("_")[0],
        "silent": int(time.time() - renewed.timestamp()),
    }


def metrics_path(pod: dict[str, Any]) -> str:
    """The API path that fetches a replica's metrics."""
    (port,) = [
        port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container["ports"]
        if port["name"] == "internal"
    ]
    name = pod["metadata"]
    return f"/api/v1/namespaces/{name['namespace']}/pods/{name['name']}:{port}/proxy/metrics"


def measured(text: str) -> dict[str, int]:
    """The metrics of a replica that the status shows."""
    values = re.findall(r"^(chat_clients|chat_relay_lag_records)(?:\{.*\})? (\S+)$", text, re.M)
    sums = {"chat_clients": 0, "chat_relay_lag_records": 0}
    for name, value in values:
        sums[name] += int(float(value))
    return {"clients": sums["chat_clients"], "behind": sums["chat_relay_lag_records"]}


class WorkerError(Exception):
    """The host is a worker, so other hosts report the cluster."""


class Cluster:
    """The state reported by this host's API server. Raises WorkerError on a host without one."""

    def __init__(self, command: str, deadline: Deadline) -> None:
        self._command = command
        self._deadline = deadline

    def kubectl(self, *arguments: str) -> str:
        limit = f"--request-timeout={self._deadline.left():.3f}s"
        said = run(self._deadline, self._command, "kubectl", *arguments, limit)
        if WORKER in said[:200]:
            raise WorkerError
        return said

    def objects(self) -> dict[str, Any]:
        """Nodes, controllers, workloads, and the chat's replicas with their metrics."""
        listed = self.kubectl("get", OBJECTS, "--all-namespaces", "--output=json")
        items = json.loads(listed)["items"]
        chats = [
            item
            for item in items
            if item["kind"] == "Pod"
            and PART_OF in item["metadata"].get("labels", {}).items()
            and item["metadata"]["labels"].get("app.kubernetes.io/name") == "chat"
            and item["status"].get("phase") == "Running"
        ]
        with ThreadPoolExecutor(8) as pool:
            names = [pod["metadata"]["name"] for pod in chats]
            replicas = dict(zip(names, pool.map(self.replica, chats), strict=True))
        return {
            "nodes": {i["metadata"]["name"]: ready(i) for i in items if i["kind"] == "Node"},
            "controllers": next(
                (leadership(i) for i in items if i["kind"] == "Lease" and of_controllers(i)), None
            ),
            "workloads": [workload(i) for i in items if "template" in i.get("spec", {})],
            "replicas": replicas,
        }

    def replica(self, pod: dict[str, Any]) -> dict[str, int] | None:
        try:
            return measured(self.kubectl("get", "--raw", metrics_path(pod)))
        except OSError:
            return None

    def certificates(self) -> dict[str, Certificate]:
        """The certificates in TLS secrets, which include those that Traefik serves."""
        kind = "--field-selector=type=kubernetes.io/tls"
        listed = self.kubectl("get", "secrets", "--all-namespaces", kind, "--output", CERTIFICATES)
        return {
            name: examined(base64.b64decode(content), self._deadline)
            for name, content in (line.split() for line in listed.splitlines())
        }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "services": {"type": "list", "elements": "str", "default": []},
            "certificates": {"type": "list", "elements": "str", "default": []},
            "cluster": {"type": "bool", "default": False},
            "microk8s": {"type": "path", "default": "/snap/bin/microk8s"},
            "registry": {"type": "str", "default": "localhost:32000"},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    deadline = Deadline(wanted["timeout"])
    questions: dict[str, Callable[[], Any]] = {
        "services": lambda: services(wanted["services"], deadline),
        "certificates": lambda: certificates(wanted["certificates"], deadline),
    }
    problems = {}
    if wanted["cluster"] and not Path(wanted["microk8s"]).exists():
        problems["microk8s"] = "not installed"
    elif wanted["cluster"]:
        cluster = Cluster(wanted["microk8s"], deadline)
        questions |= {
            "microk8s": lambda: snap(deadline),
            "registry": lambda: registry(wanted["registry"], deadline),
            "cluster": cluster.objects,
            "secrets": cluster.certificates,
        }
    seen: dict[str, Any] = {}
    with ThreadPoolExecutor(len(questions)) as pool:
        asked = {name: pool.submit(question) for name, question in questions.items()}
    for name, answer in asked.items():
        try:
            seen[name] = answer.result()
        except WorkerError:
            pass
        except (OSError, ValueError) as problem:
            problems[name] = str(getattr(problem, "reason", problem))
    known = seen.get("certificates", {}) | seen.get("secrets", {})
    module.exit_json(
        changed=False,
        services=seen.get("services", {}),
        certificates={name: certificate.days for name, certificate in known.items()},
        ending=[name for name, certificate in known.items() if certificate.ending],
        microk8s=seen.get("microk8s", ""),
        registry=seen.get("registry"),
        **{"nodes": {}, "controllers": None, "workloads": [], "replicas": {}}
        | seen.get("cluster", {}),
        problems=problems,
    )


if __name__ == "__main__":
    main()
