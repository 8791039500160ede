"""Sites with only some of the layers: somebody else runs the brokers, or there is no cluster.

A missing group is treated like one without hosts. All hosts here are this machine, so the tests run
only tasks that read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_runs import LINEAR, ansible_playbook
from kafka_broker import KafkaBroker
from kubernetes_api import NODE, KubernetesApi

# Ansible's messages for missing variables and items.
RAW_ERRORS = ["undefined", "has no attribute", "No first item", "object of type", "Traceback"]

# Variables of a host that does not respond.
AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}


def site(folder: Path, **groups: dict[str, Any]) -> Path:
    """An inventory of these groups, each with hosts and their variables."""
    path = folder / "hosts.json"
    shared = {"ansible_connection": "local", "ansible_become": False}
    children = {name: {"hosts": hosts} for name, hosts in groups.items()}
    path.write_text(json.dumps({"all": {"vars": shared, "children": children}}))
    return path


def run(inventory: Path, *playbooks: str, **variables: Any) -> tuple[int, str]:
    """Run playbooks; return exit code and output, on one line. Fail on raw errors of Ansible."""
    # On a busy machine, a host takes longer to answer than operators wait for status.yml.
    variables = {"status_seconds": 60} | variables
    done = ansible_playbook(
        f"--inventory={inventory}",
        f"--extra-vars={json.dumps(variables)}",
        *(f"playbooks/{name}.yml" for name in playbooks),
        ANSIBLE_LOCALHOST_WARNING="false",
        **(LINEAR if '"ssh"' in inventory.read_text() else {}),
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert not [error for error in RAW_ERRORS if error in said], said
    return done.returncode, said


def test_validate_names_and_skips_layers_without_hosts(tmp_path: Path) -> None:
    inventory = site(tmp_path, microk8s={"node": {}}, zookeeper={})
    with KubernetesApi(tmp_path) as api:
        _, said = run(inventory, "validate", microk8s_kubeconfig=api.kubeconfig)
    assert "these groups of the inventory have no host: zookeeper, kafka." in said
    assert f"Ready: {NODE['metadata']['name']}." in said


def inventoried(broker: KafkaBroker) -> dict[str, Any]:
    """A broker's variables in an inventory."""
    host, port = broker.bootstrap_servers.split(":")
    listener = {"CLIENT": {"advertised_host": host, "advertised_port": int(port)}}
    return {"kafka_broker_id": 0, "kafka_security": "plaintext", "kafka_listeners": listener}


def test_validate_checks_the_other_hosts_and_fails_if_one_does_not_respond(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    brokers = {"broker": inventoried(kafka_broker), "gone": AWAY | {"kafka_broker_id": 1}}
    code, said = run(site(tmp_path, kafka=brokers), "validate")
    assert code == 2, said
    assert "Brokers 0 are there, 0 is the controller" in said
    assert "'Hello, World' went into TutorialTopic" in said
    assert "gone did not respond. All checks of the other hosts passed." in said


def test_validate_checks_brokers_if_zookeeper_and_microk8s_have_no_hosts(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    inventory = site(tmp_path, kafka={"broker": inventoried(kafka_broker)}, zookeeper={})
    code, said = run(inventory, "validate")
    assert code == 0, said
    assert "these groups of the inventory have no host: zookeeper, microk8s." in said
    assert "Brokers 0 are there" in said


def test_status_shows_existing_layers_and_names_layers_without_hosts(
    kafka_broker: KafkaBroker, tmp_path: Path
) -> None:
    """A layer that is not in the inventory is not marked as a problem."""
    broker = inventoried(kafka_broker)
    code, said = run(site(tmp_path, kafka={"broker": broker}, zookeeper={}), "status")
    assert code == 0, said
    assert "1 of 1 brokers, controller: broker" in said
    for group in ("zookeeper", "microk8s"):
        assert f"skipped: the inventory has no host in the group {group}" in said

    code, said = run(site(tmp_path, microk8s={"node": {}}, zookeeper={}), "status")
    assert code == 0, said
    assert "node: microk8s: not installed" in said
    assert "skipped: the inventory has no host in the group kafka" in said


def test_status_fails_when_no_host_is_reached(tmp_path: Path) -> None:
    members = {"member": AWAY | {"zookeeper_id": 1}}
    brokers = {"broker": AWAY | {"kafka_broker_id": 1}}
    inventory = site(tmp_path, zookeeper=members, kafka=brokers, microk8s={"node": AWAY})
    code, said = run(inventory, "status")
    assert code == 2, said
    assert "No host told its status." in said
    for host in ("member", "broker", "node"):
        assert f"{host}: NOT REACHED: connect to host 127.0.0.1 port 9: Connection refused" in said
    assert "0 of 1 brokers: no broker's host was reached" in said


def test_playbooks_for_missing_layers_succeed_and_do_nothing(tmp_path: Path) -> None:
    inventory = site(tmp_path, microk8s={"node": AWAY}, zookeeper={})
    code, said = run(
        inventory, "restart", "upgrade", "scale", "artifacts", "logs", logs_directory=str(tmp_path)
    )
    assert code == 0, said
    assert '"variable": "microk8s_channel"' in said
    assert "Not reached: node." in said


def test_playbooks_for_a_missing_cluster_succeed_and_do_nothing(tmp_path: Path) -> None:
    inventory = site(tmp_path, kafka={"broker": {"kafka_broker_id": 0}}, microk8s={})
    code, said = run(inventory, "preflight", "microk8s", "traefik", "chat", "render", "rollback")
    assert code == 0, said


def test_a_backup_without_zookeeper_hosts_is_refused(tmp_path: Path) -> None:
    inventory = site(tmp_path, kafka={"broker": {}}, zookeeper={})
    for playbook in ("backup", "restore"):
        code, said = run(inventory, playbook)
        assert code == 2, said
        assert "0 hosts in the group zookeeper and 1 in the group kafka" in said


@pytest.mark.parametrize("missing", ["ca.crt", "passwords/chat"])
def test_the_chat_is_not_deployed_without_kafkas_authority_or_its_password(
    missing: str, tmp_path: Path
) -> None:
    """A colleague's machine may have the inventory, but not the folder beside it."""
    folder = tmp_path / "mine-kafka-tls"
    (folder / "passwords").mkdir(parents=True)
    for name in {"ca.crt", "passwords/chat"} - {missing}:
        (folder / name).write_text("known")
    broker = {
        "kafka_client": {"ca_file": str(folder / "ca.crt")},
        "kafka_tls_passwords": str(folder / "passwords"),
        "kafka_passwords_made": ["chat"],
    }
    inventory = site(tmp_path, kafka={"broker": broker})
    role = {"name": "baremetal_chat.platform.chat", "tasks_from": "deploy.yml"}
    tasks = [{"ansible.builtin.import_role": role}]
    play = tmp_path / "play.json"
    play.write_text(json.dumps([{"hosts": "broker", "gather_facts": False, "tasks": tasks}]))
    done = ansible_playbook(f"--inventory={inventory}", play)
    said = " ".join(done.stdout.split())
    assert f"their authority ({folder}/ca.crt) or the password" in said
    assert f"({folder}/passwords/chat) is not on this machine. Copy the folder" in said
