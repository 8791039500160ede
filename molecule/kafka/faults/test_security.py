"""A cluster moves from plaintext to TLS while it runs, gets another authority, then other
certificates of that, and moves back: rows 15a to 15d.

They run last and in this order, because the clients of the other rows do not use TLS.
"""

import time
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hosts import address, connect
from kafka_clients import BROKERS, CERTIFICATES, new_topic
from matrix import Fault
from metrics import tell
from units import property_of

from playbooks import run

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
# The end of each service's certificate, in seconds since 1970.
ENDS = "certificate_not_after_seconds"
BY_PASSWORD = {
    "security_protocol": "SASL_SSL",
    "ssl_cafile": str(CERTIFICATES / "ca.crt"),
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_plain_username": USER["name"],
    "sasl_plain_password": USER["password"],
}


def servers(*ports: int) -> list[str]:
    return [f"{address(name)}:{port}" for port in ports for name in BROKERS]


@pytest.mark.fault("15a", "from plaintext to TLS", gap=5, back=60)
@pytest.mark.timeout(1200)
def test_no_client_is_refused_while_the_cluster_moves_to_tls(fault: Fault) -> None:
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
    again = run("playbooks/secure.yml", SECURED)
    assert again.succeeded, again.said
    assert set(again.changed.values()) == {0}


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
    again = run("playbooks/kafka_authority.yml", renamed)
    assert again.succeeded, again.said
    assert set(again.changed.values()) == {0}


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
    again = run("playbooks/kafka.yml", site)
    assert again.succeeded, again.said
    assert set(again.changed.values()) == {0}


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
            # The tests' own clients use TLS while this folder is there.
            kept = CERTIFICATES.rename(CERTIFICATES.with_name("kafka-tls-of-before"))
            fault.recovers()
        assert traffic.failed == []
    again = run("playbooks/secure.yml", back | {"kafka_tls_directory": str(kept)})
    assert again.succeeded, again.said
    assert set(again.changed.values()) == {0}
