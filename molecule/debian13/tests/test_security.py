"""What a stranger in the hosts' network gets of a secured cluster, and what the chat's user may do.

What refuses is asked by the probe that the modules use, so that its words are tried as well.
"""

import socket
import ssl
import subprocess

import pytest
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_refusal import explain
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_security import Security
from hosts import address, connect, group
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import TopicAuthorizationFailedError
from kafka_clients import CERTIFICATES, connection, kept_password
from units import property_of

from playbooks import run

(HOST,) = group("kafka")
AUTHORITY = str(CERTIFICATES / "ca.crt")
CLIENT, CLUSTER, ZOOKEEPER = (f"{address(HOST)}:{port}" for port in (9092, 9093, 2181))
TOPICS = {"chat", "chat-signals", "chat-revocations", "chat-sanctions", "chat-members"}
PASSWORD = {"sasl_username": "chat", "sasl_password": kept_password("chat")}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate with the name that brokers have, of an authority that nobody knows."""
    folder = tmp_path_factory.mktemp("foreign")
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=kafka"
    subprocess.run(
        ["openssl", *made.split(), "-out", "crt", "-keyout", "key"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return {"certificate_file": str(folder / "crt"), "key_file": str(folder / "key")}


@pytest.mark.parametrize("server", [CLIENT, CLUSTER])
def test_no_listener_takes_plaintext(server: str) -> None:
    assert "speaks TLS" in explain([server], Security(), 5)


def test_a_client_knows_the_broker_by_the_cluster_s_own_authority_alone() -> None:
    assert "authority" in explain([CLUSTER], Security(security_protocol="SASL_SSL", **PASSWORD), 5)


def test_the_playbooks_listener_takes_no_stranger(foreign: dict[str, str]) -> None:
    for shown in ({}, foreign):
        stranger = Security(security_protocol="SSL", ca_file=AUTHORITY, **shown)
        assert "certificate" in explain([CLIENT], stranger, 5)
    with_password = Security(security_protocol="SASL_SSL", ca_file=AUTHORITY, **PASSWORD)
    assert explain([CLIENT], with_password, 5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sasl_password": "incorrect horse"}, "refuses"),
        ({"sasl_username": "nobody"}, "refuses"),
        # What super.users names is no user's name.
        ({"sasl_username": "CN=kafka"}, "refuses"),
        ({"sasl_mechanism": "PLAIN"}, "SCRAM-SHA-512"),
        ({"security_protocol": "SSL"}, "demands a user and a password"),
        ({}, ""),
    ],
)
def test_the_listener_for_pods_takes_the_chat_alone(changed: dict[str, str], words: str) -> None:
    options = {"security_protocol": "SASL_SSL", "ca_file": AUTHORITY} | PASSWORD | changed
    refusal = explain([CLUSTER], Security(**options), 5)
    assert words in refusal
    assert bool(words) == bool(refusal)


def srvr(context: ssl.SSLContext | None) -> str:
    """What ZooKeeper answers, if it does within two seconds."""
    host, port = ZOOKEEPER.split(":")
    try:
        plain = socket.create_connection((host, int(port)), timeout=2)
        with context.wrap_socket(plain, server_hostname=host) if context else plain as connected:
            connected.sendall(b"srvr")
            return connected.recv(1000).decode()
    except OSError as refusal:
        return str(refusal)


def test_zookeeper_takes_brokers_and_playbooks_alone(foreign: dict[str, str]) -> None:
    assert "Mode" not in srvr(None)
    context = ssl.create_default_context(cafile=AUTHORITY)
    assert "Mode" not in srvr(context)
    context.load_cert_chain(foreign["certificate_file"], foreign["key_file"])
    assert "Mode" not in srvr(context)
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.load_cert_chain(CERTIFICATES / "playbooks.pem")
    assert "Mode: standalone" in srvr(context)


def test_the_chat_uses_its_topics_and_sees_no_other(topic: str) -> None:
    options = Security(
        security_protocol="SASL_SSL", ca_file=AUTHORITY, **PASSWORD
    ).client_options() | {"bootstrap_servers": CLUSTER}
    with KafkaProducer(**options, acks="all", enable_idempotence=True) as producer:
        written = producer.send("chat", b"Hello", partition=0).get(timeout=10)
        with pytest.raises(TopicAuthorizationFailedError):
            producer.send(topic, b"Hello", partition=0).get(timeout=10)
    with KafkaConsumer(**options, consumer_timeout_ms=10_000) as consumer:
        consumer.assign([TopicPartition("chat", 0)])
        consumer.seek(TopicPartition("chat", 0), written.offset)
        assert next(consumer).value == b"Hello"
    with KafkaAdminClient(**options) as admin:
        assert set(admin.list_topics()) == TOPICS
        with pytest.raises(TopicAuthorizationFailedError):
            admin.create_topics({"own": {"num_partitions": 1, "replication_factor": 1}})
    with KafkaAdminClient(**connection()) as admin:
        assert "own" not in admin.list_topics()


def test_only_the_services_read_their_keys_and_no_host_has_the_authority_s() -> None:
    host = connect(HOST)
    keys = host.check_output("grep -rl 'PRIVATE KEY' /etc/kafka /etc/zookeeper").split()
    assert sorted(keys) == ["/etc/kafka/host.pem", "/etc/zookeeper/host.pem"]
    for key in keys:
        assert (host.file(key).user, host.file(key).mode) == ("kafka", 0o600)
    told = host.check_output("cat /etc/kafka/* /etc/zookeeper/* /etc/systemd/system/*.service")
    logged = host.check_output("journalctl --no-pager --unit kafka --unit zookeeper")
    assert kept_password("chat") not in told + logged
    assert "PRIVATE KEY" not in logged
    modes = {
        str(path.relative_to(CERTIFICATES)): path.stat().st_mode & 0o777
        for path in [CERTIFICATES, *CERTIFICATES.rglob("*")]
    }
    assert modes == {
        ".": 0o700,
        ".gitignore": 0o600,
        "ca.crt": 0o644,
        "ca.key": 0o600,
        "passwords": 0o700,
        "passwords/chat": 0o600,
        "playbooks.pem": 0o600,
    }


def serial(port: int) -> str:
    """Of the certificate that the host's service shows there."""
    shown = f"openssl s_client -connect 127.0.0.1:{port} -cert /etc/kafka/host.pem < /dev/null"
    return connect(HOST).check_output(f"{shown} 2> /dev/null | openssl x509 -noout -serial")


