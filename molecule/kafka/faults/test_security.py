"""A cluster moves from plaintext to TLS while it runs, gets another authority, then other
certificates of that, then those of the site's own authority, and moves back. Then it moves to TLS
again, while each run of the playbook is killed: rows 15a to 15h.

They run last and in the order of this file. Only a cluster that is installed without TLS has them.
"""

import os
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_refusal import explain
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_security import Security
from authority import Authority, pem_of
from cryptography import x509
from cryptography.x509.oid import NameOID
from hosts import address, connect
from kafka_clients import (
    BROKERS,
    CERTIFICATES,
    GIVEN,
    bootstrap,
    by_password,
    certificates,
    new_topic,
    tls_context,
)
from matrix import Fault
from metrics import tell
from units import property_of

from playbooks import assert_changes_nothing, assert_refused, killed, run

pytestmark = pytest.mark.skipif(
    os.environ.get("KAFKA_SECURITY") != "plaintext", reason="the cluster has TLS from the start"
)

USER = {"name": "chat", "password": "correct horse"}
SECURED: dict[str, Any] = {
    "kafka_security": "tls",
    "kafka_users": [USER],
    "kafka_acls": [
        {
            "principal": f"User:{USER['name']}",
            "resource_name": "test-",
            "pattern_type": "PREFIXED",
            "operations": ["READ", "WRITE"],
        }
    ],
}
OPEN = {"kafka_security": "plaintext"}
# The ports of the chat's bootstrap servers during a move (the interim port and the final one), and
# before and after it.
MOVING, SETTLED = (9193, 9093), (9093,)
# Ports with TLS: of brokers, and of members.
PORTS = (9091, 9092, 9093, 2181)
SITE = Authority("Of the site")
# The end of each service's certificate, in seconds since 1970.
ENDS = "certificate_not_after_seconds"
BY_PASSWORD = by_password(USER["name"], USER["password"])
# Row 15d moves the authority's folder there, because the tests' own clients use TLS while it is at
# its place. Row 15h moves it back: the hosts still trust this authority.
KEPT = CERTIFICATES.with_name("kafka-tls-of-before")
# The steps of a move to TLS: what moves, and to which stage. Clients move after the first four.
STEPS = [
    ("ZooKeeper", "prepared"),
    ("ZooKeeper", "moved"),
    ("Kafka", "prepared"),
    ("Kafka", "moved"),
    ("Kafka", "tls"),
    ("ZooKeeper", "tls"),
]
# The output of secure.yml when the first service of a step has been restarted, and no other.
HALF_WAY = r"\(item=step \d of \d: (\w+) to '(\w+)'\).*?: Note that it was restarted\]"


def servers(*ports: int) -> list[str]:
    return [server for port in ports for server in bootstrap(port=port)]


@pytest.mark.fault("15a", "from plaintext to TLS", gap=5, back=60)
@pytest.mark.timeout(1200)
def test_no_client_is_refused_while_the_cluster_moves_to_tls(fault: Fault, tmp_path: Path) -> None:
    with new_topic(partitions=3) as next_topic:
        with fault.traffic() as traffic:
            stopped = run("playbooks/secure.yml", SECURED)
            assert "the next step closes CLIENT and CLUSTER, and clients are" in stopped.said
            assert traffic.failed == []
        fault.topic = next_topic
        with fault.traffic(servers(*MOVING), BY_PASSWORD) as traffic:
            done = run("playbooks/secure.yml", SECURED)
            assert done.succeeded, done.said
            fault.recovers()
        assert traffic.failed == []
    assert_days_left(397)
    assert_closed(tmp_path)
    assert_changes_nothing("playbooks/secure.yml", SECURED)


