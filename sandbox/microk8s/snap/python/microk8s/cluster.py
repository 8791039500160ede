"""More nodes: add-node, join, leave, remove-node.

A joining node sends a token to the cluster agent of any control plane. A worker gets the CA's
certificate and the kubelet's flags, and has its own two certificates signed (kubelet, kube-proxy).
A control plane gets the CA's key as well, signs its own certificates, and starts a datastore member
next to the others (datastore.py). A node that leaves starts again as a separate cluster.
"""

import hashlib
import http.client
import json
import secrets
import shutil
import ssl
import sys
import time
from typing import NoReturn

from microk8s import (
    apiserver_proxy,
    arguments,
    certificates,
    containers,
    datastore,
    kubernetes,
    paths,
    services,
)
from microk8s.paths import ARGS, CERTS, CREDENTIALS, LOCKS, WORKER

TOKENS = CREDENTIALS / "cluster-tokens.txt"
PERSISTENT = CREDENTIALS / "persistent-cluster-token"
CALLBACK = CREDENTIALS / "callback-token.txt"
TOKEN_LENGTH = 32
FINGERPRINT_LENGTH = 12
API = "/cluster/api"
# Files that mark a worker, and services that do not run on it.
WORKER_LOCKS = (WORKER, LOCKS / "no-k8s-dqlite")
NO_PROXY = LOCKS / "no-apiserver-proxy"
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
    """Whether a node may join with this token. A token for one use is consumed."""
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
    """The secret by which the nodes of a cluster recognise each other."""
    if not CALLBACK.exists():
        CALLBACK.write_text(secrets.token_hex(32))
        CALLBACK.chmod(0o660)
    return CALLBACK.read_text().strip()


class Agent:
    """The cluster agent of another node. The last part of its URL, if present, is its
    fingerprint.
    """

    def __init__(self, address: str, fingerprint: str | None = None) -> None:
        context = ssl._create_unverified_context()  # there is no common authority yet
        self.connection = http.client.HTTPSConnection(address, context=context, timeout=120)
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
        headers = {"Content-Type": "application/json"}
        if CALLBACK.exists():
            headers["x-microk8s-callback-token"] = CALLBACK.read_text().strip()
        try:
            self.connection.request("POST", API + path, json.dumps(body), headers)
            response = self.connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            print(f"Please ensure the master node is reachable. {error}")
            sys.exit(1)
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
    server = address.split(":")[0]
    print(f"Contacting cluster at {server}")
    agent = Agent(address, check if verify and check else None)
    name = paths.node_name()
    answer = agent.post(
        "/v2.0/join", token=token, hostname=name, port=paths.AGENT_PORT, worker=worker
    )

    services.stop("kubelite", "k8s-dqlite")
    # Containers of the old cluster must not continue in the new one.
    containers.end_pods()
    shutil.copyfile(ARGS / "kubelet", ARGS / "kubelet.backup")
    (ARGS / "kubelet").write_text(answer["kubelet_args"])
    CALLBACK.write_text(answer["callback_token"])
    if worker:
        join_worker(agent, server, token, answer)
    else:
        join_control_plane(agent, answer)
    print("Successfully joined the cluster.")


def join_worker(agent: Agent, server: str, token: str, answer: dict) -> None:
    (CERTS / "ca.remote.crt").write_text(answer["ca"])
    arguments.change(
        "kubelet",
        {
            "--client-ca-file": "${SNAP_DATA}/certs/ca.remote.crt",
            "--node-labels": WORKER_LABELS,
        },
    )
    name = paths.node_name()
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
        certificates.write_kubeconfig(f"{program}.config", program, authority="ca.remote.crt")
    certificates.protect()
    apiserver_proxy.write([f"{server}:{answer['apiport']}"])
    for lock in WORKER_LOCKS:
        lock.touch()
    NO_PROXY.unlink(missing_ok=True)
    services.start("apiserver-proxy", "kubelite")
    print("\nThe node has joined the cluster and will appear in the nodes list in a few seconds.\n")
    print("This worker node gets automatically configured with the API server endpoints.")
    print(
        "If the API servers are behind a loadbalancer please set the '--refresh-interval' to '0s' "
        f"in:\n    {ARGS / 'apiserver-proxy'}"
    )
    print(
        "and replace the API server endpoints with the one provided by the loadbalancer in:\n"
        f"    {apiserver_proxy.PROVIDER}\n"
    )