def test_certificates_are_renewed_while_the_broker_runs() -> None:
    """Port 2181 gets its certificate by a restart of the member."""
    host, listeners = connect(HOST), (9091, 9092, 9093)
    before = {port: serial(port) for port in (*listeners, 2181)}
    kafka, zookeeper = (property_of(HOST, unit, "MainPID") for unit in ("kafka", "zookeeper"))
    # Those that were made a moment ago, too.
    renewed = run("playbooks/kafka.yml", {"kafka_tls_days": 398, "kafka_tls_renew_days": 397})
    assert renewed.succeeded, renewed.said
    written = {
        unit: host.check_output("openssl x509 -noout -serial -in /etc/%s/host.pem", unit)
        for unit in ("kafka", "zookeeper")
    }
    after = {port: serial(port) for port in (*listeners, 2181)}
    assert after == dict.fromkeys(listeners, written["kafka"]) | {2181: written["zookeeper"]}
    assert not set(before.values()) & set(after.values())
    assert property_of(HOST, "kafka", "MainPID") == kafka
    assert property_of(HOST, "zookeeper", "MainPID") != zookeeper


def test_an_operator_on_the_host_has_a_command_that_is_configured() -> None:
    topics = connect(HOST).check_output(
        f"/opt/kafka/bin/kafka-topics.sh --bootstrap-server {CLIENT}"
        " --command-config /etc/kafka/client.properties --list"
    )
    assert set(topics.split()) >= TOPICS
