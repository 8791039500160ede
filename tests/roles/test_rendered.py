"""What roles write for a host, without a host to write it to."""

import json
from pathlib import Path
from typing import Any

import yaml
from ansible_runs import ROOT, ansible_playbook

INSTALLED = {
    "home": "/opt/kafka_2.13-3.9.2",
    "user": "kafka",
    "group": "kafka",
    "version": "3.9.2",
    "sha512": "0",
}
BROKER = {
    "kafka_broker_id": 1,
    "kafka_address": "192.0.2.11",
    "kafka_zookeeper_connect": "192.0.2.11:2181/kafka",
    "kafka_distribution_installed": INSTALLED,
    # Of a first start.
    "__kafka_written": {"stdout_lines": []},
    "__kafka_process": {"stdout": ""},
}
MEMBER = {
    "zookeeper_id": 1,
    "zookeeper_address": "192.0.2.11",
    # By the variable that a site sets.
    "kafka_security": "tls",
    "kafka_distribution_installed": INSTALLED,
}


def written(
    role: str, variables: dict[str, Any], files: dict[str, str], folder: Path
) -> tuple[list[str], ...]:
    """The lines of what the role writes for a host that is alone: a file for each template."""
    site = folder / "hosts.json"
    hosts = {role: {"hosts": {"host": {"ansible_connection": "local"} | variables}}}
    site.write_text(json.dumps({"all": {"children": hosts}}))
    (service, *_) = yaml.safe_load((ROOT / f"roles/{role}/tasks/configure.yml").read_text())
    templates = [
        {
            "ansible.builtin.template": {
                "src": str(ROOT / "roles/kafka_service/templates" / template),
                "dest": str(folder / file),
                "mode": "0600",
            },
            "vars": service["vars"] | {"__kafka_service_agent": ""},
        }
        for template, file in files.items()
    ]
    endpoints = {"name": f"baremetal_chat.platform.{role}", "tasks_from": "endpoints.yml"}
    play = {
        "hosts": "host",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.import_role": endpoints}, *templates],
    }
    playbook = folder / "play.json"
    playbook.write_text(json.dumps([play]))
    done = ansible_playbook(f"--inventory={site}", playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    return tuple((folder / file).read_text().splitlines() for file in files.values())


def test_a_broker_has_all_its_disks_and_starts_without_one(tmp_path: Path) -> None:
    disks = {"kafka_data_directories": ["/srv/a/kafka", "/srv/b/kafka"]}
    files = {"settings.properties.j2": "server.properties", "unit.service.j2": "kafka.service"}
    properties, unit = written("kafka", BROKER | disks, files, tmp_path)
    assert "log.dirs=/srv/a/kafka,/srv/b/kafka" in properties
    (writable,) = [line for line in unit if line.startswith("ReadWritePaths=")]
    # With "-", systemd does not insist that the path is there.
    assert writable.split()[:2] == ["ReadWritePaths=-/srv/a/kafka", "-/srv/b/kafka"]


def test_no_port_of_a_secured_broker_is_open_and_no_password_in_its_file(tmp_path: Path) -> None:
    secured = {"kafka_security": "tls", "kafka_listeners": {"PARTNERS": {"port": 9099}}}
    files = {"settings.properties.j2": "server.properties"}
    (properties,) = written("kafka", BROKER | secured, files, tmp_path)
    settings = dict(line.split("=", 1) for line in properties if not line.startswith("#"))
    protocols = settings["listener.security.protocol.map"].split(",")
    assert protocols == ["INTERNAL:SSL", "CLIENT:SSL", "CLUSTER:SASL_SSL", "PARTNERS:SASL_SSL"]
    for listener in ("internal", "client"):
        assert settings[f"listener.name.{listener}.ssl.client.auth"] == "required"
    for listener in ("cluster", "partners"):
        jaas = settings[f"listener.name.{listener}.scram-sha-512.sasl.jaas.config"]
        assert jaas == "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    assert settings["authorizer.class.name"] == "kafka.security.authorizer.AclAuthorizer"
    assert "allow.everyone.if.no.acl.found" not in settings
    assert settings["zookeeper.ssl.client.enable"] == settings["zookeeper.set.acl"] == "true"
    for prefix in ("", "zookeeper."):
        assert settings[f"{prefix}ssl.keystore.location"] == "/etc/kafka/host.pem"
        assert settings[f"{prefix}ssl.truststore.location"] == "/etc/kafka/ca.pem"


def test_a_secured_member_has_no_port_without_tls(tmp_path: Path) -> None:
    (properties,) = written("zookeeper", MEMBER, {"settings.properties.j2": "zoo.cfg"}, tmp_path)
    settings = dict(line.split("=", 1) for line in properties if not line.startswith("#"))
    assert "clientPort" not in settings
    assert settings["secureClientPort"] == "2181"
    assert settings["sslQuorum"] == "true"
    assert "portUnification" not in settings
    assert settings["ssl.keyStore.location"] == "/etc/zookeeper/host.pem"
    assert settings["ssl.quorum.trustStore.location"] == "/etc/zookeeper/ca.pem"


def test_a_port_for_tls_beside_its_own_makes_no_secured_member(tmp_path: Path) -> None:
    """Sites had one by zookeeper_config before there was zookeeper_security, and keep it."""
    template = tmp_path / "before.j2"
    template.write_text("{{ __zookeeper_before }}\n")
    reached = {"stdout": "clientPort=2181\nsecureClientPort=2281\nserver.1=192.0.2.11:2888:3888"}
    member = MEMBER | {"kafka_security": "plaintext", "__zookeeper_reached": reached}
    assert written("zookeeper", member, {str(template): "before"}, tmp_path) == (["plaintext"],)


def test_the_firewall_knows_traefiks_ports_and_where_the_others_send_adverts_from(
    tmp_path: Path,
) -> None:
    site = tmp_path / "hosts.json"
    host = {
        "ansible_connection": "local",
        "ansible_host": "192.0.2.11",
        "traefik_web_port": 8000,
        "virtual_ip_interface": "eth-1",
        "firewall_groups": ["microk8s"],
    }
    facts = {"default_ipv4": {}, "eth_1": {"ipv4": {"address": "198.51.100.11"}}}
    site.write_text(json.dumps({"microk8s": {"hosts": {"host": host}}}))
    role, rules = ROOT / "roles/firewall", tmp_path / "firewall.nft"
    written = {"src": f"{role}/templates/firewall.nft.j2", "dest": str(rules), "mode": "0600"}
    play = {
        "hosts": "host",
        "gather_facts": False,
        "vars_files": [f"{role}/vars/main.yml"],
        "vars": {"__firewall_hash": ""},
        "tasks": [
            {"ansible.builtin.set_fact": facts | {"cacheable": True}},
            {
                "ansible.builtin.import_role": {
                    "name": "baremetal_chat.platform.firewall",
                    "tasks_from": "preflight.yml",
                }
            },
            {"ansible.builtin.template": written},
        ],
    }
    playbook = tmp_path / "play.json"
    playbook.write_text(json.dumps([play]))
    done = ansible_playbook(f"--inventory={site}", playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tcp dport { 22, 443, 8000 } accept" in rules.read_text()
    assert "elements = { 192.0.2.11, 198.51.100.11 }" in rules.read_text()
