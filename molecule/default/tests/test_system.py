"""The hosts after `site.yml`: services, rights, memory, the firewall."""

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


def test_the_chats_image_is_pinned_by_digest_and_runs_unprivileged() -> None:
    assert deployed_image().startswith("localhost:32000/chat@sha256:")
    pod = "{.spec.template.spec"
    deployed = kubectl(
        f"get deployment chat --output jsonpath='{pod}.containers[0].securityContext}}"
        f" {pod}.securityContext}}'"
    )
    for promise in ('"runAsNonRoot":true', '"readOnlyRootFilesystem":true', '"drop":["ALL"]'):
        assert promise in deployed


@pytest.mark.parametrize("name", group("microk8s"))
def test_the_chats_image_is_pinned_on_every_node(name: str) -> None:
    """A replica can start there without the registry."""
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


# Rights that no account may have, and for each account some that it must not have. {0} is the
# account's namespace.
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


def test_service_accounts_lack_rights_that_they_do_not_need() -> None:
    accounts = kubectl(
        "get serviceaccounts --all-namespaces --output"
        " jsonpath='{range .items[*]}{.metadata.namespace}:{.metadata.name} {end}'"
    )
    ours = {
        name
        for name in accounts.split()
        if name.partition(":")[0] in {"chat", "chat-ca", "traefik"}
    }
    # Add a new account to REFUSED.
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
    # The last one is allowed: it shows that the test would find a right.
    expected = ["no"] * (len(questions) - 1) + ["yes"]
    assert dict(zip(questions, answers, strict=True)) == dict(zip(questions, expected, strict=True))


def scan(source: str, target: str, ports: set[int], via: str) -> set[int]:
    """The ports of `target` that accept a connection from `source`, an address of host `via`."""
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
    """An address that is in no firewall rule of host `name`. Host `other` gets it meanwhile."""
    network, _, number = address(other).rpartition(".")
    unknown = f"{network}.{200 + int(number)}"
    connect(other).check_output(f"ip address add {unknown}/24 dev eth0")
    try:
        # A restarted host has another MAC address than its neighbour remembers for this address.
        connect(name).check_output(f"ip neighbour flush to {unknown}")
        yield unknown
    finally:
        connect(other).check_output(f"ip address delete {unknown}/24 dev eth0")


@pytest.mark.parametrize(
    ("keeps", "most"), [(False, 2000), (True, 1500)], ids=["at once", "at the same time"]
)
def test_one_address_gets_a_limited_number_of_connections_and_others_are_not_affected(
    keeps: bool, most: int
) -> None:
    # Another address for each case, because an exhausted burst refills slowly.
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


def test_an_ipv6_network_gets_as_many_connections_as_an_ipv4_address() -> None:
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
            # The firewall let it through. Traefik does not listen on this address.
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
def test_strangers_reach_only_ssh_and_the_chat(name: str) -> None:
    other = next(each for each in group("all") if each != name)
    listening = connect(name).check_output(
        "ss --no-header --listening --tcp --numeric | awk '{print $4}'"
    )
    # 80, 443 and the registry's NodePort are translated by iptables: no program listens on them.
    ports = {int(line.rsplit(":", 1)[1]) for line in listening.split()} | {32000, 80, 443}
    with stranger(name, other) as unknown:
        for_hosts = scan(address(other), address(name), ports, via=other)
        for_strangers = scan(unknown, address(name), ports, via=other)
    serves_the_chat = name in group("microk8s")
    assert for_strangers == ({22, 80, 443} if serves_the_chat else {22})
    # Other hosts of the inventory reach more.
    assert for_hosts > for_strangers


def test_validate_of_the_installed_collection_reports_every_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No proxy answers there. The site's own hosts must be reached directly.
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
