"""The contract of clusters of several hosts: control planes join, and a worker connects to them.

The tests build on each other. This file must run last, because it turns the cluster with one node
of the other files into one with three.
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
    """Run the command that `add-node` on `member` prints. It includes the member's fingerprint."""
    expected = member.check_output(f"/snap/bin/microk8s add-node --token {TOKEN} --format short")
    host.check_output(f"/snap/bin/{expected} {options}")


def voters(host: Host) -> set[str]:
    said = yaml.safe_load(host.check_output("/snap/bin/microk8s status --format yaml"))
    members = said["high-availability"]["nodes"]
    assert {each["role"] for each in members} == {"voter"}
    assert said["high-availability"]["enabled"] is (len(members) > 2)
    return {each["address"].removesuffix(":19001") for each in members}


def ready(host: Host) -> set[str]:
    """The names of the nodes that are Ready; none while the API server of `host` is down."""
    result = microk8s(host, "kubectl get nodes --output json")
    return {
        node["metadata"]["name"]
        for node in json.loads(result.stdout or "{}").get("items", [])
        for condition in node["status"]["conditions"]
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }


def prepare(sandbox: Sandbox, *names: str) -> None:
    """Install MicroK8s on the hosts, each as a separate cluster without add-ons."""
    alone = {key: value for key, value in CONFIGURATION.items() if key != "addons"}
    for name in names:
        configure(sandbox.host(name), alone)
        assert "installed" in install(sandbox.host(name)).stdout


@pytest.fixture(scope="module")
def hosts(sandbox: Sandbox, node: Host) -> Hosts:
    """The existing node, with a worker and a second control plane."""
    prepare(sandbox, *OTHERS)
    hosts = {"host1": node, **{name: sandbox.host(name) for name in OTHERS}}
    upload(hosts["host3"], b"--refresh-interval=1s\n", f"{DATA}/args/apiserver-proxy")
    join(hosts["host3"], node, "--worker")
    join(hosts["host2"], node)
    until(lambda: ready(hosts["host2"]) == set(hosts), "the three are not ready")
    return hosts


@pytest.fixture(scope="module")
def three(hosts: Hosts) -> Hosts:
    """The worker has become the third control plane. It joined through the second."""
    third = hosts["host3"]
    third.check_output("/snap/bin/microk8s leave")
    assert microk8s(hosts["host2"], "remove-node host3").rc == 0
    join(third, hosts["host2"])
    until(lambda: ready(third) == set(hosts), "the three are not ready")
    return hosts


def test_a_control_plane_that_joins_gets_the_ca_the_keys_and_the_data(hosts: Hosts) -> None:
    """ag pkg/api/v2/join.go and mk join.py join_dqlite_master_node."""
    first, second = hosts["host1"], hosts["host2"]
    assert voters(first) == voters(second) == {address(first), address(second)}
    same = f"""cd {DATA}
        sha256sum certs/ca.crt certs/ca.key certs/serviceaccount.key args/kubelet
        grep authorization-mode args/kube-apiserver
        grep server: credentials/kubelet.config credentials/proxy.config"""
    assert first.check_output(same) == second.check_output(same)
    kubectl(first, "create configmap made-on-the-first")
    assert kubectl(second, "get configmap made-on-the-first --output name")


def test_one_of_the_controller_managers_leads(hosts: Hosts) -> None:
    """mk default-args/kube-controller-manager: leader election, leases of 60 s."""
    lease = "get lease kube-controller-manager -n kube-system --output jsonpath={.spec}"
    held = json.loads(kubectl(hosts["host2"], lease))
    assert held["holderIdentity"].split("_")[0] in ("host1", "host2")
    assert held["leaseDurationSeconds"] == 60


def test_a_member_that_joins_again_is_refused(hosts: Hosts) -> None:
    """ag pkg/api/v2/join.go: members are known by address. Nothing changes on the node."""
    url = f"{address(hosts['host1'])}:25000/{TOKEN}"
    refused = microk8s(hosts["host2"], f"join {url}")
    assert refused.rc == 6
    known = f'joining node "{address(hosts["host2"])}" is already known to dqlite (504).'
    assert known in refused.stdout
    own = microk8s(hosts["host1"], f"join {url}")
    assert (own.rc, "has the same IP" in own.stdout) == (6, True)
    assert len(voters(hosts["host2"])) == 2


def test_a_worker_knows_every_api_server_and_works_without_one(hosts: Hosts) -> None:
    """ag pkg/proxy: its local port 16443 forwards to the endpoints of the service kubernetes."""
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
        # The proxy uses them round robin: two of four requests go to the stopped one first.
        assert [worker.run(ask).stdout for _turn in range(4)] == ["ok"] * 4
    finally:
        first.check_output("snap start microk8s.daemon-kubelite")


def test_three_members_are_highly_available(three: Hosts) -> None:
    """mk status.py print_pretty: with three voters or more. print_short does not show it."""
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


def test_two_control_planes_work_without_the_first_and_it_rejoins_them(
    sandbox: Sandbox, three: Hosts
) -> None:
    """dqlite's promise to MicroK8s: the first then has what was written meanwhile."""
    sandbox.power_off("host1")
    write = "kubectl label namespace default written=meanwhile --overwrite"
    until(lambda: microk8s(three["host3"], write).rc == 0, "the two others do not write")
    sandbox.power_on("host1")
    read = "kubectl get namespace default --output jsonpath={.metadata.labels.written}"
    until(
        lambda: microk8s(three["host1"], read).stdout == "meanwhile", "the first has not rejoined"
    )
    assert len(voters(three["host1"])) == 3


def test_a_dead_member_is_removed_by_its_address(sandbox: Sandbox, three: Hosts) -> None:
    """mk remove_node.py: with --force. With the address if the node is gone: then exit code 1."""
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
    """ag pkg/api/v2/join.go: name and address are free once the dead member is removed."""
    sandbox.power_on("host3")
    third = three["host3"]
    third.check_output("snap remove microk8s --purge")
    prepare(sandbox, "host3")
    join(third, three["host1"])
    until(lambda: ready(third) >= {"host3"}, "host3 is not ready")
    assert len(voters(three["host1"])) == 3


def test_a_control_plane_that_leaves_is_a_separate_cluster(three: Hosts) -> None:
    """mk leave.py reset_current_dqlite_installation; its node stays until remove-node."""
    third = three["host3"]
    third.check_output("/snap/bin/microk8s leave")
    assert kubectl(third, "get nodes --output jsonpath={.items[*].metadata.name}") == "host3"
    assert voters(third) == {address(third)}
    assert len(voters(three["host1"])) == 2
    assert microk8s(three["host1"], "remove-node host3").rc == 0
