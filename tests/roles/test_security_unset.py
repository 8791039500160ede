"""How a cluster is secured if the inventory does not set kafka_security.

Each case is a cluster in a group of its own, and all hosts are this machine. A program stands in
for the host's `grep`: it reads the host's files below a folder.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_runs import ansible_playbook

MAP = "listener.security.protocol.map"
BROKER = {
    "plaintext": f"advertised.listeners=INTERNAL://192.0.2.11:9091\n{MAP}=INTERNAL:PLAINTEXT\n",
    # A site's own certificates, by kafka_config.
    "own": f"{MAP}=INTERNAL:PLAINTEXT,CLUSTER:SASL_SSL\nssl.keystore.location=/etc/kafka/own.pem\n",
    "prepared": f"{MAP}=INTERNAL:PLAINTEXT,INTERNAL_TLS:SSL\n",
    "tls": f"{MAP}=INTERNAL_TLS:SSL\n",
}
KEYS = "ssl.keyStore.location=/etc/zookeeper/host.pem\nsslQuorum=false\n"
MEMBER = {
    "plaintext": "clientPort=2181\nserver.1=192.0.2.11:2888:3888\n",
    "prepared": f"clientPort=2181\n{KEYS}",
    "tls": f"secureClientPort=2181\n{KEYS}",
}


class Host(NamedTuple):
    """What is installed: the stages in the files of its broker and its member."""

    broker: str = ""
    member: str = ""
    answers: bool = True
    # kafka_security in the inventory, for this host alone.
    told: str = ""


EMPTY, DOWN = Host(), Host(answers=False)
PLAINTEXT, TLS = Host("plaintext", "plaintext"), Host("tls", "tls")

# Hosts of a cluster, what it is to have, and the hosts without whose answer that is a guess.
CASES: dict[str, tuple[list[Host], str, list[int]]] = {
    "a new cluster": ([EMPTY, EMPTY], "tls", []),
    "an installed cluster without TLS": ([PLAINTEXT, PLAINTEXT], "plaintext", []),
    "an installed cluster with TLS": ([TLS, TLS], "tls", []),
    "a new host of a cluster without TLS": ([EMPTY, PLAINTEXT], "plaintext", []),
    "a new host of a cluster with TLS": ([TLS, EMPTY], "tls", []),
    "new members for brokers without TLS": (
        [Host(member=""), Host(broker="plaintext")],
        "plaintext",
        [],
    ),
    "new brokers for members without TLS": ([EMPTY, Host(member="plaintext")], "plaintext", []),
    "a first installation with TLS that was interrupted": (
        [Host(member="tls"), EMPTY],
        "tls",
        [],
    ),
    # The roles refuse to go on with a move, and name the playbook that does.
    "a cluster on its way": ([Host("plaintext", "prepared"), PLAINTEXT], "tls", []),
    "brokers on their way": ([Host("prepared", "prepared")], "tls", []),
    "a site's own TLS for some listeners": ([Host("own", "plaintext")], "plaintext", []),
    "a host that is down, of a cluster without TLS": ([DOWN, PLAINTEXT], "plaintext", []),
    "a host that is down, of a cluster with TLS": ([TLS, DOWN], "tls", []),
    "an empty host while the other is down": ([EMPTY, DOWN], "tls", [1]),
    "nobody answers": ([DOWN, DOWN], "tls", [0, 1]),
}

GREP = """#!/bin/sh
for each; do
  shift
  case $each in /etc/*) each=$FOLDER/$HOST$each ;; esac
  set -- "$@" "$each"
done
/bin/grep "$@" > "$FOLDER/$HOST/said"
code=$?
sed "s|^$FOLDER/$HOST||" "$FOLDER/$HOST/said"
exit $code
"""

VARIABLES = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    "kafka_group": "{{ cluster }}",
    "zookeeper_group": "{{ cluster }}",
    "kafka_broker_id": 1,
    "zookeeper_id": 1,
    "zookeeper_address": "192.0.2.11",
    "kafka_address": "192.0.2.11",
    "kafka_distribution_wanted": "3.9.2",
    "kafka_zookeeper_connect": "192.0.2.11:2181/kafka",
}
FACTS = {
    "ansible.builtin.set_fact": {"default_ipv4": {"address": "192.0.2.11"}, "cacheable": True},
    "when": "answers",
}


def role(name: str, tasks_from: str) -> dict[str, Any]:
    return {"name": f"baremetal_chat.platform.{name}", "tasks_from": tasks_from}


def say(what: str) -> dict[str, Any]:
    return {"ansible.builtin.debug": {"msg": f"={{{{ {what} | to_json | b64encode }}}}="}}


def run(
    folder: Path,
    clusters: dict[str, tuple[list[Host], dict[str, Any]]],
    tasks: list[dict[str, Any]],
    what: str,
) -> tuple[dict[str, Any], str]:
    """Run tasks, and return what the hosts say then, and the output."""
    (folder / "grep").write_text(GREP)
    (folder / "grep").chmod(0o755)
    groups: dict[str, Any] = {}
    for cluster, (hosts, variables) in clusters.items():
        groups[cluster] = {"hosts": {}, "vars": {"cluster": cluster} | variables}
        for number, host in enumerate(hosts):
            name = f"{cluster}_{number}"
            own = {"kafka_security": host.told} if host.told else {}
            groups[cluster]["hosts"][name] = {"answers": host.answers} | own
            for path, text in {
                "kafka/server.properties": BROKER.get(host.broker),
                "zookeeper/zoo.cfg": MEMBER.get(host.member),
            }.items():
                file = folder / name / "etc" / path
                file.parent.mkdir(parents=True)
                if text:
                    file.write_text(text)
    inventory = {"all": {"children": groups, "vars": VARIABLES}}
    (folder / "hosts.json").write_text(json.dumps(inventory))
    play = {
        "hosts": "all",
        "gather_facts": False,
        "environment": {
            "PATH": f"{folder}:/usr/bin:/bin",
            "FOLDER": str(folder),
            "HOST": "{{ inventory_hostname }}",
        },
        "tasks": [FACTS, *tasks, say(what)],
    }
    (folder / "play.json").write_text(json.dumps([play]))
    done = ansible_playbook(
        f"--inventory={folder / 'hosts.json'}",
        folder / "play.json",
        ANSIBLE_FORCE_COLOR="false",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r'^ok: \[(\w+)\] => \{\n *"msg": "=(.*)="', done.stdout, re.MULTILINE)
    return {name: json.loads(base64.b64decode(said)) for name, said in found}, done.stdout


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For each host, what its cluster is to have, and the hosts that could have changed that."""
    clusters: dict[str, Any] = {
        f"cluster{number}": (hosts, {}) for number, (hosts, *_) in enumerate(CASES.values())
    }
    folder = tmp_path_factory.mktemp("unset")
    decide = {"ansible.builtin.include_role": role("kafka", "security.yml")}
    return run(folder, clusters, [decide], "[kafka_security, kafka_security_unasked]")[0]


@pytest.mark.parametrize("name", CASES)
def test_all_hosts_follow_what_is_installed_and_a_new_cluster_has_tls(
    name: str, decided: dict[str, Any]
) -> None:
    hosts, security, unasked = CASES[name]
    cluster = f"cluster{list(CASES).index(name)}"
    silent = [f"{cluster}_{number}" for number in unasked]
    for number in range(len(hosts)):
        assert decided[f"{cluster}_{number}"] == [security, silent]


def test_an_inventory_that_says_it_for_some_hosts_only_is_refused_if_nothing_is_installed(
    tmp_path: Path,
) -> None:
    clusters: dict[str, Any] = {
        "tls": ([EMPTY, Host(told="tls")], {}),
        "plaintext": ([EMPTY, Host(told="plaintext")], {}),
        "installed": ([TLS, Host("tls", "tls", told="tls")], {}),
    }
    decide = {
        "ansible.builtin.include_role": role("kafka", "security.yml"),
        "when": "kafka_security is not defined",
    }
    check = {"ansible.builtin.include_role": role("kafka_tls", "preflight.yml")}
    keep = {"ansible.builtin.set_fact": {"refusal": "{{ ansible_failed_result.msg }}"}}
    folder = {"kafka_tls_directory": str(tmp_path / "made")}
    tasks = [decide, {"block": [check], "rescue": [keep], "vars": folder}]
    found, _ = run(tmp_path, clusters, tasks, "refusal | default('none')")
    said = "kafka_security is set for {0}_1, and not for this host of the same cluster."
    for cluster in ("tls", "plaintext"):
        assert found[f"{cluster}_0"].startswith(f"{cluster}_0: {said.format(cluster)}")
    assert found["installed_0"] == "none"


def test_a_cluster_without_tls_keeps_every_setting_and_is_told_how_to_move(tmp_path: Path) -> None:
    clusters: dict[str, Any] = {
        "said": ([PLAINTEXT], {"kafka_security": "plaintext"}),
        "unset": ([PLAINTEXT], {}),
    }
    tasks = [
        {"ansible.builtin.import_role": role(name, "endpoints.yml")}
        for name in ("zookeeper", "kafka")
    ]
    what = "[__zookeeper_config, __kafka_config, kafka_users, kafka_acls]"
    found, said = run(tmp_path, clusters, tasks, what)
    assert found["unset_0"] == found["said_0"]
    assert found["unset_0"][1]["listener.security.protocol.map"].startswith("INTERNAL:PLAINTEXT,")
    assert said.count("docs/operations/security.md says how to move it") == 1


def test_on_a_new_cluster_the_chat_may_use_the_topics_that_are_declared_for_it(
    tmp_path: Path,
) -> None:
    declared = {"kafka_topics": [{"name": name} for name in ("chat", "orders", "chat-signals")]}
    own = {"kafka_topics": [{"name": "orders"}], "chat_config": {}}
    named = {
        "kafka_topics": [{"name": "talk"}],
        "chat_kafka_topic": "talk",
        "chat_config": {"KAFKA_SASL_USERNAME": "bob"},
    }
    clusters: dict[str, Any] = {
        name: ([EMPTY], variables)
        for name, variables in {"declared": declared, "own": own, "named": named}.items()
    }
    tasks = [{"ansible.builtin.import_role": role("kafka", "endpoints.yml")}]
    what = "[kafka_users, kafka_acls, kafka_passwords_made]"
    found, _ = run(tmp_path, clusters, tasks, what)

    def rights(user: str, *topics: str) -> list[dict[str, Any]]:
        operations = ["READ", "WRITE", "DESCRIBE_CONFIGS"]
        return [
            {"principal": f"User:{user}", "resource_name": topic, "operations": operations}
            for topic in topics
        ]

    assert found["declared_0"] == [
        [{"name": "chat"}],
        rights("chat", "chat", "chat-signals"),
        ["chat"],
    ]
    assert found["named_0"] == [[{"name": "bob"}], rights("bob", "talk"), ["bob"]]
    assert found["own_0"] == [[], [], []]


def test_a_role_in_a_play_of_ones_own_decides_by_itself(tmp_path: Path) -> None:
    """Ansible validates arguments before the role's first task. The port is refused after that."""
    zookeeper = {"part": "zookeeper", "zookeeper_client_port": 0}
    kafka = {"part": "kafka", "kafka_listeners": {"CLUSTER": {"port": 0}}}
    clusters: dict[str, Any] = {
        "members": ([EMPTY], zookeeper),
        "open_members": ([PLAINTEXT], zookeeper),
        "brokers": ([EMPTY], kafka),
        "open_brokers": ([PLAINTEXT], kafka),
    }
    whole = {"ansible.builtin.include_role": {"name": "baremetal_chat.platform.{{ part }}"}}
    keep = {"ansible.builtin.set_fact": {"refusal": "{{ ansible_failed_result.msg }}"}}
    what = "[kafka_security | default('undecided'), refusal]"
    found, _ = run(tmp_path, clusters, [{"block": [whole], "rescue": [keep]}], what)
    for host, (security, refusal) in found.items():
        assert security == ("plaintext" if host.startswith("open") else "tls"), refusal
        variable = "zookeeper_client_port is 0" if "members" in host else "kafka_listeners makes {"
        assert refusal.startswith(f"{host}: {variable}")
    assert len(found) == len(clusters)
