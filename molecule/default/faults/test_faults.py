"""The chat through the loss of its parts: a pod, replicas, a broker, a ZooKeeper member, a host."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster import kubectl
from drill import (
    Conversation,
    all_is_as_before,
    holders_of_the_way_in,
    on_demand,
    ready_replicas,
    replicas,
    status,
)
from hosts import address, eventually, frozen, group, podman, powered_off, variable
from hosts import connect as host
from units import firewalled

from playbooks import inventory, run


@pytest.fixture(autouse=True)
def two_replicas() -> None:
    eventually(lambda: len(ready_replicas()) == 2, within=60, what="two replicas are ready")


def test_a_killed_pod_costs_nobody_a_message() -> None:
    with Conversation() as conversation:
        victim = conversation.somebody.replicas[-1]
        kubectl(f"delete pod {victim} --grace-period=0 --force --wait=false")
        eventually(
            lambda: len(ready_replicas()) == 2 and victim not in ready_replicas(),
            within=90,
            what="a new pod took the killed one's place",
        )
        conversation.goes_on(within=60, what="the conversation goes on")
        assert len(conversation.somebody.replicas) > 1, "the reader had to come back"


def test_scaling_out_and_back_costs_nobody_a_message() -> None:
    with Conversation() as conversation:
        for count in (4, 2):
            kubectl(f"scale deployment chat --replicas={count}")
            eventually(
                lambda count=count: len(ready_replicas()) == count,
                within=120,
                what=f"{count} replicas are ready",
            )
            conversation.goes_on(within=60, what="the conversation goes on")


def test_a_rolling_restart_costs_nobody_a_message() -> None:
    with Conversation() as conversation:
        kubectl("rollout restart deployment chat")
        kubectl("rollout status deployment chat --timeout=180s")
        eventually(lambda: len(ready_replicas()) == 2, within=90, what="the old replicas are gone")
        conversation.goes_on(within=60, what="the conversation goes on")


def test_a_rollout_that_never_gets_ready_is_rolled_back_and_costs_nobody_a_message() -> None:
    with Conversation() as conversation:
        victim, other = ready_replicas()
        failed = run(
            "playbooks/chat.yml",
            {"chat_config": {"CHAT_RATE": "fast"}, "chat_rollout_timeout": 20},
        )
        assert not failed.succeeded
        assert "CHAT_RATE" in failed.said, failed.said
        assert [name for name, ready in replicas().items() if ready] == [victim, other]
        # A replica that starts again meanwhile reads the environment it was made for.
        kubectl(f"delete pod {victim}")
        eventually(
            lambda: victim not in replicas() and sum(replicas().values()) == 2,
            within=90,
            what="a new pod took its place",
        )
        back = run("playbooks/rollback.yml")
        assert back.succeeded, back.said
        assert len(ready_replicas()) == 2
        conversation.goes_on(within=60, what="the conversation goes on")


def test_the_chat_goes_on_without_one_broker_and_one_zookeeper_member() -> None:
    last = host(group("kafka")[-1])
    with Conversation() as conversation:
        try:
            last.check_output("systemctl stop kafka zookeeper")
            conversation.goes_on(within=60, what="two of three brokers carry the conversation")
        finally:
            last.check_output("systemctl start zookeeper kafka")
        conversation.goes_on(within=60, what="the conversation goes on with all three")


def lead_the_way_in_to(wanted: str) -> None:
    """The others leave the address, one of the rest takes it, and none takes it back."""
    others = [host(name) for name in group("microk8s") if name != wanted]
    for each in others:
        each.check_output("systemctl stop keepalived")
    eventually(lambda: holders_of_the_way_in() == [wanted], within=30, what="the way in has moved")
    for each in others:
        each.check_output("systemctl start keepalived")


@pytest.mark.timeout(1200)
def test_any_one_machine_may_die_and_the_chat_can_be_deployed_without_it(tmp_path: Path) -> None:
    """The worst one: it has the way in and the registry, a control plane, a broker and a member."""
    registry = "get pods --namespace container-registry --output jsonpath={.items[0].spec.nodeName}"
    down = kubectl(registry)
    left = next(name for name in group("microk8s") if name != down)
    lead_the_way_in_to(down)
    # A host that is down cannot tell its address, and nobody resolves the names of the sandbox.
    brokers = {name: {"kafka_address": address(name)} for name in group("kafka")}
    addresses = inventory(tmp_path, {"kafka": brokers})
    with Conversation() as conversation:
        with powered_off(down):
            conversation.goes_on(within=90, what="the conversation goes on elsewhere")

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
        conversation.goes_on(within=60, what="the conversation goes on")
    all_is_as_before()


@on_demand
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("down", group("microk8s"))
def test_each_machine_may_die(down: str) -> None:
    lead_the_way_in_to(down)
    with Conversation() as conversation:
        with powered_off(down):
            conversation.goes_on(within=90, what="the conversation goes on elsewhere")
        conversation.goes_on(within=60, what="the conversation goes on")
        all_is_as_before()


@on_demand
def test_the_edge_on_the_host_with_the_address_may_be_killed() -> None:
    (holder,) = holders_of_the_way_in()
    path = "jsonpath={.items[0].metadata.name}"
    there = f"--namespace traefik --field-selector spec.nodeName={holder}"
    pod = kubectl(f"get pods {there} --output {path}")
    with Conversation() as conversation:
        kubectl(f"delete pod {pod} --namespace traefik --grace-period=0 --force --wait=false")
        eventually(
            lambda: len(conversation.somebody.replicas) > 1, within=60, what="the reader came back"
        )
        conversation.goes_on(within=60, what="the conversation goes on")
    all_is_as_before()


@on_demand
@pytest.mark.timeout(1200)
def test_a_host_that_is_cut_off_from_the_others_fools_nobody_who_reaches_it() -> None:
    (cut,) = holders_of_the_way_in()
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
    # Pods reach those of other hosts by their own addresses.
    pods = ["FORWARD -o eth0 -d 10.1.0.0/16 -j DROP", "FORWARD -i eth0 -s 10.1.0.0/16 -j DROP"]
    ready = """jsonpath='{.status.conditions[?(@.type=="Ready")].status}'"""
    with Conversation() as conversation:
        with firewalled(cut, *ways, *pods):
            eventually(
                lambda: kubectl(f"get node {cut} --output {ready}", via=left) == "Unknown",
                within=90,
                what="the others miss it",
            )
        conversation.goes_on(within=120, what="the conversation goes on")
    all_is_as_before()


@on_demand
@pytest.mark.timeout(1200)
def test_all_machines_may_stop_and_the_history_is_there_when_they_are_back() -> None:
    with Conversation() as conversation:
        with ExitStack() as off:
            for name in group("all"):
                off.enter_context(powered_off(name))
        conversation.goes_on(within=300, what="the conversation goes on")
    all_is_as_before()


@on_demand
@pytest.mark.timeout(1800)
def test_hosts_are_drained_and_changed_one_at_a_time_and_it_costs_nobody_a_message() -> None:
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
            conversation.goes_on(within=60, what="the conversation goes on")
    # Once it is removed, it need not be named any more.
    assert run("playbooks/microk8s.yml").succeeded
    again = run("playbooks/microk8s.yml")
    assert set(again.changed.values()) == {0}, again.said


@on_demand
@pytest.mark.timeout(1800)
def test_a_new_revision_of_microk8s_is_installed_and_it_costs_nobody_a_message() -> None:
    published = json.dumps({"microk8s": {"1.36/stable": 8950}})
    for name in group("microk8s"):
        host(name).check_output("echo %s > /var/lib/snapd/published.json", published)
    with Conversation() as conversation:
        upgraded = run("playbooks/upgrade_microk8s.yml")
        assert upgraded.succeeded, upgraded.said
        conversation.goes_on(within=60, what="the conversation goes on")
    for name in group("microk8s"):
        assert host(name).check_output("snap list microk8s").split()[8] == "8950"
    assert "SchedulingDisabled" not in kubectl("get nodes")
    assert run("playbooks/chat.yml").succeeded
    all_is_as_before()


@on_demand
@pytest.mark.timeout(1800)
def test_an_empty_machine_that_replaces_the_first_joins_the_cluster_of_the_others() -> None:
    first, *others = group("microk8s")
    identity = "get namespace kube-system --output jsonpath={.metadata.uid}"
    before = kubectl(identity, via=others[0])
    its_certificate = "sha256sum /var/snap/microk8s/current/certs/kubelet.crt"
    certificate = host(first).check_output(its_certificate)
    with Conversation() as conversation:
        host(first).check_output("snap remove --purge microk8s")
        # A new kernel has no rules of the old one's network, which lead to pods that are gone.
        podman("restart", first)
        eventually(lambda: host(first).run("true").rc == 0, within=60, what="the machine is up")
        replaced = run("site.yml")
        assert replaced.succeeded, replaced.said
        conversation.goes_on(within=60, what="the conversation goes on")
    assert host(first).check_output(its_certificate) != certificate
    assert kubectl(identity, via=first) == before
    nodes = kubectl("get nodes --output jsonpath={.items[*].metadata.name}", via=others[0])
    assert sorted(nodes.split()) == sorted(group("microk8s"))
    all_is_as_before()


def test_the_status_is_shown_with_a_host_that_hangs_and_when_all_is_well() -> None:
    last = group("kafka")[-1]
    with frozen(last):
        shown = status()
    assert shown.succeeded, shown.said
    assert f"{last}: NOT REACHED" in shown.said
    assert f"not there: {last}" in shown.said
    assert "chat/chat: 2 of 2 ready" in shown.said
    assert set(shown.changed.values()) == {0}
    all_is_as_before()