def assert_closed(folder: Path) -> None:
    """No port takes plaintext. Those between the services take no stranger, and brokers log it."""
    began = connect(BROKERS[0]).check_output("date +@%s")
    Authority("Of nobody").give(folder, {"stranger": []})
    foreign = str(folder / "stranger.pem")
    trusted = {"security_protocol": "SSL", "ca_file": str(certificates() / "ca.crt")}
    for name in BROKERS:
        for port in (9091, 9092, 9093):
            assert "speaks TLS" in explain([f"{address(name)}:{port}"], Security(), 5)
        for port in (9191, 9192, 9193):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address(name), port), timeout=5)
        for shown in ({}, {"certificate_file": foreign, "key_file": foreign}):
            stranger = Security(**trusted, **shown)
            words = "does not accept certificate_file="
            assert words in explain([f"{address(name)}:9091"], stranger, 5)
        assert "Failed authentication with" in connect(name).check_output(
            "journalctl --no-pager --unit kafka --since %s", began
        )
        nobody = ssl.create_default_context(cafile=certificates() / "ca.crt")
        foreigner = ssl.create_default_context(cafile=certificates() / "ca.crt")
        foreigner.load_cert_chain(foreign)
        for context in (None, nobody, foreigner):
            assert not srvr(name, context)


def srvr(name: str, context: ssl.SSLContext | None) -> bytes:
    """A ZooKeeper member's answer; empty if it refuses."""
    try:
        plain = socket.create_connection((address(name), 2181), timeout=5)
        with context.wrap_socket(plain, server_hostname=address(name)) if context else plain as it:
            it.sendall(b"srvr")
            return it.recv(1000)
    except OSError:
        return b""


def assert_days_left(days: int) -> None:
    """Every service has a certificate that was made for so many days, less than a day ago."""
    for job in ("kafka", "zookeeper"):
        left = [(end - time.time()) / 86400 for end in tell(job, ENDS, *BROKERS)]
        assert len(left) == 3
        assert all(days - 1 < each <= days for each in left), (job, left)


def pids(service: str) -> list[str]:
    return [property_of(name, service, "MainPID") for name in BROKERS]


def authorities() -> list[str]:
    """Names of those that clients are to trust."""
    certificates = x509.load_pem_x509_certificates((CERTIFICATES / "ca.crt").read_bytes())
    return [
        str(name.value)
        for certificate in certificates
        for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]


@pytest.mark.fault("15b", "another authority for TLS", gap=5, back=60)
@pytest.mark.timeout(1800)
def test_no_client_is_refused_while_the_authority_is_replaced(fault: Fault) -> None:
    (old,) = authorities()
    renamed = SECURED | {"kafka_tls_authority_name": "Another"}
    brokers = pids("kafka")
    with new_topic(partitions=3) as next_topic:
        with fault.traffic(servers(*SETTLED), BY_PASSWORD) as traffic:
            first = run("playbooks/kafka_authority.yml", renamed)
            assert first.succeeded, first.said
            assert "Step 1 of 3" in first.said
            assert "Step 2 of 3" not in first.said
        assert traffic.failed == []
        assert authorities() == [old, "Another"]
        fault.topic = next_topic
        # These clients trust both.
        with fault.traffic(servers(*SETTLED), BY_PASSWORD) as traffic:
            second = run("playbooks/kafka_authority.yml", renamed)
            assert second.succeeded, second.said
            assert "Step 3 of 3" in second.said
            # Brokers have loaded all of it.
            assert pids("kafka") == brokers
            # Members, and the other brokers, take one that has only the new authority.
            connect(BROKERS[0]).check_output("systemctl restart kafka")
            fault.recovers()
        assert traffic.failed == []
    assert authorities() == ["Another"]
    assert_changes_nothing("playbooks/kafka_authority.yml", renamed)


@pytest.mark.fault("15c", "all certificates for TLS renewed", gap=5, back=60)
@pytest.mark.timeout(900)
def test_no_client_is_refused_while_all_certificates_are_renewed(fault: Fault) -> None:
    site = SECURED | {"kafka_tls_authority_name": authorities()[0]}
    brokers, members = pids("kafka"), pids("zookeeper")
    with fault.traffic(servers(*SETTLED), BY_PASSWORD) as traffic:
        done = run(
            "playbooks/kafka.yml", site | {"kafka_tls_days": 398, "kafka_tls_renew_days": 397}
        )
        assert done.succeeded, done.said
        fault.recovers()
    assert traffic.failed == []
    assert_days_left(398)
    assert pids("kafka") == brokers
    assert not set(pids("zookeeper")) & set(members)
    assert_changes_nothing("playbooks/kafka.yml", site)


