"""zookeeper_info distinguishes servers that serve, have no quorum, or do not respond."""

import ssl

import pytest
from secured_broker import Authority


@pytest.fixture
def server(zookeeper_server):
    """Starts a stand-in for a ZooKeeper server with this answer to `srvr`; returns its address."""
    return lambda answer: zookeeper_server(answer.encode(), question=b"srvr")


def test_a_real_single_server_is_standalone(run_module, kafka_broker):
    answer = run_module("zookeeper_info", servers=[kafka_broker.zookeeper_server])
    assert answer["modes"] == {kafka_broker.zookeeper_server: "standalone"}
    assert answer["leaders"] == [kafka_broker.zookeeper_server]
    assert not answer["failed_servers"]


def test_the_leader_is_found_among_followers(run_module, server):
    leader = server("Zookeeper version: 3.8.4\nMode: leader\nNode count: 5\n")
    follower = server("Zookeeper version: 3.8.4\nMode: follower\nNode count: 5\n")
    answer = run_module("zookeeper_info", servers=[follower, leader])
    assert answer["modes"] == {follower: "follower", leader: "leader"}
    assert answer["leaders"] == [leader]


def test_a_standalone_server_is_not_a_member_of_an_ensemble(run_module, server):
    alone = server("Zookeeper version: 3.8.4\nMode: standalone\nNode count: 5\n")
    leader = server("Zookeeper version: 3.8.4\nMode: leader\nNode count: 5\n")
    answer = run_module("zookeeper_info", servers=[alone, leader])
    assert answer["leaders"] == [leader]
    assert answer["failed_servers"] == {alone: "stands alone, and is no member of the ensemble"}


def test_a_server_without_quorum_is_a_failed_server(run_module, server):
    lost = server("This ZooKeeper instance is not currently serving requests\n")
    answer = run_module("zookeeper_info", servers=[lost])
    assert answer["failed_servers"] == {
        lost: "This ZooKeeper instance is not currently serving requests"
    }


def test_an_unreachable_server_is_named(run_module):
    answer = run_module("zookeeper_info", servers=["127.0.0.1:1"])
    assert answer["failed_servers"] == {"127.0.0.1:1": "Connection refused"}


def test_a_server_without_a_port_is_refused(run_module):
    answer = run_module("zookeeper_info", servers=["host1"])
    assert answer["msg"] == "'host1' is not a server: write HOST:PORT"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


@pytest.fixture
def tls_server(zookeeper_server, authority):
    """The same with TLS; it accepts only client certificates of the authority."""

    def serve(**certificate):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
        context.load_cert_chain(*authority.issue("server", **certificate))
        context.verify_mode = ssl.CERT_REQUIRED
        return zookeeper_server(b"Mode: standalone\n", question=b"srvr", tls=context)

    return serve


def test_a_server_with_tls_is_queried_with_a_client_certificate(run_module, authority, tls_server):
    server = tls_server()
    certificate, key = authority.issue("client")
    files = {"ca_file": authority.file, "certificate_file": certificate, "key_file": key}
    told = run_module("zookeeper_info", servers=[server], **{k: str(v) for k, v in files.items()})
    assert told["modes"] == {server: "standalone"}


def test_the_reason_of_a_tls_failure_is_reported(run_module, authority, tls_server, tmp_path):
    elsewhere, strict, plain = (tls_server(address="127.0.0.2"), tls_server(), tls_server())
    trusted = {"ca_file": str(authority.file)}
    told = run_module("zookeeper_info", servers=[elsewhere], **trusted)
    assert "its certificate is refused: IP address mismatch" in told["failed_servers"][elsewhere]
    told = run_module("zookeeper_info", servers=[strict], **trusted)
    assert "give certificate_file and key_file of an" in told["failed_servers"][strict]
    # Before the first run on a host, the file does not exist.
    missing = {"ca_file": str(tmp_path / "none"), "timeout": 2}
    told = run_module("zookeeper_info", servers=[plain], **missing)
    assert "No such file" in told["failed_servers"][plain]
