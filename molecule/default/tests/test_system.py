"""The hosts as an operator finds them after `site.yml`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import deployed_image, kubectl
from collection import install
from hosts import address, connect, group, variable

from playbooks import run

UNITS = [(name, unit) for unit in ("zookeeper", "kafka") for name in group(unit)] + [
    (name, f"snap.microk8s.daemon-{daemon}")
    for name in group("microk8s")
    for daemon in ("containerd", "k8s-dqlite", "kubelite")
]


@pytest.mark.parametrize(("name", "unit"), UNITS)
def test_every_service_runs_and_starts_at_boot(name: str, unit: str) -> None:
    service = connect(name).service(unit)
    assert service.is_running
    assert service.is_enabled


@pytest.mark.parametrize("name", group("all"))
def test_no_unit_has_failed(name: str) -> None:
    assert connect(name).check_output("systemctl --failed --no-legend") == ""


def test_the_chat_runs_by_digest_and_without_privileges() -> None:
    assert deployed_image().startswith("localhost:32000/chat@sha256:")
    pod = "{.spec.template.spec"
    deployed = kubectl(
        f"get deployment chat --output jsonpath='{pod}.containers[0].securityContext}}"
        f" {pod}.securityContext}}'"
    )
    for promise in ('"runAsNonRoot":true', '"readOnlyRootFilesystem":true', '"drop":["ALL"]'):
        assert promise in deployed


@pytest.mark.parametrize("name", group("microk8s"))
def test_a_replica_can_start_without_the_registry(name: str) -> None:
    kept = connect(name).check_output(
        "/snap/bin/microk8s ctr images ls --quiet %s", 'labels."io.cri-containerd.pinned"==pinned'
    )
    assert deployed_image() in kept.split()


@pytest.mark.parametrize("name", group("microk8s"))
def test_pods_leave_memory_for_kafka_and_zookeeper(name: str) -> None:
    status = json.loads(kubectl(f"get node {name} --output json"))["status"]
    capacity, rest = (
        int(status[kind]["memory"].removesuffix("Ki")) for kind in ("capacity", "allocatable")
    )
    reserved = variable(name, "microk8s_reserved_memory_mb")
    assert reserved
    assert rest <= capacity - 1024 * int(reserved)


# Questions about every account, and about each one. {0} is its namespace.
ALWAYS_REFUSED = (
    "get secrets --namespace chat-ca",
    "list secrets --all-namespaces",
    "create pods --namespace chat",
    "create clusterrolebindings",
    "impersonate users",
    "list nodes",
)
READS = "list services --namespace {0}", "list secrets --namespace {0}"
REFUSED = {
    "chat:chat": (*READS, "list pods --namespace chat", "get configmaps --namespace chat"),
    "chat:default": READS,
    "chat-ca:default": READS,
    "traefik:default": READS,
    "traefik:traefik-ingress-controller": (
        "update secrets --namespace chat",
        "patch ingressroutes.traefik.io --namespace chat",
        "list pods --namespace chat",
        "list secrets --namespace kube-system",
        "list secrets --namespace default",
    ),
}


def test_no_service_account_may_do_what_it_need_not() -> None:
    accounts = kubectl(
        "get serviceaccounts --all-namespaces --output"
        " jsonpath='{range .items[*]}{.metadata.namespace}:{.metadata.name} {end}'"
    )
    ours = {
        name
        for name in accounts.split()
        if name.partition(":")[0] in {"chat", "chat-ca", "traefik"}
    }
    # A new account has to be named here.
    assert ours == set(REFUSED)

    questions = [
        f"{question.format(account.partition(':')[0])} --as system:serviceaccount:{account}"
        for account, own in REFUSED.items()
        for question in (*ALWAYS_REFUSED, *own)
    ]
    traefik = "--namespace chat --as system:serviceaccount:traefik:traefik-ingress-controller"
    questions.append(f"list secrets {traefik}")
    asked = "".join(f"/snap/bin/microk8s kubectl auth can-i {each}; " for each in questions)
    answers = connect(group("microk8s")[0]).run(asked).stdout.split()
    # The last one shows that a right would be seen.
    expected = ["no"] * (len(questions) - 1) + ["yes"]
    assert dict(zip(questions, answers, strict=True)) == dict(zip(questions, expected, strict=True))


def scan(source: str, target: str, ports: set[int], via: str) -> set[int]:
    """The ports that accept a connection from the address `source`, which host `via` has."""
    program = """
import asyncio, sys

async def is_open(port):
    try:
        async with asyncio.timeout(2):
            await asyncio.open_connection(target, port, local_addr=(source, 0))
    except OSError:
        return None
    return port

async def scan():
    found = await asyncio.gather(*map(is_open, map(int, ports)))
    print(*(port for port in found if port))

