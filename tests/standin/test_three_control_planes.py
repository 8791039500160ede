"""The contract of clusters of several hosts: control planes that join, and a worker's way to them.

The last of the files, and its tests build on each other: they make the host that others use alone
the first of three.
"""

from __future__ import annotations

import json

import pytest
import yaml
from standin_hosts import (
    CONFIGURATION,
    TOKEN,
    Sandbox,
    configure,
    install,
    kubectl,
    microk8s,
    until,
    upload,
)
from testinfra.host import Host

DATA = "/var/snap/microk8s/current"
OTHERS = ("host2", "host3")
Hosts = dict[str, Host]


def address(host: Host) -> str:
    return host.check_output("ip -4 -o addr show eth0").split()[3].split("/")[0]


def join(host: Host, member: Host, options: str = "") -> None:
    """As people do it: with what `add-node` says, the member's fingerprint included."""
    expected = member.check_output(f"/snap/bin/microk8s add-node --token {TOKEN} --format short")
    host.check_output(f"/snap/bin/{expected} {options}")


def voters(host: Host) -> set[str]:
    said = yaml.safe_load(host.check_output("/snap/bin/microk8s status --format yaml"))
    members = said["high-availability"]["nodes"]
    assert {each["role"] for each in members} == {"voter"}
    assert said["high-availability"]["enabled"] is (len(members) > 2)
    return {each["address"].removesuffix(":19001") for each in members}


def ready(host: Host) -> set[str]:
    """The names of the nodes that are Ready; none while the API server of `host` is away."""
    result = microk8s(host, "kubectl get nodes --output json")
    return {
        node["metadata"]["name"]
        for node in json.loads(result.stdout or "{}").get("items", [])
        for condition in node["status"]["conditions"]
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }


def prepare(sandbox: Sandbox, *names: str) -> None:
    """MicroK8s on the hosts, each alone and without add-ons."""
    alone = {key: value for key, value in CONFIGURATION.items() if key != "addons"}
    for name in names:
        configure(sandbox.host(name), alone)
        assert "installed" in install(sandbox.host(name)).stdout


@pytest.fixture(scope="module")
def hosts(sandbox: Sandbox, node: Host) -> Hosts:
    """The first host as it was, a worker that joined it, and then a second control plane."""
    prepare(sandbox, *OTHERS)
    hosts = {"host1": node, **{name: sandbox.host(name) for name in OTHERS}}
    upload(hosts["host3"], b"--refresh-interval=1s\n", f"{DATA}/args/apiserver-proxy")
    join(hosts["host3"], node, "--worker")
    join(hosts["host2"], node)
    until(lambda: ready(hosts["host2"]) == set(hosts), "the three are not ready")
    return hosts


@pytest.fixture(scope="module")
def three(hosts: Hosts) -> Hosts:
    """The worker has become the third control plane, asked for by the second."""
    third = hosts["host3"]
    third.check_output("/snap/bin/microk8s leave")
    assert microk8s(hosts["host2"], "remove-node host3").rc == 0
    join(third, hosts["host2"])
    until(lambda: ready(third) == set(hosts), "the three are not ready")
    return hosts


def test_a_control_plane_joins_with_all_that_the_first_has(hosts: Hosts) -> None:
    """ag pkg/api/v2/join.go and mk join.py join_dqlite_master_node: CA, keys and data are one."""
    first, second = hosts["host1"], hosts["host2"]
    assert voters(first) == voters(second) == {address(first), address(second)}
    same = f"""cd {DATA}
        sha256sum certs/ca.crt certs/ca.key certs/serviceaccount.key args/kubelet
        grep authorization-mode args/kube-apiserver
        grep server: credentials/kubelet.config credentials/proxy.config"""
    assert first.check_output(same) == second.check_output(same)
    kubectl(first, "create configmap made-on-the-first")
    assert kubectl(second, "get configmap made-on-the-first --output name")


def test_one_leads_among_the_controller_managers(hosts: Hosts) -> None:
    """mk default-args/kube-controller-manager: leader election, leases of 60 s."""
    lease = "get lease kube-controller-manager -n kube-system --output jsonpath={.spec}"
    held = json.loads(kubectl(hosts["host2"], lease))
    assert held["holderIdentity"].split("_")[0] in ("host1", "host2")
    assert held["leaseDurationSeconds"] == 60


def test_a_member_that_joins_again_is_refused(hosts: Hosts) -> None:
    """ag pkg/api/v2/join.go: known by its address; nothing has changed on the node."""
    url = f"{address(hosts['host1'])}:25000/{TOKEN}"
    refused = microk8s(hosts["host2"], f"join {url}")
    assert refused.rc == 6
    known = f'joining node "{address(hosts["host2"])}" is already known to dqlite (504).'
    assert known in refused.stdout
    own = microk8s(hosts["host1"], f"join {url}")
    assert (own.rc, "has the same IP" in own.stdout) == (6, True)
    assert len(voters(hosts["host2"])) == 2