def join_control_plane(agent: Agent, answer: dict) -> None:
    for file, content in (
        ("ca.crt", answer["ca"]),
        ("ca.key", answer["ca_key"]),
        ("serviceaccount.key", answer["service_account_key"]),
    ):
        (CERTS / file).write_text(content)
    certificates.make_signed()
    arguments.change("kube-apiserver", {"--authorization-mode": answer["api_authz_mode"]})
    elect_leaders(True)
    print("Waiting for this node to finish joining the cluster.")
    datastore.start(answer["hostname_override"], answer["datastore"])
    agent.post("/v2.0/datastore/promote", address=answer["hostname_override"])
    services.start("kubelite")


def elect_leaders(among_several: bool) -> None:
    """Turn leader election on or off for controller manager and scheduler, from the next start."""
    for program in ("kube-controller-manager", "kube-scheduler"):
        arguments.change(program, {"--leader-elect": "true" if among_several else "false"})


def leave() -> None:
    if WORKER.exists():
        leave_as_worker()
    else:
        leave_datastore()
    print("Generating new cluster certificates.")
    CALLBACK.unlink(missing_ok=True)
    datastore.forget()
    certificates.make_all()
    services.start("k8s-dqlite", "kubelite")
    print("Waiting for node to start.")
    kubernetes.wait_for_ready(timeout=60)


def leave_as_worker() -> None:
    print("Configuring services.")
    services.stop("kubelite", "apiserver-proxy")
    containers.end_pods()
    for file in (*WORKER_LOCKS, CERTS / "ca.remote.crt"):
        file.unlink(missing_ok=True)
    NO_PROXY.touch()
    # The real snap restores the default flags; some machines need the flags that were given.
    shutil.copyfile(ARGS / "kubelet.backup", ARGS / "kubelet")


def leave_datastore() -> None:
    here = paths.default_address()
    try:
        members = datastore.members()
        if len(members) == 1:
            print("Not in clustering mode.")
            sys.exit(2)
        for member in members:
            if member.address == here:
                leave_members(member)
    except datastore.RefusedError as error:
        give_up_on_datastore(error)
    services.stop("kubelite", "k8s-dqlite")
    containers.end_pods()
    elect_leaders(False)


def leave_members(here: datastore.Member) -> None:
    """Remove this node's member. It stops when it is removed, at times before it has answered."""
    try:
        datastore.remove(here)
    except datastore.RefusedError as error:
        if "server stopped" not in str(error):
            raise


def remove_node(name: str, force: bool) -> None:
    """Identify a datastore member by its node's address, not by its name."""
    nodes = json.loads(kubernetes.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    for node in nodes:
        addresses = {each["address"] for each in node["status"]["addresses"]}
        if name == node["metadata"]["name"] or name in addresses:
            break
    else:
        print(f"Node {name} does not exist in Kubernetes.")
        if force:
            print(f"Attempting to remove {name} from dqlite.")
            for member in other_members():
                if member.address == name:
                    print("Removing node entry found in dqlite.")
                    remove_member(member)
        sys.exit(1)
    name = node["metadata"]["name"]
    registered = [each for each in other_members() if each.address in addresses]
    if registered and not force:
        print(
            f"Removal failed. Node {name} is registered with dqlite. "
            "Please, run first 'microk8s leave' on the departing node. \n"
            "If the node is not available anymore and will never attempt to join the cluster "
            "in the future use the '--force' flag \nto unregister the node while removing it."
        )
        sys.exit(1)
    for member in registered:
        remove_member(member)
    kubernetes.kubectl("delete", "node", name)


def other_members() -> list[datastore.Member]:
    try:
        here = paths.default_address()
        return [each for each in datastore.members() if each.address != here]
    except datastore.RefusedError as error:
        give_up_on_datastore(error)


def remove_member(member: datastore.Member) -> None:
    try:
        datastore.remove(member)
    except datastore.RefusedError as error:
        give_up_on_datastore(error)


def give_up_on_datastore(error: datastore.RefusedError) -> NoReturn:
    address = f"{paths.default_address()}:{datastore.STATUS_PORT}"
    print(f"Contacting node {address} failed. Error:\n{error}")
    sys.exit(2)
