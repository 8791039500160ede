"""The datastore's members, which are etcd's instead of dqlite's.

The member of a single node listens only locally. When the first control plane joins, that member
starts to listen at the node's address, with TLS. A joining member starts as a learner, without a
vote, until it has all data. If it fails before that, the others keep their majority. A member is
identified by its address, because a new node may have the name of an old one.
"""

import contextlib
import dataclasses
import http.client
import json
import shutil
import time

from microk8s import arguments, paths, services
from microk8s.paths import ARGS, BACKEND

CLIENT = "127.0.0.1:12379"
PEER_PORT = 12380
STATUS_PORT = 19001  # dqlite's, which `microk8s status` names
JOINING = "joining"  # the name of one that has yet to start
FLAGS = ARGS / "k8s-dqlite"
FLAGS_ALONE = ARGS / "k8s-dqlite.backup"
# Settings of a member with peers. On a few busy cores, a second without a heartbeat (etcd's own
# limit) does not mean that a member is dead.
SHARED = {
    "--initial-cluster-state": "existing",
    "--peer-cert-file": "${SNAP_DATA}/certs/server.crt",
    "--peer-key-file": "${SNAP_DATA}/certs/server.key",
    "--peer-trusted-ca-file": "${SNAP_DATA}/certs/ca.crt",
    "--peer-client-cert-auth": "true",
    "--heartbeat-interval": "250",
    "--election-timeout": "2500",
}


class RefusedError(Exception):
    """etcd refused a request, or did not answer."""


@dataclasses.dataclass(frozen=True)
class Member:
    identity: str
    name: str  # empty until the member has started
    url: str
    learner: bool

    @property
    def address(self) -> str:
        return self.url.split("//")[1].rpartition(":")[0]

    @property
    def role(self) -> str:
        return "standby" if self.learner else "voter"


def ask(path: str, **body: object) -> dict:
    """Call etcd's own API with JSON [etcd api/etcdserverpb/rpc.proto, "/v3/cluster/..."]."""
    connection = http.client.HTTPConnection(CLIENT, timeout=10)
    try:
        connection.request("POST", f"/v3/cluster/member/{path}", json.dumps(body))
        response = connection.getresponse()
        answer = json.load(response)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RefusedError(f"the datastore does not answer: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise RefusedError(answer.get("message", f"HTTP {response.status}"))
    return answer


def members() -> list[Member]:
    """The members that this node knows, even without a majority, ordered by address."""
    found = [
        Member(each["ID"], each.get("name", ""), each["peerURLs"][0], each.get("isLearner", False))
        for each in ask("list", linearizable=False)["members"]
    ]
    return sorted(found, key=lambda member: [part.zfill(3) for part in member.address.split(".")])


def peer_url(address: str) -> str:
    return f"https://{address}:{PEER_PORT}"


def share(address: str) -> bool:
    """Make a single node's member listen to others at `address`, from its next start.

    Returns False if it already does.
    """
    if FLAGS_ALONE.exists():
        return False
    (alone,) = members()
    # The node's address may have changed since its first start.
    if alone.url != peer_url(address):
        ask("update", ID=alone.identity, peerURLs=[peer_url(address)])
    write_flags(address, f"{paths.node_name()}={peer_url(address)}")
    return True


def add(address: str) -> str:
    """Add a member that will start at `address`. Returns all members, as the new one must be
    told.
    """
    for member in members():
        if member.address == address and member.learner:  # left by an interrupted join
            remove(member)
    ask("add", peerURLs=[peer_url(address)], isLearner=True)
    # Members identify each other by URL; names are set later.
    return ",".join(
        f"{JOINING if each.address == address else each.name or each.identity}={each.url}"
        for each in members()
    )


def start(address: str, cluster: str) -> None:
    """Start as the member that was added at `address`, without any old data."""
    shutil.rmtree(BACKEND, ignore_errors=True)
    write_flags(address, cluster.replace(f"{JOINING}=", f"{paths.node_name()}="))
    services.start("k8s-dqlite")


def promote(address: str, timeout: float = 60) -> None:
    """Let the member at `address` vote as soon as it has all data."""
    deadline = time.monotonic() + timeout
    member = next((each for each in members() if each.address == address), None)
    if member is None:
        raise RefusedError(f"{address} is no member")
    while member.learner:
        try:
            ask("promote", ID=member.identity)
            return
        except RefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def remove(member: Member) -> None:
    ask("remove", ID=member.identity)


def write_flags(address: str, cluster: str) -> None:
    if not FLAGS_ALONE.exists():
        shutil.copyfile(FLAGS, FLAGS_ALONE)
    here = peer_url(address)
    arguments.change(
        "k8s-dqlite",
        {
            "--name": paths.node_name(),
            "--listen-peer-urls": here,
            "--initial-advertise-peer-urls": here,
            "--initial-cluster": cluster,
            **SHARED,
        },
    )


def forget() -> None:
    """Return to a single, empty member, from the next start."""
    shutil.rmtree(BACKEND, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        FLAGS_ALONE.replace(FLAGS)
