"""The connection settings of clients while a cluster moves between plaintext and TLS.

Each case is a cluster at one point of the move. No cluster runs. Two programs replace the host's:
`grep` reads the settings of the case, and `ss` prints the ports on which its brokers still listen.
"""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ansible_runs import ROOT, ansible_playbook

# The ports of CLUSTER's listeners, by stage and by the protocol of the newer listeners.
PORTS = {
    ("plaintext", ""): {"CLUSTER": 9093},
    ("prepared", "tls"): {"CLUSTER": 9093, "CLUSTER_TLS": 9193},
    ("moved", "tls"): {"CLUSTER": 9093, "CLUSTER_TLS": 9193},
    ("tls", ""): {"CLUSTER_TLS": 9093},
    ("moved", "plaintext"): {"CLUSTER": 9193, "CLUSTER_TLS": 9093},
    ("prepared", "plaintext"): {"CLUSTER": 9193, "CLUSTER_TLS": 9093},
}


class Cluster(NamedTuple):
    """The goal of the move, and the stages in the files of brokers and members."""

    security: str
    brokers: tuple[tuple[str, str], ...]
    member: str = "moved"
    # Numbers of brokers that have not restarted since their file was written: they have both.
    lag: tuple[int, ...] = ()


def whole(security: str, stage: str, newer: str = "", member: str = "moved") -> Cluster:
    """All brokers are at the same stage, so one is enough."""
    return Cluster(security, ((stage, newer),), member)


THERE = {
    "before": whole("tls", "plaintext", member="plaintext"),
    "prepared": whole("tls", "prepared", "tls"),
    "moved": whole("tls", "moved", "tls"),
    "arrived": whole("tls", "tls", member="tls"),
}
BACK = {
    "back: before": whole("plaintext", "tls", member="tls"),
    "back: moved": whole("plaintext", "moved", "plaintext"),
    "back: prepared": whole("plaintext", "prepared", "plaintext"),
    "back: arrived": whole("plaintext", "plaintext", member="prepared"),
}
OTHERS = {
    # The goal was changed during the move: no listener changes its port.
    "turned back, prepared": whole("plaintext", "prepared", "tls"),
    "turned back, moved": whole("plaintext", "moved", "tls"),
    "turned again, prepared": whole("tls", "prepared", "plaintext"),
    "turned again, moved": whole("tls", "moved", "plaintext"),
    # A step was interrupted between writing two hosts' files, or between two restarts.
    "half arrived": Cluster("tls", (("tls", ""), ("moved", "tls")), lag=(1,)),
    "arrived, not restarted": whole("tls", "tls")._replace(lag=(0,)),
    "back: half moved": Cluster("plaintext", (("moved", "plaintext"), ("tls", ""))),
    "back: half arrived": Cluster(
        "plaintext", (("plaintext", ""), ("prepared", "plaintext")), lag=(1,)
    ),
    "back: arrived, not restarted": whole("plaintext", "plaintext")._replace(lag=(0,)),
}
CLUSTERS = THERE | BACK | OTHERS

FIRST, SECOND = ADDRESSES = ("192.0.2.11", "192.0.2.12")


def on(*ports: int, brokers: tuple[str, ...] = (FIRST,)) -> set[str]:
    return {f"{broker}:{port}" for port in ports for broker in brokers}


PLAINTEXT, TLS = "PLAINTEXT", "SASL_SSL"
EXPECTED = {
    "before": (PLAINTEXT, on(9093)),
    "prepared": (PLAINTEXT, on(9093)),
    # Now clients move. They also get the port that TLS has after the next step.
    "moved": (TLS, on(9193, 9093)),
    "arrived": (TLS, on(9093)),
    "back: before": (TLS, on(9093)),
    "back: moved": (TLS, on(9093)),
    "back: prepared": (PLAINTEXT, on(9193, 9093)),
    "back: arrived": (PLAINTEXT, on(9093)),
    "turned back, prepared": (PLAINTEXT, on(9093)),
    "turned back, moved": (TLS, on(9193, 9093)),
    "turned again, prepared": (PLAINTEXT, on(9193, 9093)),
    "turned again, moved": (TLS, on(9093)),
    "half arrived": (TLS, on(9093, brokers=ADDRESSES) | {f"{SECOND}:9193"}),
    "arrived, not restarted": (TLS, on(9093, 9193)),
    "back: half moved": (TLS, on(9093, brokers=ADDRESSES)),
    "back: half arrived": (PLAINTEXT, on(9093, brokers=ADDRESSES) | {f"{SECOND}:9193"}),
    "back: arrived, not restarted": (PLAINTEXT, on(9093, 9193)),
}


