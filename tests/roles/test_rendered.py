"""The files that roles write for a host, rendered without a host."""

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
    "kafka_security": "plaintext",
    "kafka_distribution_installed": INSTALLED,
    # As before a first start.
    "__kafka_written": {"stdout_lines": []},
    "__kafka_process": {"stdout": ""},
}
MEMBER = {
    "zookeeper_id": 1,
    "zookeeper_address": "192.0.2.11",
    # The variable that a site sets.
    "kafka_security": "tls",
    "kafka_distribution_installed": INSTALLED,
}


def written(
    role: str, hosts: list[dict[str, Any]], files: dict[str, str], folder: Path
) -> list[tuple[list[str], ...]]:
    """For each host of a group, the lines of each file that the role writes."""
    site = folder / "hosts.json"
    local = {"ansible_connection": "local"}
    named = {f"host{number}": local | host for number, host in enumerate(hosts)}
    site.write_text(json.dumps({"all": {"children": {role: {"hosts": named}}}}))
    (service, *_) = yaml.safe_load((ROOT / f"roles/{role}/tasks/configure.yml").read_text())
    templates = [
        {
            "ansible.builtin.template": {
                "src": str(ROOT / "roles/kafka_service/templates" / template),
                "dest": str(folder / ("{{ inventory_hostname }}-" + file)),
                "mode": "0600",
            },
            "vars": service["vars"] | {"__kafka_service_agent": ""},
        }
        for template, file in files.items()
    ]
    endpoints = {"name": f"baremetal_chat.platform.{role}", "tasks_from": "endpoints.yml"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.import_role": endpoints}, *templates],
    }
    playbook = folder / "play.json"
    playbook.write_text(json.dumps([play]))
    done = ansible_playbook(f"--inventory={site}", playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        tuple((folder / f"{name}-{file}").read_text().splitlines() for file in files.values())
        for name in named
    ]


def settings(role: str, hosts: list[dict[str, Any]], folder: Path) -> list[dict[str, str]]:
    """The settings in each host's configuration file."""
    return [
        dict(line.split("=", 1) for line in properties if not line.startswith("#"))
        for (properties,) in written(role, hosts, {"settings.properties.j2": "settings"}, folder)
    ]


def test_a_broker_uses_all_its_disks_and_its_unit_starts_without_one(tmp_path: Path) -> None:
    disks = {"kafka_data_directories": ["/srv/a/kafka", "/srv/b/kafka"]}
    files = {"settings.properties.j2": "server.properties", "unit.service.j2": "kafka.service"}
    ((properties, unit),) = written("kafka", [BROKER | disks], files, tmp_path)
    assert "log.dirs=/srv/a/kafka,/srv/b/kafka" in properties
    (writable,) = [line for line in unit if line.startswith("ReadWritePaths=")]
    # With "-", the unit starts even if the path is missing.
    assert writable.split()[:2] == ["ReadWritePaths=-/srv/a/kafka", "-/srv/b/kafka"]


def test_a_secured_broker_has_only_listeners_with_tls_and_no_password_in_its_file(
    tmp_path: Path,
) -> None:
    secured = {"kafka_security": "tls", "kafka_listeners": {"PARTNERS": {"port": 9099}}}
    (told,) = settings("kafka", [BROKER | secured], tmp_path)
    protocols = told["listener.security.protocol.map"].split(",")
    assert protocols == [
        "INTERNAL_TLS:SSL",
        "CLIENT_TLS:SSL",
        "CLUSTER_TLS:SASL_SSL",
        "PARTNERS_TLS:SASL_SSL",
    ]
    ports = [listener.rpartition(":")[2] for listener in told["listeners"].split(",")]
    assert ports == ["9091", "9092", "9093", "9099"]
    for listener in ("internal", "client"):
        assert told[f"listener.name.{listener}_tls.ssl.client.auth"] == "required"
    for listener in ("cluster", "partners"):
        jaas = told[f"listener.name.{listener}_tls.scram-sha-512.sasl.jaas.config"]
        assert jaas == "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    assert told["authorizer.class.name"] == "kafka.security.authorizer.AclAuthorizer"
    assert told["super.users"] == "User:CN=kafka;User:CN=kafka-playbooks"
    assert "allow.everyone.if.no.acl.found" not in told
    assert told["zookeeper.ssl.client.enable"] == told["zookeeper.set.acl"] == "true"
    for prefix in ("", "zookeeper."):
        assert told[f"{prefix}ssl.keystore.location"] == "/etc/kafka/host.pem"
        assert told[f"{prefix}ssl.truststore.location"] == "/etc/kafka/ca.pem"


