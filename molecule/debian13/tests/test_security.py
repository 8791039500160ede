"""A secured cluster: what it refuses to strangers in the hosts' network, and the chat's rights.

Refusals are asserted through `explain`, which the modules use. So its messages are tested, too.
"""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

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


@pytest.fixture(scope="module", autouse=True)
def processes() -> Iterator[dict[tuple[str, bytes], bytes]]:
    """The environment of each process, by its id and arguments, while the tests of this file run.

    These are all processes of this machine, and so those of the host, which is a container on it.
    """
    seen: dict[tuple[str, bytes], bytes] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            for process in Path("/proc").glob("[0-9]*"):
                # It may have ended.
                with suppress(OSError):
                    arguments = (process / "cmdline").read_bytes()
                    if (process.name, arguments) not in seen:
                        seen[process.name, arguments] = (process / "environ").read_bytes()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        ended.set()
        watching.join()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate with the brokers' common name, signed by an unknown authority."""
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
def test_no_listener_accepts_plaintext(server: str) -> None:
    assert "speaks TLS" in explain([server], Security(), 5)


def test_clients_must_trust_the_clusters_own_authority() -> None:
    assert "authority" in explain([CLUSTER], Security(security_protocol="SASL_SSL", **PASSWORD), 5)


def test_the_playbooks_listener_requires_a_certificate_of_the_authority(
    foreign: dict[str, str],
) -> None:
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
        # A name in super.users is that of a certificate, not of a user.
        ({"sasl_username": "CN=kafka"}, "refuses"),
        ({"sasl_mechanism": "PLAIN"}, "SCRAM-SHA-512"),
        ({"security_protocol": "SSL"}, "demands a user and a password"),
        ({}, ""),
    ],
)
def test_the_listener_for_pods_accepts_only_the_chats_password(
    changed: dict[str, str], words: str
) -> None:
    options = {"security_protocol": "SASL_SSL", "ca_file": AUTHORITY} | PASSWORD | changed
    refusal = explain([CLUSTER], Security(**options), 5)
    assert words in refusal
    assert bool(words) == bool(refusal)


def srvr(context: ssl.SSLContext | None) -> str:
    """ZooKeeper's answer to `srvr`, or the error. It has two seconds."""
    host, port = ZOOKEEPER.split(":")
    try:
        plain = socket.create_connection((host, int(port)), timeout=2)
        with context.wrap_socket(plain, server_hostname=host) if context else plain as connected:
            connected.sendall(b"srvr")
            return connected.recv(1000).decode()
    except OSError as refusal:
        return str(refusal)


def test_zookeeper_requires_a_certificate_of_the_authority(foreign: dict[str, str]) -> None:
    assert "Mode" not in srvr(None)
    context = ssl.create_default_context(cafile=AUTHORITY)
    assert "Mode" not in srvr(context)
    context.load_cert_chain(foreign["certificate_file"], foreign["key_file"])
    assert "Mode" not in srvr(context)
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.load_cert_chain(CERTIFICATES / "playbooks.pem")
    assert "Mode: standalone" in srvr(context)


def test_the_chat_can_use_its_own_topics_and_no_others(topic: str) -> None:
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


def test_only_the_services_can_read_their_keys_and_the_authoritys_key_is_on_no_host() -> None:
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


def test_the_services_listen_on_their_own_ports_alone() -> None:
    """JMX would add one for each service: a random one, on all addresses."""
    listening = connect(HOST).check_output("ss --no-header --listening --numeric --tcp --processes")
    ports = {
        int(line.split()[3].rpartition(":")[2]) for line in listening.splitlines() if "java" in line
    }
    assert {2181, 9091, 9092, 9093} <= ports <= {2181, 9091, 9092, 9093, 9404, 9405}


def serial(port: int) -> str:
    """The serial number of the certificate that the host serves on this port."""
    shown = f"openssl s_client -connect 127.0.0.1:{port} -cert /etc/kafka/host.pem < /dev/null"
    return connect(HOST).check_output(f"{shown} 2> /dev/null | openssl x509 -noout -serial")


def test_certificates_are_renewed_while_the_broker_runs() -> None:
    """The ZooKeeper member restarts: port 2181 loads a certificate only at the start."""
    host, listeners = connect(HOST), (9091, 9092, 9093)
    before = {port: serial(port) for port in (*listeners, 2181)}
    kafka, zookeeper = (property_of(HOST, unit, "MainPID") for unit in ("kafka", "zookeeper"))
    # These values also renew certificates that are a moment old.
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


def test_kafkas_tools_work_on_the_host_with_client_properties() -> None:
    topics = connect(HOST).check_output(
        f"/opt/kafka/bin/kafka-topics.sh --bootstrap-server {CLIENT}"
        " --command-config /etc/kafka/client.properties --list"
    )
    assert set(topics.split()) >= TOPICS


def test_no_process_shows_a_password_while_playbooks_and_tools_run(
    processes: dict[tuple[str, bytes], bytes],
) -> None:
    """Last, because the tests before run them."""
    arguments = [each for _, each in processes]
    assert any(b"playbooks/kafka.yml" in each for each in arguments)
    assert any(b"org.apache.kafka.tools.TopicCommand" in each for each in arguments)
    password = kept_password("chat").encode()
    shown = [each for each, environment in processes.items() if password in each[1] + environment]
    assert not shown