def broker_file(stage: str, newer: str, address: str) -> str:
    """The lines of server.properties that show a broker's stage."""
    ports = {
        name.replace("CLUSTER", listener): port + offset
        for listener, offset in (("INTERNAL", -2), ("CLIENT", -1), ("CLUSTER", 0))
        for name, port in PORTS[stage, newer].items()
    }
    speak = {name: "SSL" if name.endswith("_TLS") else "PLAINTEXT" for name in ports}
    among = "INTERNAL_TLS" if stage in ("moved", "tls") else "INTERNAL"
    return (
        f"advertised.listeners={','.join(f'{n}://{address}:{p}' for n, p in ports.items())}\n"
        f"listener.security.protocol.map={','.join(map(':'.join, speak.items()))}\n"
        f"inter.broker.listener.name={among}\n"
        "ssl.key.password=secret\n"
    )


def member_file(stage: str) -> str:
    """The lines of zoo.cfg that show a member's stage."""
    port = "secureClientPort" if stage == "tls" else "clientPort"
    keys = (
        "ssl.keyStore.location=/etc/zookeeper/host.pem\n"
        f"sslQuorum={'false' if stage == 'prepared' else 'true'}\n"
    )
    return f"{port}=2181\n{'' if stage == 'plaintext' else keys}"


def site_of(cluster: Cluster, group: str) -> dict[str, Any]:
    """The cluster's hosts, and the variables of its group."""
    return {
        "hosts": {
            f"{group}_{number}": {
                "ansible_host": address,
                "broker_file": broker_file(*place, address),
                "lags": number in cluster.lag,
            }
            for number, (address, place) in enumerate(zip(ADDRESSES, cluster.brokers, strict=False))
        },
        "vars": {
            "kafka_security": cluster.security,
            "member_file": member_file(cluster.member),
            **{f"{role}_group": group for role in ("kafka", "zookeeper", "chat_kafka")},
        },
    }


# A host's variables: the connection, and those that a site sets.
HOST = {
    "ansible_connection": "local",
    # The test's machine may have no sudo.
    "ansible_become": False,
    "kafka_address": "{{ ansible_host }}",
    "zookeeper_address": "{{ ansible_host }}",
    "zookeeper_id": 1,
}
FACTS: dict[str, Any] = {"default_ipv4": {"address": FIRST}, "cacheable": True}


def facts_of(role: str) -> dict[str, Any]:
    """The facts that the role's endpoints.yml sets, as templates."""
    tasks = yaml.safe_load((ROOT / f"roles/{role}/tasks/endpoints.yml").read_text())
    (facts,) = (
        task["ansible.builtin.set_fact"]
        for task in tasks
        if "ansible.builtin.set_fact" in task and "loop" not in task
    )
    return {name: value for name, value in facts.items() if not name.endswith("_stage")}


class Told(NamedTuple):
    """The resulting settings: for the chat, and for playbooks."""

    protocol: str
    servers: frozenset[str]
    # Whether playbooks connect to brokers, and to members, with a certificate.
    brokers: bool
    members: bool

    @classmethod
    def of(cls, said: str) -> "Told":
        protocol, servers, brokers, members = said.split()
        return cls(protocol, frozenset(servers.split(",")), brokers != "0", members != "0")


