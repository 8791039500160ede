"""A host that is down, or not in this run, has the address of the inventory."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_runs import LINEAR, ROOT, ansible_playbook

# These hosts are down: nothing listens on the port. No host has the addresses (RFC 5737).
DOWN = {"ansible_port": 1, "ansible_ssh_common_args": "-o ProxyCommand=false"}
BROKERS = {
    "up": {"ansible_connection": "local", "kafka_address": "192.0.2.11"},
    "address": DOWN | {"ansible_host": "192.0.2.12"},
    "variable": DOWN | {"ansible_host": "192.0.2.99", "kafka_address": "kafka3.example.org"},
    "192.0.2.14": DOWN | {"kafka_listeners": {"CLUSTER": {"port": 19093}}},
    "unknown.invalid": DOWN,
}


def say(group: str, endpoint: str) -> dict[str, Any]:
    """A task that prints the endpoint of each host of the group."""
    reached = f"groups['{group}'] | map('extract', hostvars) | map(attribute='{endpoint}')"
    return {"ansible.builtin.debug": {"msg": f"={{{{ {reached} }}}}"}}


def run(folder: Path, plays: list[dict[str, Any]], hosts: dict[str, Any], *options: str) -> str:
    """Run the plays for brokers, which are also ZooKeeper members; return the output."""
    groups = {name: {"hosts": hosts} for name in ("kafka", "zookeeper")}
    site = folder / "hosts.json"
    site.write_text(json.dumps({"all": {"children": groups}}))
    playbook = folder / "play.json"
    playbook.write_text(json.dumps(plays))
    done = ansible_playbook(f"--inventory={site}", *options, playbook, **LINEAR)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lists(said: str) -> list[list[str]]:
    return [json.loads(told.replace("'", '"')) for told in re.findall(r'"msg": "=(.*)"', said)]


def test_the_chat_gets_addresses_of_brokers_that_are_down(tmp_path: Path) -> None:
    told = [say("kafka", "kafka_endpoints.CLUSTER")]
    play = {"hosts": "up", "gather_facts": False, "tasks": told}
    chat = {"ansible.builtin.import_playbook": str(ROOT / "playbooks/chat.yml")}
    hosts = {name: broker | {"kafka_broker_id": 1} for name, broker in BROKERS.items()}
    said = run(tmp_path, [chat, play], hosts)
    assert lists(said) == [
        [
            "192.0.2.11:9093",
            "192.0.2.12:9093",
            "kafka3.example.org:9093",
            "192.0.2.14:19093",
            # Role chat refuses this one.
            ":9093",
        ]
    ]
    said = " ".join(said.split())
    assert "address does not answer. The chat will look for its broker at 192.0.2.12:9093" in said
    assert "up does not answer" not in said


@pytest.mark.parametrize(
    ("own", "others"),
    [
        ("192.0.2.11", ["192.0.2.12", "kafka3.example.org", "192.0.2.14"]),
        # The controller uses another address than hosts among themselves; preflight refuses that.
        ("10.0.0.11", ["", "kafka3.example.org", ""]),
    ],
)
def test_with_limit_other_hosts_have_ansible_host_if_it_is_right_for_the_host_in_the_run(
    own: str, others: list[str], tmp_path: Path
) -> None:
    hosts = {
        "up": {"ansible_connection": "local", "ansible_host": "192.0.2.11"},
        "address": DOWN | {"ansible_host": "192.0.2.12"},
        "variable.invalid": DOWN | {"kafka_address": "kafka3.example.org"},
        "192.0.2.14": DOWN,
    }
    tasks = [
        {"ansible.builtin.set_fact": {"default_ipv4": {"address": own}, "cacheable": True}},
        *(
            {
                "ansible.builtin.include_role": {
                    "name": f"baremetal_chat.platform.{role}",
                    "tasks_from": "endpoints.yml",
                }
            }
            for role in ("kafka", "zookeeper")
        ),
        say("kafka", "kafka_endpoints.CLIENT"),
        say("zookeeper", "zookeeper_endpoints.client"),
    ]
    play = {"hosts": "kafka", "gather_facts": False, "tasks": tasks}
    brokers, members = lists(run(tmp_path, [play], hosts, "--limit=up"))
    assert brokers == [f"{address}:9092" for address in (own, *others)]
    # The third host has no variable for its ZooKeeper address, and its name does not resolve.
    assert members == [f"{address}:2181" for address in (own, others[0], "", others[2])]