def names() -> dict[str, list[str]]:
    """What the certificate of each host is for."""
    return {name: [address(name)] for name in BROKERS}


def served() -> dict[tuple[str, int], x509.Certificate]:
    context = tls_context()
    found = {}
    for name in BROKERS:
        for port in PORTS:
            with (
                socket.create_connection((address(name), port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname=address(name)) as secured,
            ):
                shown = secured.getpeercert(binary_form=True)
                assert shown is not None
                found[name, port] = x509.load_der_x509_certificate(shown)
    return found


@pytest.mark.fault("15e", "the site's own authority instead", gap=5, back=60)
@pytest.mark.timeout(1800)
def test_no_client_is_refused_while_the_site_gives_its_own_certificates(fault: Fault) -> None:
    ours = SECURED | {"kafka_tls_authority_name": authorities()[0]}
    given = ours | {"kafka_tls_site_directory": str(GIVEN)}
    old = (CERTIFICATES / "ca.crt").read_text()
    with new_topic(partitions=3) as next_topic:
        with fault.traffic(servers(*SETTLED), BY_PASSWORD) as traffic:
            (CERTIFICATES / "ca.crt").write_text(old + SITE.pem)
            first = run("playbooks/kafka.yml", ours)
            assert first.succeeded, first.said
        assert traffic.failed == []
        fault.topic = next_topic
        # These clients trust both.
        with fault.traffic(servers(*SETTLED), BY_PASSWORD) as traffic:
            brokers = pids("kafka")
            SITE.give(GIVEN, names())
            (GIVEN / "ca.crt").write_text(old + SITE.pem)
            second = run("playbooks/kafka.yml", given)
            assert second.succeeded, second.said
            assert {each.issuer for each in served().values()} == {SITE.name}
            assert pids("kafka") == brokers
            (GIVEN / "ca.crt").write_text(SITE.pem)
            third = run("playbooks/kafka.yml", given)
            assert third.succeeded, third.said
            fault.recovers()
        assert traffic.failed == []
    assert_changes_nothing("playbooks/kafka.yml", given)


@pytest.mark.fault("15f", "the site's certificates renewed", gap=5, back=60)
@pytest.mark.timeout(900)
def test_brokers_load_new_certificates_of_the_site_and_keep_theirs_instead_of_bad_ones(
    fault: Fault,
) -> None:
    given = SECURED | {"kafka_tls_site_directory": str(GIVEN)}
    brokers, members, before = pids("kafka"), pids("zookeeper"), served()
    with fault.traffic(servers(*SETTLED), BY_PASSWORD) as traffic:
        Authority("Of nobody").give(GIVEN, names())
        signed = "is signed by 'Of nobody', which zookeeper does not trust yet."
        assert_refused("playbooks/kafka.yml", given, [signed])
        SITE.give(GIVEN, {BROKERS[0]: ["192.0.2.1"]})
        SITE.give(GIVEN, {BROKERS[1]: [address(BROKERS[1])]}, days=-1)
        _, certificate = SITE.issue("kafka", [address(BROKERS[2])])
        (GIVEN / f"{BROKERS[2]}.pem").write_text(pem_of(SITE.key) + certificate)
        words = [f"it is not for {address(BROKERS[0])}", "has expired", "KEY_VALUES_MISMATCH"]
        assert_refused("playbooks/kafka.yml", given, words)
        # And an hour.
        SITE.give(GIVEN, names(), days=199)
        assert served() == before
        assert (pids("kafka"), pids("zookeeper")) == (brokers, members)
        done = run("playbooks/kafka.yml", given)
        assert done.succeeded, done.said
        fault.recovers()
    assert traffic.failed == []
    after = served()
    assert all(after[each].serial_number != before[each].serial_number for each in before)
    assert_days_left(200)
    assert pids("kafka") == brokers
    assert not set(pids("zookeeper")) & set(members)
    assert_changes_nothing("playbooks/kafka.yml", given)


@pytest.mark.fault("15g", "the role's authority again", gap=5, back=60)
@pytest.mark.timeout(1800)
def test_no_client_is_refused_while_the_cluster_goes_back_to_the_roles_authority(
    fault: Fault,
) -> None:
    # From row 15e: the role's, and the site's.
    both = (CERTIFICATES / "ca.crt").read_text()
    ours = SECURED | {"kafka_tls_authority_name": authorities()[0]}
    with fault.traffic(servers(*SETTLED), BY_PASSWORD) as traffic:
        (GIVEN / "ca.crt").write_text(both)
        first = run("playbooks/kafka.yml", ours | {"kafka_tls_site_directory": str(GIVEN)})
        assert first.succeeded, first.said
        GIVEN.rename(GIVEN.with_name("kafka-tls-given-before"))
        brokers = pids("kafka")
        second = run("playbooks/kafka.yml", ours)
        assert second.succeeded, second.said
        (CERTIFICATES / "ca.crt").write_text(both.removesuffix(SITE.pem))
        third = run("playbooks/kafka.yml", ours)
        assert third.succeeded, third.said
        assert pids("kafka") == brokers
        fault.recovers()
    assert traffic.failed == []
    assert SITE.name not in {each.issuer for each in served().values()}
    assert_changes_nothing("playbooks/kafka.yml", ours)


@pytest.mark.fault("15d", "from TLS back to plaintext", gap=5, back=60)
@pytest.mark.timeout(1200)
def test_no_client_is_refused_while_the_cluster_moves_back(fault: Fault) -> None:
    back = OPEN | {"kafka_tls_authority_name": authorities()[0]}
    with new_topic(partitions=3) as next_topic:
        # These clients keep their settings, because TLS stays on its ports.
        with fault.traffic(servers(*SETTLED), BY_PASSWORD) as traffic:
            stopped = run("playbooks/secure.yml", back)
            assert (
                "the next step closes CLIENT_TLS and CLUSTER_TLS, and clients are" in stopped.said
            )
            assert traffic.failed == []
        fault.topic = next_topic
        with fault.traffic(servers(*MOVING)) as traffic:
            done = run("playbooks/secure.yml", back)
            assert done.succeeded, done.said
            CERTIFICATES.rename(KEPT)
            fault.recovers()
        assert traffic.failed == []
    assert_changes_nothing("playbooks/secure.yml", back | {"kafka_tls_directory": str(KEPT)})


@pytest.mark.fault("15h", "to TLS, secure.yml killed in each step", gap=5, back=60)
@pytest.mark.timeout(2400)
def test_a_move_that_is_killed_in_each_step_continues_where_it_was(fault: Fault) -> None:
    site = SECURED
    with new_topic(partitions=3) as next_topic:
        with fault.traffic() as traffic:
            if KEPT.exists():
                KEPT.rename(CERTIFICATES)
                site = SECURED | {"kafka_tls_authority_name": authorities()[0]}
            for step in STEPS[:4]:
                assert killed("playbooks/secure.yml", site, HALF_WAY).groups() == step
        assert traffic.failed == []
        fault.topic = next_topic
        with fault.traffic(servers(*MOVING), BY_PASSWORD) as traffic:
            for step in STEPS[4:]:
                assert killed("playbooks/secure.yml", site, HALF_WAY).groups() == step
            done = run("playbooks/secure.yml", site)
            assert done.succeeded, done.said
            fault.recovers()
        assert traffic.failed == []
    services = pids("kafka"), pids("zookeeper")
    assert_changes_nothing("playbooks/secure.yml", site)
    assert (pids("kafka"), pids("zookeeper")) == services