SAY: dict[str, Any] = {
    "hosts": "all",
    "gather_facts": False,
    "tasks": [
        {
            "ansible.builtin.debug": {
                "msg": "={{ kafka_group }} {{ __chat_config.get('KAFKA_SECURITY_PROTOCOL',"
                " 'PLAINTEXT') }} {{ chat_kafka_bootstrap_servers }}"
                " {{ kafka_client | length }} {{ zookeeper_client | length }}"
            }
        }
    ],
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """The resulting settings for each cluster."""
    folder = tmp_path_factory.mktemp("stages")
    variables: dict[str, Any] = {}
    for role in ("zookeeper", "kafka", "chat"):
        for kind in ("defaults", "vars"):
            variables |= yaml.safe_load((ROOT / f"roles/{role}/{kind}/main.yml").read_text())
    # The tasks that read files from hosts are left out, because there are many cases.
    facts = facts_of("kafka") | facts_of("zookeeper") | FACTS
    variables |= HOST
    variables |= {
        "kafka_tls_client": {"ca_file": "/nowhere/ca.crt"},
        "__kafka_written": {"stdout_lines": "{{ broker_file.splitlines() }}"},
        "__kafka_interim": {"stdout": "{{ 'LISTEN' if lags else '' }}"},
        "__zookeeper_reached": {"stdout_lines": "{{ member_file.splitlines() }}"},
    }
    groups = {
        f"cluster{n}": site_of(each, f"cluster{n}") for n, each in enumerate(CLUSTERS.values())
    }
    (folder / "hosts.json").write_text(json.dumps({"all": {"children": groups, "vars": variables}}))
    (folder / "play.json").write_text(
        json.dumps([SAY | {"tasks": [{"ansible.builtin.set_fact": facts}, *SAY["tasks"]]}])
    )
    done = ansible_playbook(f"--inventory={folder / 'hosts.json'}", folder / "play.json")
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(re.findall(r"^ok: .*=> \{\n.*=(cluster\d+) (.*)\"$", done.stdout, re.MULTILINE))
    return {name: Told.of(said[f"cluster{number}"]) for number, name in enumerate(CLUSTERS)}


@pytest.mark.parametrize("name", CLUSTERS)
def test_clients_get_servers_and_protocol_of_the_clusters_stage(
    name: str, told: dict[str, Told]
) -> None:
    protocol, servers = EXPECTED[name]
    assert told[name] == Told(
        protocol,
        frozenset(servers),
        brokers=protocol == TLS,
        members=CLUSTERS[name].member in ("moved", "tls"),
    )


def served(cluster: Cluster) -> dict[str, str]:
    """The addresses on which a cluster's brokers listen for the chat, with the protocols."""
    return {
        f"{broker}:{port}": TLS if listener.endswith("_TLS") else PLAINTEXT
        for broker, place in zip(ADDRESSES, cluster.brokers, strict=False)
        for listener, port in PORTS[place].items()
    }


@pytest.mark.parametrize("way", [THERE, BACK], ids=["there", "back"])
def test_clients_with_the_settings_of_one_stage_still_reach_brokers_of_the_next(
    way: dict[str, Cluster], told: dict[str, Told]
) -> None:
    """Clients need new settings only once, when the protocol changes."""
    changed = []
    for (before, _), (after, cluster) in pairwise(way.items()):
        here = served(cluster)
        found = {here.get(server) for server in told[before].servers}
        assert told[before].protocol in found, (before, after)
        if told[after].protocol != told[before].protocol:
            changed.append(after)
    assert len(changed) == 1


def test_the_stage_is_read_from_files_and_open_ports_whatever_the_goal_is(tmp_path: Path) -> None:
    """A broker that has not restarted still listens on the old ports."""
    programs = {
        # The last argument is a path on the host.
        "grep": 'eval path="\\${$#}"\n'
        'exec /bin/grep "$1" "$2" "$FOLDER/$HOST-$(basename "$path")"\n',
        # Prints a line if the requested port is the one that the broker listens on.
        "ss": 'eval "[ \\"\\${$#}\\" = \\"sport = :$LISTENS\\" ]" && echo LISTEN\n',
    }
    for name, program in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{program}")
        (tmp_path / name).chmod(0o755)
    cluster = Cluster("plaintext", (("tls", ""), ("tls", "")))
    site = site_of(cluster, "kafka")
    for name, host in site["hosts"].items():
        (tmp_path / f"{name}-server.properties").write_text(host["broker_file"])
        (tmp_path / f"{name}-zoo.cfg").write_text(site["vars"]["member_file"])
    (tmp_path / "hosts.json").write_text(
        json.dumps({"all": {"children": {"kafka": site}, "vars": HOST}})
    )
    play = SAY | {
        "vars_files": [f"{ROOT}/roles/chat/{kind}/main.yml" for kind in ("defaults", "vars")],
        "environment": {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "FOLDER": str(tmp_path),
            "HOST": "{{ inventory_hostname }}",
            "LISTENS": "{{ 9192 if inventory_hostname == 'kafka_1' else 0 }}",
        },
        "tasks": [
            {"ansible.builtin.set_fact": FACTS},
            *(
                {
                    "ansible.builtin.import_role": {
                        "name": f"baremetal_chat.platform.{role}",
                        "tasks_from": "endpoints.yml",
                    }
                }
                for role in ("zookeeper", "kafka")
            ),
            *SAY["tasks"],
        ],
    }
    (tmp_path / "play.json").write_text(json.dumps([play]))
    done = ansible_playbook(f"--inventory={tmp_path / 'hosts.json'}", tmp_path / "play.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ssl.key.password" not in done.stdout
    servers = on(9093, brokers=ADDRESSES) | {f"{SECOND}:9193"}
    said = re.findall(r"=kafka (.*)\"$", done.stdout, re.MULTILINE)
    assert {Told.of(each) for each in said} == {
        Told(TLS, frozenset(servers), brokers=True, members=True)
    }
