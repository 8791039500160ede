"""More nodes: add-node, join, leave, remove-node. Only workers join: there is one database, etcd's.

A node that joins asks the cluster agent of the first one, with a token, for the authority's
certificate and the kubelet's flags, and has its own two certificates signed (kubelet, kube-proxy).
When it leaves it starts again as a cluster of its own.
"""

import hashlib
import http.client
import json
import secrets
import shutil
import ssl
import sys
import time

from microk8s import arguments, certificates, kubernetes, paths, services
from microk8s.network import CONTROL_PLANE
from microk8s.paths import ARGS, BACKEND, CERTS, CREDENTIALS, LOCKS, WORKER

TOKENS = CREDENTIALS / "cluster-tokens.txt"
PERSISTENT = CREDENTIALS / "persistent-cluster-token"
CALLBACK = CREDENTIALS / "callback-token.txt"
TOKEN_LENGTH = 32
FINGERPRINT_LENGTH = 12
API = "/cluster/api"
WORKER_LABELS = "microk8s.io/cluster=true,node.kubernetes.io/microk8s-worker=microk8s-worker"
SKIP = "Use '--skip-verify' to skip server certificate check."


def add_token(token: str | None, ttl: int) -> str:
    """Accept a token for TTL seconds, or once (-1)."""
    token = token or secrets.token_hex(TOKEN_LENGTH // 2)
    if len(token) < TOKEN_LENGTH:
        print("Invalid token size.  It must be 32 characters long.")
        sys.exit(1)
    with TOKENS.open("a") as file:
        file.write(f"{token}\n" if ttl == -1 else f"{token}|{int(time.time()) + ttl}\n")
    TOKENS.chmod(0o660)
    return token


def accept_token(token: str) -> bool:
    """Whether a node may join with this token; a token for one use is used up."""
    if PERSISTENT.exists() and PERSISTENT.read_text().strip() == token:
        return True
    lines = TOKENS.read_text().splitlines() if TOKENS.exists() else []
    for line in lines:
        known, _, expiry = line.partition("|")
        if known == token:
            if expiry:
                return time.time() < int(expiry)
            TOKENS.write_text("".join(f"{each}\n" for each in lines if each != line))
            return True
    return False


def callback_token() -> str:
    """What the nodes of one cluster know each other by."""
    if not CALLBACK.exists():
        CALLBACK.write_text(secrets.token_hex(32))
        CALLBACK.chmod(0o660)
    return CALLBACK.read_text().strip()


class Agent:
    """The cluster agent of another node; the end of its URL, where given, proves who it is."""

    def __init__(self, address: str, fingerprint: str | None = None) -> None:
        context = ssl._create_unverified_context()  # there is no common authority yet
        self.connection = http.client.HTTPSConnection(address, context=context, timeout=20)
        try:
            self.connection.connect()
        except OSError as error:
            print(f"Connecting to cluster failed with {error}.")
            sys.exit(5)
        if fingerprint is None:
            return
        if len(fingerprint) < FINGERPRINT_LENGTH:
            print(f"Joining cluster failed. Fingerprint too short. {SKIP}")
            sys.exit(4)
        certificate = self.connection.sock.getpeercert(binary_form=True)
        if not hashlib.sha256(certificate).hexdigest().startswith(fingerprint):
            server = address.split(":")[0]
            print(f"Joining cluster failed. Could not verify the identity of {server}. {SKIP}")
            sys.exit(4)

    def post(self, path: str, **body: object) -> dict:
        self.connection.request(
            "POST", API + path, json.dumps(body), {"Content-Type": "application/json"}
        )
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            print(f"Connection failed. {answer.get('error', '')} ({response.status}).")
            sys.exit(6)
        return answer


def join(url: str, worker: bool, verify: bool = True) -> None:
    address, _, rest = url.partition("/")
    token, _, check = rest.partition("/")
    if WORKER.exists():
        print("This MicroK8s deployment is acting as a node in a cluster.")
        sys.exit(1)
    if ":" not in address or not token:
        print(f"The connection string '{url}' is not ADDRESS:PORT/TOKEN[/CHECK].")
        sys.exit(1)
    if not worker:
        print("The stand-in has one control plane: join with '--worker'.")
        sys.exit(1)
    server = address.split(":")[0]
    print(f"Contacting cluster at {server}")
    agent = Agent(address, check if verify and check else None)
    name = paths.node_name()
    answer = agent.post(
        "/v2.0/join", token=token, hostname=name, port=paths.AGENT_PORT, worker=worker
    )

    services.stop("kubelite", "k8s-dqlite")
    (CERTS / "ca.remote.crt").write_text(answer["ca"])
    shutil.copyfile(ARGS / "kubelet", ARGS / "kubelet.backup")
    (ARGS / "kubelet").write_text(answer["kubelet_args"])
    arguments.change(
        "kubelet",
        {
            "--client-ca-file": "${SNAP_DATA}/certs/ca.remote.crt",
            "--node-labels": WORKER_LABELS,
        },
    )
    for program, common_name, organisation in (
        ("kubelet", f"system:node:{name}", "system:nodes"),
        ("proxy", "system:kube-proxy", None),
    ):
        request = certificates.make_request(program, common_name, organisation)
        addresses = [name, paths.default_address()] if program == "kubelet" else []
        signed = agent.post(
            "/v1.0/sign-cert", token=f"{token}-{program}", request=request, addresses=addresses
        )
        (CERTS / f"{program}.crt").write_text(signed["certificate"])
        certificates.write_kubeconfig(
            f"{program}.config", program, f"{server}:{answer['apiport']}", "ca.remote.crt"
        )
    CALLBACK.write_text(answer["callback_token"])
    certificates.protect()
    CONTROL_PLANE.write_text(f"{server}\n")
    for lock in (WORKER, LOCKS / "no-k8s-dqlite"):
        lock.touch()
    services.start("kubelite")
    print("\nThe node has joined the cluster and will appear in the nodes list in a few seconds.\n")
    print("Successfully joined the cluster.")


def leave() -> None:
    if not WORKER.exists():
        print("Not in clustering mode.")
        sys.exit(2)
    print("Configuring services.")
    services.stop("kubelite", "k8s-dqlite")
    for file in (WORKER, LOCKS / "no-k8s-dqlite", CONTROL_PLANE, CERTS / "ca.remote.crt"):
        file.unlink(missing_ok=True)
    print("Generating new cluster certificates.")
    shutil.rmtree(BACKEND, ignore_errors=True)
    # The real one goes back to the default flags; some machines need those that were given.
    shutil.copyfile(ARGS / "kubelet.backup", ARGS / "kubelet")
    certificates.make_all()
    services.start("k8s-dqlite", "kubelite")
    print("Waiting for node to start.")
    kubernetes.wait_for_ready(timeout=60)


def remove_node(name: str, force: bool) -> None:
    nodes = json.loads(kubernetes.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    for node in nodes:
        addresses = {each["address"] for each in node["status"]["addresses"]}
        if name in addresses:
            name = node["metadata"]["name"]
            break
    else:
        print(f"Node {name} does not exist in Kubernetes.")
        sys.exit(1)
    labels = node["metadata"]["labels"]
    if "node.kubernetes.io/microk8s-controlplane" in labels and not force:
        print(
            f"Removal failed. Node {name} is registered with dqlite. "
            "Please, run first 'microk8s leave' on the departing node. "
        )
        sys.exit(1)
    kubernetes.kubectl("delete", "node", name)