def test_a_new_certificate_is_loaded_on_every_listener_that_uses_it(tmp_path: Path) -> None:
    """Addresses are those that the host itself reaches. Listeners with own files are left out."""
    secured = {
        "kafka_security": "tls",
        "kafka_listeners": {
            "INTERNAL": {"bind_address": "127.0.0.1"},
            "CLUSTER": {"bind_address": "192.0.2.11", "advertised_port": 30093},
            "PARTNERS": {"port": 9099},
            "OUTSIDE": {"port": 9100, "bind_address": "[::]"},
        },
        "kafka_config": {"listener.name.partners_tls.ssl.keystore.location": "/etc/kafka/own.pem"},
    }
    asked = tmp_path / "reload.j2"
    asked.write_text("{{ kafka_service_reload | to_json }}")
    ((told,),) = written("kafka", [BROKER | secured], {str(asked): "reload"}, tmp_path)
    assert json.loads(told[0]) == {
        "broker_id": 1,
        "admin_listener": "CLIENT_TLS",
        "listeners": {
            "INTERNAL_TLS": "127.0.0.1:9091",
            "CLIENT_TLS": "127.0.0.1:9092",
            "CLUSTER_TLS": "192.0.2.11:9093",
            "OUTSIDE_TLS": "127.0.0.1:9100",
        },
    }


def test_a_broker_that_moves_to_tls_has_plaintext_and_tls_listeners(tmp_path: Path) -> None:
    """Each stage is one rolling restart, in which brokers of two stages must reach each other."""
    found = [
        "listener.security.protocol.map=INTERNAL:PLAINTEXT,INTERNAL_TLS:SSL",
        "inter.broker.listener.name=INTERNAL",
    ]
    going = BROKER | {"kafka_security": "tls"}
    # The stage that a run finds, and the next one, which secure.yml sets.
    prepared, moved = settings(
        "kafka",
        [
            going | {"__kafka_written": {"stdout_lines": found}},
            going | {"kafka_security_stage": "moved"},
        ],
        tmp_path,
    )
    assert prepared["inter.broker.listener.name"] == "INTERNAL"
    assert moved["inter.broker.listener.name"] == "INTERNAL_TLS"
    assert prepared["inter.broker.protocol.version"] == "3.9"
    # Brokers without a certificate could not change znodes with ACLs for certificates.
    assert (prepared["zookeeper.set.acl"], moved["zookeeper.set.acl"]) == ("false", "true")
    for told in (prepared, moved):
        assert told["listeners"] == (
            "INTERNAL://0.0.0.0:9091,CLIENT://0.0.0.0:9092,CLUSTER://0.0.0.0:9093,"
            "INTERNAL_TLS://0.0.0.0:9191,CLIENT_TLS://0.0.0.0:9192,CLUSTER_TLS://0.0.0.0:9193"
        )
        assert "CLUSTER_TLS://192.0.2.11:9193" in told["advertised.listeners"]
        assert told["super.users"] == "User:CN=kafka;User:CN=kafka-playbooks;User:ANONYMOUS"
        assert told["zookeeper.ssl.client.enable"] == "true"


