"""host_status reports what runs, and names what does not respond."""

import base64
import json
import os
import shlex
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CHAT = {"app.kubernetes.io/part-of": "baremetal-chat", "app.kubernetes.io/name": "chat"}
METRICS = """\
# HELP chat_clients Connected clients.
chat_clients 3.0
chat_relay_lag_records{partition="0"} 2.0
chat_relay_lag_records{partition="1"} 5.0
chat_clients_of_another_kind 9.0
"""


def pod(name, phase="Running", labels=CHAT):
    ports = [{"name": "web", "containerPort": 8080}, {"name": "internal", "containerPort": 9090}]
    return {
        "kind": "Pod",
        "metadata": {"namespace": "chat", "name": name, "labels": labels},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"phase": phase},
    }


def workload(kind, name, status, labels, **spec):
    template = {"spec": {"containers": [{"image": f"{name}:1"}]}}
    return {
        "kind": kind,
        "metadata": {"namespace": name, "name": name, "labels": labels},
        "spec": {"template": template, **spec},
        "status": status,
    }


def lease(name, holder):
    times = {
        "acquireTime": "2026-11-30T19:02:48.449479Z",
        "renewTime": "2026-11-30T19:03:48.123456Z",
    }
    return {
        "kind": "Lease",
        "metadata": {"namespace": "kube-system", "name": name},
        "spec": {"holderIdentity": holder, **times},
    }


OBJECTS = {
    "items": [
        {
            "kind": "Node",
            "metadata": {"name": "chat1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        },
        {
            "kind": "Node",
            "metadata": {"name": "chat2"},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        },
        workload("Deployment", "chat", {"readyReplicas": 1}, CHAT, replicas=2),
        workload("DaemonSet", "cni", {"numberReady": 1, "desiredNumberScheduled": 2}, {}),
        lease("apiserver-abc", "apiserver-abc_1"),
        workload("Deployment", "kube-controller-manager", {}, {}),
        lease("kube-controller-manager", "chat_1_8b4f"),
        pod("chat-a"),
        pod("chat-b"),
        pod("chat-c", phase="Pending"),
        pod("stranger", labels={}),
    ]
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate in PEM that expires in ten days and some hours."""
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 11"
    files = ["-keyout", folder / "key", "-out", folder / "certificate"]
    subprocess.run([*command.split(), "-subj", "/CN=x", *files], check=True, capture_output=True)
    return (folder / "certificate").read_text()


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Makes a command that runs a shell script and is first in PATH."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def make(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def cluster(command, certificate):
    """A stand-in for the command microk8s on a cluster host. The pod chat-b does not respond."""
    command(
        "snap", "printf 'Name Version\\nmicrok8s v1.36.3 8100 1.36/stable canonical classic\\n'"
    )
    secret = base64.b64encode(certificate.encode()).decode()
    return command(
        "microk8s",
        f"""case "$*" in
          *" nodes,"*) echo {shlex.quote(json.dumps(OBJECTS))} ;;
          *" secrets "*) echo chat/chat-tls {secret} ;;
          *"/namespaces/chat/pods/chat-a:9090/proxy/metrics"*) echo {shlex.quote(METRICS)} ;;
          *) echo "no such pod" >&2; exit 1 ;;
        esac""",
    )


@pytest.fixture
def registry():
    """A registry with two images."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"repositories": ["chat", "other"]}')

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_state_of_a_cluster_is_reported(run_module, cluster, registry, monkeypatch):
    # The module must not use the proxy.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    seen = run_module("host_status", cluster=True, microk8s=cluster, registry=registry)
    assert seen["problems"] == {}
    assert seen["microk8s"] == "v1.36.3 (1.36/stable)"
    assert seen["nodes"] == {"chat1": True, "chat2": False}
    assert seen["controllers"]["leader"] == "chat_1"
    assert seen["controllers"]["silent"] > 60
    assert seen["registry"] == 2
    assert seen["certificates"] == {"chat/chat-tls": 10}
    assert seen["replicas"] == {"chat-a": {"clients": 3, "behind": 7}, "chat-b": None}
    chat, cni, _ = seen["workloads"]
    assert (chat["ready"], chat["wanted"], chat["ours"]) == (1, 2, True)
    assert (cni["ready"], cni["wanted"], cni["ours"]) == (1, 2, False)
    assert cni["images"] == ["cni:1"]


def test_parts_that_do_not_respond_are_named_and_the_others_reported(run_module, cluster, command):
    command("snap", "exec sleep 60")
    command("microk8s", "echo 'connection to the server was refused' >&2; exit 1")
    seen = run_module(
        "host_status", cluster=True, microk8s=cluster, registry="127.0.0.1:1", timeout=1
    )
    assert seen["failed"] is False
    assert seen["problems"] == {
        "microk8s": "no answer within 1 s",
        "registry": "[Errno 111] Connection refused",
        "cluster": "connection to the server was refused",
        "secrets": "connection to the server was refused",
    }
    assert seen["nodes"] == {}


