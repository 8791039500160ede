"""The chat while parts fail: a pod, replicas, a broker, a ZooKeeper member, a host."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster import kubectl
from drill import (
    Conversation,
    await_recovery,
    holders_of_virtual_ip,
    on_demand,
    ready_replicas,
    replicas,
    status,
)
from hosts import address, eventually, frozen, group, podman, powered_off, variable
from hosts import connect as host
from units import firewalled

from playbooks import assert_changes_nothing, inventory, run


@pytest.fixture(autouse=True)
def two_replicas() -> None:
    eventually(lambda: len(ready_replicas()) == 2, within=60, what="two replicas are ready")


def test_no_message_is_lost_when_a_pod_is_killed() -> None:
    with Conversation() as conversation:
        victim = conversation.somebody.replicas[-1]
        kubectl(f"delete pod {victim} --grace-period=0 --force --wait=false")
        eventually(
            lambda: len(ready_replicas()) == 2 and victim not in ready_replicas(),
            within=90,
            what="a new pod has replaced the killed one",
        )
        conversation.goes_on(within=60, what="messages flow again")
        assert len(conversation.somebody.replicas) > 1, "the reader did not have to reconnect"


def test_no_message_is_lost_while_replicas_scale_out_and_in() -> None:
    with Conversation() as conversation:
        for count in (4, 2):
            kubectl(f"scale deployment chat --replicas={count}")
            eventually(
                lambda count=count: len(ready_replicas()) == count,
                within=120,
                what=f"{count} replicas are ready",
            )
            conversation.goes_on(within=60, what="messages flow again")


def test_no_message_is_lost_in_a_rolling_restart() -> None:
    with Conversation() as conversation:
        kubectl("rollout restart deployment chat")
        kubectl("rollout status deployment chat --timeout=180s")
        eventually(lambda: len(ready_replicas()) == 2, within=90, what="the old replicas are gone")
        conversation.goes_on(within=60, what="messages flow again")


def test_no_message_is_lost_when_a_failed_rollout_is_rolled_back() -> None:
    with Conversation() as conversation:
        victim, other = ready_replicas()
        failed = run(
            "playbooks/chat.yml",
            {"chat_config": {"CHAT_RATE": "fast"}, "chat_rollout_timeout": 20},
        )
        assert not failed.succeeded
        assert "CHAT_RATE" in failed.said, failed.said
        assert [name for name, ready in replicas().items() if ready] == [victim, other]
        # A replica that restarts during the rollout still gets the ConfigMap of its own rollout.
        kubectl(f"delete pod {victim}")
        eventually(
            lambda: victim not in replicas() and sum(replicas().values()) == 2,
            within=90,
            what="a new pod has replaced it",
        )
        back = run("playbooks/rollback.yml")
        assert back.succeeded, back.said
        assert len(ready_replicas()) == 2
        conversation.goes_on(within=60, what="messages flow again")


def test_the_chat_works_without_one_broker_and_one_zookeeper_member() -> None:
    last = host(group("kafka")[-1])
    with Conversation() as conversation:
        try:
            last.check_output("systemctl stop kafka zookeeper")
            conversation.goes_on(within=60, what="messages flow through two of three brokers")
        finally:
            last.check_output("systemctl start zookeeper kafka")
        conversation.goes_on(within=60, what="messages flow through all three brokers")


def move_virtual_ip_to(wanted: str) -> None:
    """Stop keepalived on the other hosts until `wanted` has the address. They do not take it back
    when they start again.
    """
    others = [host(name) for name in group("microk8s") if name != wanted]
    for each in others:
        each.check_output("systemctl stop keepalived")
    eventually(lambda: holders_of_virtual_ip() == [wanted], within=30, what="the virtual IP moved")
    for each in others:
        each.check_output("systemctl start keepalived")


@pytest.mark.timeout(1200)
def test_the_chat_works_and_can_be_deployed_without_the_most_loaded_host(tmp_path: Path) -> None:
    """The host has the virtual IP, the registry, a control plane, a broker, a ZooKeeper member."""
    registry = "get pods --namespace container-registry --output jsonpath={.items[0].spec.nodeName}"
    down = kubectl(registry)
    left = next(name for name in group("microk8s") if name != down)
    move_virtual_ip_to(down)
    # A host that is down cannot report its address, and the sandbox has no DNS.
    brokers = {name: {"kafka_address": address(name)} for name in group("kafka")}
    addresses = inventory(tmp_path, {"kafka": brokers})
    with Conversation() as conversation:
        with powered_off(down):
            conversation.goes_on(within=90, what="messages flow without the host")

            deployed = run("playbooks/chat.yml", {"chat_config": {"CHAT_RATE": 7}}, addresses)
            assert deployed.succeeded, deployed.said
            path = "{.spec.template.spec.containers[0].envFrom[0].configMapRef.name}"
            used = kubectl(f"get deployment chat --output jsonpath={path}", via=left)
            rate = f"get configmap {used} --output jsonpath={{.data.CHAT_RATE}}"
            assert kubectl(rate, via=left) == "7"

            back = run("playbooks/rollback.yml")
            assert back.succeeded, back.said
            validated = run("playbooks/validate.yml")
            passed = f"{down} did not respond. All checks of the other hosts passed."
            assert passed in validated.said, validated.said
        conversation.goes_on(within=60, what="messages flow again")
    await_recovery()


@on_demand
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("down", group("microk8s"))
def test_no_message_is_lost_when_a_host_loses_power(down: str) -> None:
    move_virtual_ip_to(down)
    with Conversation() as conversation:
        with powered_off(down):
            conversation.goes_on(within=90, what="messages flow without the host")
        conversation.goes_on(within=60, what="messages flow again")
        await_recovery()


@on_demand
def test_no_message_is_lost_when_traefik_is_killed_on_the_host_with_the_virtual_ip() -> None:
    (holder,) = holders_of_virtual_ip()
    path = "jsonpath={.items[0].metadata.name}"
    there = f"--namespace traefik --field-selector spec.nodeName={holder}"
    pod = kubectl(f"get pods {there} --output {path}")
    with Conversation() as conversation:
        kubectl(f"delete pod {pod} --namespace traefik --grace-period=0 --force --wait=false")
        eventually(
            lambda: len(conversation.somebody.replicas) > 1,
            within=60,
            what="the reader reconnected",
        )
        conversation.goes_on(within=60, what="messages flow again")
    await_recovery()


@on_demand
@pytest.mark.timeout(1200)
def test_no_message_is_lost_on_a_host_that_clients_reach_and_other_hosts_do_not() -> None:
    (cut,) = holders_of_virtual_ip()
    left, *_ = others = [name for name in group("all") if name != cut]
    ways = [
        f"{chain} {side} {address(other)} -j DROP"
        for other in others
        for chain, side in (
            ("INPUT", "--source"),
            ("OUTPUT", "--destination"),
            ("FORWARD", "--source"),
            ("FORWARD", "--destination"),
        )
    ]
    # Pods connect to pods of other hosts directly, by their own addresses.
    pods = ["FORWARD -o eth0 -d 10.1.0.0/16 -j DROP", "FORWARD -i eth0 -s 10.1.0.0/16 -j DROP"]
    ready = """jsonpath='{.status.conditions[?(@.type=="Ready")].status}'"""
    with Conversation() as conversation:
        with firewalled(cut, *ways, *pods):
            eventually(
                lambda: kubectl(f"get node {cut} --output {ready}", via=left) == "Unknown",
                within=90,
                what="Kubernetes considers the host lost",
            )
        conversation.goes_on(within=120, what="messages flow again")
    await_recovery()


@on_demand
@pytest.mark.timeout(1200)
def test_no_message_is_lost_when_all_hosts_lose_power_and_start_again() -> None:
    with Conversation() as conversation:
        with ExitStack() as off:
            for name in group("all"):
                off.enter_context(powered_off(name))
        conversation.goes_on(within=300, what="messages flow again")
    await_recovery()


@on_demand
@pytest.mark.timeout(1800)
def test_no_message_is_lost_while_nodes_are_drained_and_changed_one_at_a_time() -> None:
    usual = variable(group("microk8s")[0], "microk8s_launch_config")["extraKubeletArgs"]
    with Conversation() as conversation:
        for most in ("100", None):
            arguments = usual | {"--max-pods": most}
            changed = run(
                "playbooks/microk8s.yml",
                {"microk8s_launch_config": {"extraKubeletArgs": arguments}},
            )
            assert changed.succeeded, changed.said
            for name in group("microk8s"):
                used = host(name).file("/var/snap/microk8s/current/args/kubelet").content_string
                assert ("--max-pods=100" in used) == (most is not None)
            assert "SchedulingDisabled" not in kubectl("get nodes")
            conversation.goes_on(within=60, what="messages flow again")
    # Once the argument is removed, the inventory need not name it any more.
    assert run("playbooks/microk8s.yml").succeeded
    assert_changes_nothing("playbooks/microk8s.yml")


@on_demand
@pytest.mark.timeout(1800)
def test_no_message_is_lost_while_microk8s_is_upgraded() -> None:
    published = json.dumps({"microk8s": {"1.36/stable": 8950}})
    for name in group("microk8s"):
        host(name).check_output("echo %s > /var/lib/snapd/published.json", published)
    with Conversation() as conversation:
        upgraded = run("playbooks/upgrade_microk8s.yml")
        assert upgraded.succeeded, upgraded.said
        conversation.goes_on(within=60, what="messages flow again")
    for name in group("microk8s"):
        assert host(name).check_output("snap list microk8s").split()[8] == "8950"
    assert "SchedulingDisabled" not in kubectl("get nodes")
    assert run("playbooks/chat.yml").succeeded
    await_recovery()


@on_demand
@pytest.mark.timeout(1800)
def test_an_empty_machine_that_replaces_the_first_host_joins_the_existing_cluster() -> None:
    first, *others = group("microk8s")
    identity = "get namespace kube-system --output jsonpath={.metadata.uid}"
    before = kubectl(identity, via=others[0])
    its_certificate = "sha256sum /var/snap/microk8s/current/certs/kubelet.crt"
    certificate = host(first).check_output(its_certificate)
    with Conversation() as conversation:
        host(first).check_output("snap remove --purge microk8s")
        # The restart removes the old installation's iptables rules, which lead to deleted pods.
        podman("restart", first)
        eventually(lambda: host(first).run("true").rc == 0, within=60, what="the machine is up")
        replaced = run("site.yml")
        assert replaced.succeeded, replaced.said
        conversation.goes_on(within=60, what="messages flow again")
    assert host(first).check_output(its_certificate) != certificate
    assert kubectl(identity, via=first) == before
    nodes = kubectl("get nodes --output jsonpath={.items[*].metadata.name}", via=others[0])
    assert sorted(nodes.split()) == sorted(group("microk8s"))
    await_recovery()


def test_the_status_names_a_host_that_hangs_and_finds_nothing_wrong_without_it() -> None:
    last = group("kafka")[-1]
    with frozen(last):
        shown = status()
    assert shown.succeeded, shown.said
    assert f"{last}: NOT REACHED" in shown.said
    assert f"not there: {last}" in shown.said
    assert "chat/chat: 2 of 2 ready" in shown.said
    assert set(shown.changed.values()) == {0}
    await_recovery()