def test_a_service_with_a_certificate_has_its_expiry_as_a_metric(tmp_path: Path) -> None:
    known = (ROOT / "roles/kafka/files/metrics.yml").read_text()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "metrics.yml").write_text(known)
    secured = BROKER | {"kafka_security": "tls", "kafka_tls_not_after": 1900000000}
    files = {"metrics.yml.j2": "metrics"}
    (there,) = written("kafka", [secured], files, tmp_path)
    rules = yaml.safe_load("\n".join(there[0]))
    assert "java.lang:type=ClassLoading" in rules["includeObjectNames"]
    told = rules["rules"][-1]
    assert (told["name"], told["value"]) == ("certificate_not_after_seconds", "1900000000")
    # Without a certificate, the file is unchanged, so nothing restarts.
    (plain,) = written("kafka", [BROKER], files, tmp_path)
    assert plain[0] == known.splitlines()


def test_on_the_way_back_to_plaintext_tls_keeps_its_ports_until_the_end(tmp_path: Path) -> None:
    found = [
        "advertised.listeners=INTERNAL_TLS://192.0.2.11:9091",
        "listener.security.protocol.map=INTERNAL_TLS:SSL",
        "inter.broker.listener.name=INTERNAL_TLS",
    ]
    back = BROKER | {"kafka_security": "plaintext", "__kafka_written": {"stdout_lines": found}}
    stages = ("moved", "prepared", "plaintext")
    moved, prepared, arrived = settings(
        "kafka", [back | {"kafka_security_stage": stage} for stage in stages], tmp_path
    )
    for told in (moved, prepared):
        assert told["listeners"] == (
            "INTERNAL://0.0.0.0:9191,CLIENT://0.0.0.0:9192,CLUSTER://0.0.0.0:9193,"
            "INTERNAL_TLS://0.0.0.0:9091,CLIENT_TLS://0.0.0.0:9092,CLUSTER_TLS://0.0.0.0:9093"
        )
    assert moved["inter.broker.listener.name"] == "INTERNAL_TLS"
    assert prepared["inter.broker.listener.name"] == "INTERNAL"
    # Brokers must not create znodes that brokers without a certificate cannot change.
    assert prepared["zookeeper.set.acl"] == "false"
    assert "zookeeper.ssl.client.enable" not in arrived
    assert arrived["listeners"].endswith("CLUSTER://0.0.0.0:9093")


def test_a_secured_member_has_no_port_without_tls(tmp_path: Path) -> None:
    (told,) = settings("zookeeper", [MEMBER], tmp_path)
    assert "clientPort" not in told
    assert told["secureClientPort"] == "2181"
    assert told["sslQuorum"] == "true"
    assert not {"portUnification", "client.portUnification"} & told.keys()
    assert told["ssl.keyStore.location"] == "/etc/zookeeper/host.pem"
    assert told["ssl.quorum.trustStore.location"] == "/etc/zookeeper/ca.pem"


def test_a_secured_member_loads_certificates_only_as_it_starts(tmp_path: Path) -> None:
    """While it runs, it could load a new certificate with the old key."""
    for stage in ("prepared", "moved", "tls"):
        (told,) = settings("zookeeper", [MEMBER | {"zookeeper_security_stage": stage}], tmp_path)
        assert told["ssl.quorum.keyStore.location"] == "/etc/zookeeper/host.pem"
        assert told.get("sslQuorumReloadCertFiles", "false") == "false"
        assert told.get("client.certReload", "false") == "false"


def test_a_member_that_moves_to_tls_accepts_plaintext_and_tls_on_one_port(tmp_path: Path) -> None:
    found = ["clientPort=2181", "ssl.keyStore.location=/etc/zookeeper/host.pem", "sslQuorum=false"]
    prepared, moved = settings(
        "zookeeper",
        [
            MEMBER | {"__zookeeper_reached": {"stdout_lines": found}},
            MEMBER | {"zookeeper_security_stage": "moved"},
        ],
        tmp_path,
    )
    assert (prepared["sslQuorum"], moved["sslQuorum"]) == ("false", "true")
    for told in (prepared, moved):
        assert told["clientPort"] == "2181"
        assert "secureClientPort" not in told
        assert told["client.portUnification"] == told["portUnification"] == "true"


def test_the_firewall_opens_traefiks_ports_and_accepts_vrrp_from_the_other_hosts(
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
