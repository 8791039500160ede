"""logs.yml collects logs and states of all hosts that respond, without secrets."""

import re
from pathlib import Path

import yaml
from hosts import connect
from kafka_clients import BROKERS

from playbooks import run

SECRETS = ["hunter2", "correct horse", "MIIEvQIBADANBgkqhkiG9w0BAQEF"]
KEY = f"-----BEGIN PRIVATE KEY-----\n{SECRETS[2]}\n-----END PRIVATE KEY-----\n"


def test_logs_are_collected_without_secrets_while_a_host_is_down(tmp_path: Path) -> None:
    first = connect(BROKERS[0])
    # Secrets in a file that is fetched (commented out, so that the broker ignores them), and in two
    # files that are not.
    first.check_output("cp --preserve /etc/kafka/log4j.properties /root/log4j.properties")
    first.check_output(
        "printf '%%s' %s | sed 's/^/# /' >> /etc/kafka/log4j.properties",
        f'sasl.jaas.config=X required username="u" \\\n  password="{SECRETS[0]}";\n'
        f"ssl.keystore.password={SECRETS[1]}\n"
        f'  user_alice="{SECRETS[0]}"\n{KEY}',
    )
    first.check_output("printf '%%s' %s > /etc/kafka/broker.pem", KEY)
    first.check_output("printf '%%s' %s > /etc/zookeeper/keystore.p12", SECRETS[1])
    more = tmp_path / "hosts.yml"
    more.write_text(
        "kafka: {hosts: {gone: {kafka_broker_id: 9, ansible_host: 192.0.2.1,"
        " ansible_ssh_common_args: -oConnectTimeout=1}}}\n"
    )
    folder = tmp_path / "logs"
    fetched = run("playbooks/logs.yml", {"logs_directory": str(folder)}, str(more))
    first.check_output("mv /root/log4j.properties /etc/kafka/")
    first.check_output("rm /etc/kafka/broker.pem /etc/zookeeper/keystore.p12")
    assert "Not reached: gone." in fetched.said, fetched.said
    for name in BROKERS:
        assert "broker.id=" in (folder / name / "configuration.txt").read_text()
        assert "kafka.service" in (folder / name / "units.txt").read_text()
        assert (folder / name / "kafka.log").stat().st_size > 0
    clusters = yaml.safe_load((folder / "clusters.yml").read_text())
    assert sorted(clusters["zookeeper"]["modes"].values()) == ["follower", "follower", "leader"]
    assert [broker["id"] for broker in clusters["kafka"]["brokers"]] == [1, 2, 3]

    seen = (folder / BROKERS[0] / "configuration.txt").read_text()
    for shown in ("sasl.jaas.config=********", "user_alice=********", "broker.pem", "keystore.p12"):
        assert shown in seen
    assert re.search(r"BEGIN PRIVATE KEY-----\*{8}$", seen, re.MULTILINE)
    everything = "".join(path.read_text() for path in folder.rglob("*.*") if path.is_file())
    assert not [secret for secret in SECRETS if secret in everything]


def test_an_invalid_time_is_refused(tmp_path: Path) -> None:
    # Ansible splits this at the blanks, so logs_since is '1'.
    refused = run(
        "playbooks/logs.yml",
        {"logs_directory": str(tmp_path / "logs")},
        options=("--extra-vars", "logs_since=1 hour ago"),
    )
    assert not refused.succeeded
    assert "logs_since is '1', which journalctl does not accept as a time" in refused.said
    assert not (tmp_path / "logs").exists()