source, target, *ports = sys.argv[1:]
asyncio.run(scan())
"""
    words = " ".join(map(str, [source, target, *sorted(ports)]))
    found: str = connect(via).check_output(f"python3 -c '{program}' {words}")
    return set(map(int, found.split()))


@contextmanager
def stranger(name: str, other: str) -> Iterator[str]:
    """An address that no rule of the host knows. The other host has it."""
    network, _, number = address(other).rpartition(".")
    unknown = f"{network}.{200 + int(number)}"
    connect(other).check_output(f"ip address add {unknown}/24 dev eth0")
    try:
        # A restarted host has another MAC address than its neighbours remember for this address.
        connect(name).check_output(f"ip neighbour flush to {unknown}")
        yield unknown
    finally:
        connect(other).check_output(f"ip address delete {unknown}/24 dev eth0")


@pytest.mark.parametrize(
    ("keeps", "most"), [(False, 2000), (True, 1500)], ids=["at once", "at the same time"]
)
def test_a_stranger_gets_so_many_connections_and_others_are_not_held_up(
    keeps: bool, most: int
) -> None:
    # Another address each time: what one has used up comes back slowly.
    name, other = group("microk8s")[keeps : 2 + keeps]
    program = """
import resource, socket, sys, time

def connect(source):
    return socket.create_connection((target, 443), 0.5, (source, 0))

target, stranger, host, keeps = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (5000, 5000))
began, count, kept = time.monotonic(), 0, []
try:
    while count < 4000:
        connection = connect(stranger)
        count += 1
        if keeps == "True":
            kept.append(connection)
        else:
            connection.close()
except TimeoutError:
    connect(host)
print(count, time.monotonic() - began)
"""
    with stranger(name, other) as unknown:
        words = f"{address(name)} {unknown} {address(other)} {keeps}"
        output = connect(other).check_output(f"python3 -c '{program}' {words}")
    count, seconds = map(float, output.split())
    assert most <= count <= most + 200 * (seconds + 1)


def test_a_network_of_ipv6_gets_as_many_as_an_address_of_ipv4() -> None:
    target, *strangers = "2001:db8::1", "2001:db8:0:1::2", "2001:db8:0:1::3"
    program = """
import itertools, socket, sys, time

target, *strangers = sys.argv[1:]
began, count = time.monotonic(), 0
try:
    for source in itertools.cycle(strangers):
        if time.monotonic() > began + 30:
            sys.exit("none was dropped")
        try:
            socket.create_connection((target, 443), 0.5, (source, 0)).close()
        except ConnectionRefusedError:
            # It came through. Traefik does not listen here.
            pass
        count += 1
except TimeoutError:
    print(count, time.monotonic() - began)
"""
    name, other = map(connect, group("microk8s")[1:])
    has = [(name, target), *((other, source) for source in strangers)]
    for each, its_address in has:
        each.check_output(f"ip address add {its_address}/32 dev eth0 nodad")
        # A restarted host has another MAC address than its neighbours remember.
        each.check_output("ip -6 neighbour flush dev eth0")
    try:
        output = other.check_output(f"python3 -c '{program}' {target} {' '.join(strangers)}")
    finally:
        for each, its_address in has:
            each.check_output(f"ip address delete {its_address}/32 dev eth0")
    count, seconds = map(float, output.split())
    assert 2000 <= count <= 2000 + 200 * (seconds + 1)


@pytest.mark.parametrize("name", group("all"))
def test_a_stranger_reaches_ssh_and_the_chat_and_nothing_else(name: str) -> None:
    other = next(each for each in group("all") if each != name)
    listening = connect(name).check_output(
        "ss --no-header --listening --tcp --numeric | awk '{print $4}'"
    )
    # The registry's port is translated before any program of the host could listen to it.
    ports = {int(line.rsplit(":", 1)[1]) for line in listening.split()} | {32000, 80, 443}
    with stranger(name, other) as unknown:
        for_hosts = scan(address(other), address(name), ports, via=other)
        for_strangers = scan(unknown, address(name), ports, via=other)
    serves_the_chat = name in group("microk8s")
    assert for_strangers == ({22, 80, 443} if serves_the_chat else {22})
    # What is closed is closed to strangers alone.
    assert for_hosts > for_strangers


def test_validate_of_the_installed_collection_says_what_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy that does not answer: own hosts are reached directly.
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    install(tmp_path)
    validated = run("baremetal_chat.platform.validate", collections=tmp_path)
    print(validated.said)
    assert validated.succeeded
    for seen in (
        "3 of 3 members serve",
        "'Hello, World' went into TutorialTopic",
        "in one order",
        "Its certificate is valid for ",
    ):
        assert seen in validated.said
