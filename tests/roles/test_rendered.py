"""What roles write for a host, without a host to write it to."""

import json
from pathlib import Path

import yaml
from ansible_runs import ROOT, ansible_playbook

BROKER = {
    "ansible_connection": "local",
    "kafka_broker_id": 1,
    "kafka_address": "192.0.2.11",
    "kafka_zookeeper_connect": "192.0.2.11:2181/kafka",
    "kafka_distribution_installed": {
        "home": "/opt/kafka_2.13-3.9.2",
        "user": "kafka",
        "group": "kafka",
        "version": "3.9.2",
        "sha512": "0",
    },
    # Of a first start.
    "__kafka_written": {"stdout_lines": []},
    "__kafka_process": {"stdout": ""},
}


def test_a_broker_has_all_its_disks_and_starts_without_one(tmp_path: Path) -> None:
    disks = {"kafka_data_directories": ["/srv/a/kafka", "/srv/b/kafka"]}
    site = tmp_path / "hosts.json"
    hosts = {"kafka": {"hosts": {"broker": BROKER | disks}}}
    site.write_text(json.dumps({"all": {"children": hosts}}))
    (service, *_) = yaml.safe_load((ROOT / "roles/kafka/tasks/configure.yml").read_text())
    files = {"settings.properties.j2": "server.properties", "unit.service.j2": "kafka.service"}
    templates = [
        {
            "ansible.builtin.template": {
                "src": str(ROOT / "roles/kafka_service/templates" / template),
                "dest": str(tmp_path / file),
                "mode": "0600",
            },
            "vars": service["vars"] | {"__kafka_service_agent": ""},
        }
        for template, file in files.items()
    ]
    role = {"name": "baremetal_chat.platform.kafka", "tasks_from": "endpoints.yml"}
    play = {
        "hosts": "broker",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.import_role": role}, *templates],
    }
    playbook = tmp_path / "play.json"
    playbook.write_text(json.dumps([play]))
    done = ansible_playbook(f"--inventory={site}", playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    properties, unit = ((tmp_path / file).read_text().splitlines() for file in files.values())
    assert "log.dirs=/srv/a/kafka,/srv/b/kafka" in properties
    (writable,) = [line for line in unit if line.startswith("ReadWritePaths=")]
    # With "-", systemd does not insist that the path is there.
    assert writable.split()[:2] == ["ReadWritePaths=-/srv/a/kafka", "-/srv/b/kafka"]


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