def test_all_queries_share_one_timeout(run_module, command, registry, tmp_path):
    # A query that depends on another one gets the remaining time.
    asked = tmp_path / "asked"
    microk8s = command(
        "microk8s",
        f"""echo "$*" >> {asked}
        case "$*" in
          *" nodes,"*) sleep 1; echo {shlex.quote(json.dumps(OBJECTS))} ;;
          *"/proxy/metrics"*) echo {shlex.quote(METRICS)} ;;
        esac""",
    )
    seen = run_module("host_status", cluster=True, microk8s=microk8s, registry=registry, timeout=30)
    assert seen["replicas"]["chat-a"] == {"clients": 3, "behind": 7}
    limits = {
        "metrics" in line: float(line.rpartition("--request-timeout=")[2].removesuffix("s"))
        for line in asked.read_text().splitlines()
        if "secrets" not in line
    }
    assert 0 < limits[True] <= limits[False] - 1 <= 29


def test_a_worker_reports_only_itself(run_module, cluster, registry, command):
    """On a worker, kubectl refuses, with exit code 0."""
    command(
        "microk8s",
        "echo 'This MicroK8s deployment is acting as a node in a cluster.'\n"
        "echo 'Please use the control plane node.'",
    )
    seen = run_module("host_status", cluster=True, microk8s=cluster, registry=registry)
    assert seen["problems"] == {}
    assert seen["nodes"] == {}
    assert (seen["microk8s"], seen["registry"]) == ("v1.36.3 (1.36/stable)", 2)


def test_a_host_without_microk8s_has_one_problem(run_module, tmp_path):
    seen = run_module("host_status", cluster=True, microk8s=str(tmp_path / "none"))
    assert seen["problems"] == {"microk8s": "not installed"}


def test_a_units_version_is_that_of_its_process(run_module, command, tmp_path):
    home = tmp_path / "kafka_2.13-3.8.1-0123"
    (home / "libs").mkdir(parents=True)
    for jar in ("zookeeper-3.8.4.jar", "zookeeper-jute-3.8.4.jar"):
        (home / "libs" / jar).touch()
    with subprocess.Popen(["sleep", "60"]) as other:
        java = ["sh", "-c", "read line", "java", "-cp", f"{home}/libs/*", "kafka.Kafka"]
        with subprocess.Popen(java, stdin=subprocess.PIPE) as process:
            command(
                "systemctl",
                f"""case "$*" in
                  *other) echo ActiveState=active; echo MainPID={other.pid} ;;
                  *stopped) echo ActiveState=failed; echo MainPID=0 ;;
                  *) echo ActiveState=active; echo MainPID={process.pid} ;;
                esac""",
            )
            units = ["kafka", "zookeeper", "other", "stopped"]
            seen = run_module("host_status", services=units)["services"]
            process.stdin.close()
        other.kill()
    assert seen == {
        "kafka": {"state": "active", "version": "3.8.1"},
        "zookeeper": {"state": "active", "version": "3.8.4"},
        "other": {"state": "active", "version": ""},
        "stopped": {"state": "failed", "version": ""},
    }


def test_certificates_are_found_by_pattern_and_keys_are_skipped(run_module, certificate, tmp_path):
    key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    (tmp_path / "broker.pem").write_text(key + certificate)
    (tmp_path / "key.pem").write_text(key)
    seen = run_module("host_status", certificates=[f"{tmp_path}/*.pem", "/nonexistent/*"])
    assert seen["certificates"] == {str(tmp_path / "broker.pem"): 10}


# Days in total and days left: of a certificate renewed by an operator, and of automatic ones.
@pytest.mark.parametrize(
    ("lifetime", "left", "ending"),
    [
        (397, 31, False),
        (397, 29, True),
        (90, 29, False),
        (90, 22, True),
        (6, 2, False),
        (6, 1, True),
    ],
)
def test_a_certificate_that_is_overdue_for_renewal_is_marked(
    run_module, tmp_path, lifetime, left, ending
):
    now = datetime.now(UTC)
    ends = now + timedelta(days=left, hours=1)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1)
    made = made.not_valid_before(ends - timedelta(days=lifetime)).not_valid_after(ends)
    signed = made.sign(key, hashes.SHA256())
    path = tmp_path / "chat.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    seen = run_module("host_status", certificates=[str(path)])
    assert seen["certificates"] == {str(path): left}
    assert seen["ending"] == ([str(path)] if ending else [])