def test_a_worker_finds_every_api_server_and_goes_on_without_one(hosts: Hosts) -> None:
    """ag pkg/proxy: its own port 16443 leads to the endpoints of the service kubernetes."""
    worker, first = hosts["host3"], hosts["host1"]
    assert "server: https://127.0.0.1:16443" in worker.check_output(
        f"cat {DATA}/credentials/kubelet.config"
    )
    servers = {f"{address(hosts[name])}:16443" for name in ("host1", "host2")}

    def known() -> set[str]:
        provider = yaml.safe_load(worker.check_output(f"cat {DATA}/args/traefik/provider.yaml"))
        balancer = provider["tcp"]["services"]["kube-apiserver"]["loadBalancer"]
        return {each["address"] for each in balancer["servers"]}

    until(lambda: known() == servers, "the worker does not know both API servers")
    first.check_output("snap stop microk8s.daemon-kubelite")
    try:
        as_kubelet = "--cacert ca.remote.crt --cert kubelet.crt --key kubelet.key"
        ask = f"cd {DATA}/certs && curl -sf {as_kubelet} https://127.0.0.1:16443/livez"
        # Each in its turn: two would meet the one that is away.
        assert [worker.run(ask).stdout for _turn in range(4)] == ["ok"] * 4
    finally:
        first.check_output("snap start microk8s.daemon-kubelite")


def test_three_members_are_highly_available(three: Hosts) -> None:
    """mk status.py print_pretty: three voters or more. Its print_short says nothing of it."""
    members = [address(host) for host in three.values()]
    assert voters(three["host3"]) == set(members)
    pretty, short = (
        three["host3"].check_output(f"/snap/bin/microk8s status --format {form}").splitlines()
        for form in ("pretty", "short")
    )
    assert pretty[1:5] == [
        "high-availability: yes",
        f"  datastore master nodes: {' '.join(f'{each}:19001' for each in members)}",
        "  datastore standby nodes: none",
        "addons:",
    ]
    assert short[:2] == ["microk8s is running", "addons:"]


def test_two_go_on_without_the_first_which_finds_them_again(sandbox: Sandbox, three: Hosts) -> None:
    """dqlite's promise to MicroK8s: what is written meanwhile is there after a power-off."""
    sandbox.power_off("host1")
    write = "kubectl label namespace default written=meanwhile --overwrite"
    until(lambda: microk8s(three["host3"], write).rc == 0, "the two others do not write")
    sandbox.power_on("host1")
    read = "kubectl get namespace default --output jsonpath={.metadata.labels.written}"
    until(lambda: microk8s(three["host1"], read).stdout == "meanwhile", "the first is not back")
    assert len(voters(three["host1"])) == 3


def test_a_dead_member_is_removed_by_its_address(sandbox: Sandbox, three: Hosts) -> None:
    """mk remove_node.py: only by force; by its address when its node is gone, and then with 1."""
    second, dead = three["host2"], address(three["host3"])
    until(lambda: ready(second) >= set(OTHERS), "they are not ready again")
    refused = microk8s(second, "remove-node host3")
    assert refused.rc == 1
    assert "Removal failed. Node host3 is registered with dqlite." in refused.stdout
    sandbox.power_off("host3")
    kubectl(second, "delete node host3")
    nameless = microk8s(second, "remove-node host3 --force")
    assert nameless.rc == 1
    assert "Node host3 does not exist in Kubernetes." in nameless.stdout
    assert dead in voters(second)
    assert microk8s(second, f"remove-node {dead} --force").rc == 1
    assert voters(second) == {address(three["host1"]), address(second)}


def test_a_new_host_takes_the_name_of_the_dead_one(sandbox: Sandbox, three: Hosts) -> None:
    """ag pkg/api/v2/join.go: the name is free, and so is the address when its member is removed."""
    sandbox.power_on("host3")
    third = three["host3"]
    third.check_output("snap remove microk8s --purge")
    prepare(sandbox, "host3")
    join(third, three["host1"])
    until(lambda: ready(third) >= {"host3"}, "host3 is not ready")
    assert len(voters(three["host1"])) == 3


def test_a_control_plane_leaves_and_is_alone(three: Hosts) -> None:
    """mk leave.py reset_current_dqlite_installation; its node stays until remove-node."""
    third = three["host3"]
    third.check_output("/snap/bin/microk8s leave")
    assert kubectl(third, "get nodes --output jsonpath={.items[*].metadata.name}") == "host3"
    assert voters(third) == {address(third)}
    assert len(voters(three["host1"])) == 2
    assert microk8s(three["host1"], "remove-node host3").rc == 0
