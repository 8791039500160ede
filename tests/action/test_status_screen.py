"""The screen of playbooks/status.yml: healthy parts are short, problems are marked and named."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins" / "action" / "status_screen.py"
specification = importlib.util.spec_from_file_location("status_screen", PLUGIN)
assert specification is not None
assert specification.loader is not None
status_screen = importlib.util.module_from_spec(specification)
specification.loader.exec_module(status_screen)

Seen = dict[str, Any]


def host(**more: Any) -> Seen:
    running = {"zookeeper": "3.8.4", "kafka": "3.8.1"}
    return {
        "services": {n: {"state": "active", "version": v} for n, v in running.items()},
        "certificates": {},
        "ending": [],
        "microk8s": "",
        "registry": None,
        "nodes": {},
        "controllers": None,
        "workloads": [],
        "replicas": {},
        "problems": {},
    } | more


@pytest.fixture
def seen() -> Seen:
    """Three healthy hosts."""
    image = "localhost:32000/chat@sha256:" + 64 * "a"
    traefik = "docker.io/library/traefik:v3.6.5"
    pods = {"ready": 1, "wanted": 1, "ours": True}
    cluster = {
        "microk8s": "v1.36.3 (1.36/stable)",
        "registry": 1,
        "nodes": {"chat1": True},
        "controllers": {"leader": "chat1", "silent": 2},
        "workloads": [
            pods | {"name": "chat/chat", "ready": 2, "wanted": 2, "images": [image]},
            pods | {"name": "traefik/traefik", "images": [traefik]},
            pods | {"name": "kube-system/coredns", "images": ["coredns"], "ours": False},
        ],
        "replicas": {"chat-a": {"clients": 3, "behind": 0}, "chat-b": {"clients": 4, "behind": 7}},
        "certificates": {"chat/chat-tls": 61, "/var/snap/microk8s/current/certs/ca.crt": 3600},
    }
    members = {f"chat{n}": f"192.0.2.1{n}:2181" for n in (1, 2, 3)}
    return {
        "hosts": {"chat1": host(**cluster), "chat2": host(), "chat3": host()},
        "unreached": {"chat1": "", "chat2": "", "chat3": ""},
        "members": members,
        "ensemble": {
            "modes": dict(zip(members.values(), ("follower", "leader", "follower"), strict=True)),
            "leaders": [members["chat2"]],
            "failed_servers": {},
        },
        "brokers": {"chat1": "1", "chat2": "2", "chat3": "3"},
        "cluster": {
            "brokers": [{"id": 1}, {"id": 2}, {"id": 3}],
            "silent": {},
            "controller": 2,
            "under_replicated": [],
            "under_min_isr": [],
            "offline": [],
        },
        "cluster_hosts": ["chat1"],
    }


def shown(seen: Seen) -> str:
    lines = status_screen.screen(seen)
    return "\n".join([*map(str, lines), status_screen.summary(lines)])


def test_a_healthy_system_fits_on_a_screen_and_nothing_is_marked(seen: Seen) -> None:
    assert (
        shown(seen)
        == """\
   Hosts        3 of 3 up
                chat1: zookeeper 3.8.4 active, kafka 3.8.1 active, microk8s v1.36.3 (1.36/stable)
                chat2: zookeeper 3.8.4 active, kafka 3.8.1 active
                chat3: zookeeper 3.8.4 active, kafka 3.8.1 active
   ZooKeeper    3 of 3 members serve, leader: chat2
   Kafka        3 of 3 brokers, controller: chat2
   Partitions   0 under-replicated; 0 too few in sync to write; 0 without a leader
   Nodes        1 of 1 ready: chat1; controllers: chat1
   Pods         chat/chat: 2 of 2 ready, localhost:32000/chat@aaaaaaaa
   Pods         traefik/traefik: 1 of 1 ready, traefik:v3.6.5
   Pods         others ready: kube-system/coredns
   Registry     answers on 1 of 1 hosts, 1 images
   Chat         7 clients connected: chat-a 3, chat-b 4; 7 records behind the log
   Certificates chat/chat-tls 61 days, chat1:ca.crt 3600 days
   All is as it should be."""
    )


def test_the_chats_certificate_comes_before_those_of_hosts(seen: Seen) -> None:
    for name in ("chat1", "chat2", "chat3"):
        for kind in ("server", "front-proxy-client"):
            seen["hosts"][name]["certificates"][f"/certs/{kind}.crt"] = 364
    seen["hosts"]["chat1"]["certificates"] |= {"chat/chat-tls": 396, "chat-ca/ca": 3650}
    assert "   Certificates chat/chat-tls 396 days, chat-ca/ca 3650 days, chat1:server" in shown(
        seen
    )
    # Certificates that expire soon come first.
    seen["hosts"]["chat3"]["certificates"]["/certs/server.crt"] = 7
    seen["hosts"]["chat3"]["ending"] = ["/certs/server.crt"]
    assert "!! Certificates chat3:server.crt 7 days, chat/chat-tls 396 days" in shown(seen)


def test_a_host_that_is_down_is_marked_in_every_layer_that_it_belongs_to(seen: Seen) -> None:
    seen["hosts"]["chat3"] = {"skipped": True}
    seen["unreached"]["chat3"] = "Failed to connect:\nssh: connect to host chat3: No route to host"
    seen["members"]["chat3"] = ""
    del seen["ensemble"]["modes"]["192.0.2.13:2181"]
    seen["cluster"] |= {
        "brokers": [{"id": 1}, {"id": 2}],
        "under_replicated": [f"chat-{number}" for number in range(12)],
    }
    text = shown(seen)
    assert "!! Hosts        2 of 3 up" in text
    assert "chat3: NOT REACHED: connect to host chat3: No route to host" in text
    assert "!! ZooKeeper    2 of 3 members serve, leader: chat2" in text
    assert "!! Kafka        2 of 3 brokers, controller: chat2; not there: chat3" in text
    assert "!! Partitions   12 under-replicated (chat-0, chat-1, chat-2, chat-3, chat-4" in text
    assert "!! Look at: Hosts, ZooKeeper, Kafka, Partitions" in text


def test_a_reachable_host_without_a_status_is_not_called_unreachable(
    seen: Seen,
) -> None:
    seen["hosts"]["chat3"] = {"failed": True, "msg": "Task failed: Timed out after 8 second(s)."}
    text = shown(seen)
    assert "chat3: NO STATUS: Task failed: Timed out after 8 second(s)." in text
    assert "NOT REACHED" not in text


def test_the_clusters_state_comes_from_any_cluster_host_that_responds(seen: Seen) -> None:
    told = seen["hosts"]["chat1"]
    seen["cluster_hosts"] = ["chat1", "chat2"]
    seen["hosts"] |= {"chat1": {}, "chat2": told | {"nodes": {"chat1": False, "chat2": True}}}
    text = shown(seen)
    assert "!! Nodes        1 of 2 ready: chat2; not ready: chat1" in text
    assert "chat/chat: 2 of 2 ready" in text


def test_the_clusters_state_does_not_come_from_a_host_that_has_not_joined(seen: Seen) -> None:
    told = seen["hosts"]["chat1"]
    seen["cluster_hosts"] = ["chat1", "chat2", "chat3"]
    seen["hosts"] |= {
        "chat1": told | {"workloads": []},
        "chat2": told | {"nodes": {"chat2": True, "chat3": True}},
    }
    text = shown(seen)
    assert "!! Nodes        2 of 3 ready: chat2, chat3" in text
    assert "chat/chat: 2 of 2 ready" in text


def test_other_layers_are_shown_without_the_only_cluster_host(seen: Seen) -> None:
    seen["hosts"]["chat1"] = {}
    text = shown(seen)
    assert "!! Nodes        0 of 1: no cluster host answers for the cluster" in text
    assert "Kafka        3 of 3 brokers" in text


# Problems: where in the facts, the value, and the text on the screen.
TROUBLE: dict[str, tuple[list[Any], Any, str]] = {
    "a unit that is stopped": (
        ["hosts", "chat2", "services", "kafka", "state"],
        "failed",
        "!!              chat2: zookeeper 3.8.4 active, kafka 3.8.1 failed",
    ),
    "a part that does not respond": (
        ["hosts", "chat2", "problems"],
        {"microk8s": "none"},
        "!!              chat2: zookeeper 3.8.4 active, kafka 3.8.1 active, microk8s: none",
    ),
    "no leader": (
        ["ensemble", "leaders"],
        [],
        "!! ZooKeeper    3 of 3 members serve, leader: none",
    ),
    "one member left of three": (
        ["ensemble", "modes"],
        {"192.0.2.12:2181": "standalone"},
        "!! ZooKeeper    0 of 3 members serve, leader: none; NO QUORUM",
    ),
    "a broker that is registered and silent": (
        ["cluster", "silent"],
        {"3": "timed out"},
        "!! Kafka        2 of 3 brokers, controller: chat2; not there: chat3",
    ),
    "no broker": (["cluster"], {"msg": "No Kafka broker answered"}, "0 of 3 brokers: No Kafka"),
    "a controller that does not respond": (
        ["cluster", "silent"],
        {"2": "timed out"},
        "!! Kafka        2 of 3 brokers, controller: none; not there: chat2",
    ),
    "no controller": (
        ["cluster", "controller"],
        None,
        "!! Kafka        3 of 3 brokers, controller: none",
    ),
    "a partition without a leader": (
        ["cluster", "offline"],
        ["chat-1"],
        "1 without a leader (chat-1)",
    ),
    "controllers without a leader": (
        ["hosts", "chat1", "controllers", "silent"],
        16,
        "!! Nodes        1 of 1 ready: chat1; controllers: NO LEADER",
    ),
    "a pod that is missing": (
        ["hosts", "chat1", "workloads", 0, "ready"],
        1,
        "!! Pods         chat/chat: 1 of 2 ready",
    ),
    "an add-on that is not ready": (
        ["hosts", "chat1", "workloads", 2, "ready"],
        0,
        "!! Pods         kube-system/coredns: 0 of 1 ready, coredns",
    ),
    "no registry": (
        ["hosts", "chat1", "registry"],
        None,
        "!! Registry     answers on 0 of 1 hosts",
    ),
    "a replica that does not respond": (
        ["hosts", "chat1", "replicas", "chat-b"],
        None,
        "!! Chat         3 clients connected: chat-a 3; chat-b: no answer",
    ),
    "no replica": (
        ["hosts", "chat1", "replicas"],
        {},
        "!! Chat         0 clients connected, no replica answers",
    ),
    "a certificate that expires soon": (
        ["hosts", "chat2"],
        host(certificates={"chat/trial": 29}, ending=["chat/trial"]),
        "!! Certificates chat/trial 29 days, chat/chat-tls 61 days",
    ),
    "a certificate that has expired": (
        ["hosts", "chat2"],
        host(certificates={"chat/trial": -1}, ending=["chat/trial"]),
        "!! Certificates chat/trial HAS ENDED, chat/chat-tls 61 days",
    ),
}


@pytest.mark.parametrize("case", TROUBLE)
def test_a_problem_is_marked(case: str, seen: Seen) -> None:
    path, value, words = TROUBLE[case]
    changed = copy.deepcopy(seen)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    text = shown(changed)
    assert words in text
    assert "!! Look at: " in text


@pytest.mark.parametrize(
    ("layer", "group", "missing"),
    [
        ("ZooKeeper", "zookeeper", {"members": {}, "ensemble": {"skipped": True}}),
        ("Kafka", "kafka", {"brokers": {}, "cluster": {"skipped": True}}),
        ("Nodes", "microk8s", {"cluster_hosts": []}),
    ],
)
def test_a_layer_without_hosts_is_named_but_not_marked(
    layer: str, group: str, missing: Seen, seen: Seen
) -> None:
    text = shown(seen | missing)
    assert f"   {layer:<13}skipped: the inventory has no host in the group {group}" in text
    assert "All is as it should be" in text


def test_a_long_reason_is_wrapped_and_cut(seen: Seen) -> None:
    seen["hosts"]["chat1"]["problems"] = {"cluster": "no " * 1000 + "answer"}
    lines = shown(seen).splitlines()
    assert max(map(len, lines)) <= status_screen.WIDTH
    assert len(lines) < 25
