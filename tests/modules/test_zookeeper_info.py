"""zookeeper_info tells apart servers that serve, that are out of quorum, and that are not there."""

import pytest


@pytest.fixture
def server(zookeeper_server):
    """A stand-in for a ZooKeeper server that answers `srvr` as told; gives its address."""
    return lambda answer: zookeeper_server(answer.encode(), question=b"srvr")


def test_a_real_server_stands_alone(run_module, kafka_broker):
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


def test_a_server_that_stands_alone_is_no_member_of_an_ensemble(run_module, server):
    alone = server("Zookeeper version: 3.8.4\nMode: standalone\nNode count: 5\n")
    leader = server("Zookeeper version: 3.8.4\nMode: leader\nNode count: 5\n")
    answer = run_module("zookeeper_info", servers=[alone, leader])
    assert answer["leaders"] == [leader]
    assert answer["failed_servers"] == {alone: "stands alone, and is no member of the ensemble"}


def test_a_server_out_of_quorum_says_so(run_module, server):
    lost = server("This ZooKeeper instance is not currently serving requests\n")
    answer = run_module("zookeeper_info", servers=[lost])
    assert answer["failed_servers"] == {
        lost: "This ZooKeeper instance is not currently serving requests"
    }


def test_a_server_that_is_not_there_is_named(run_module):
    answer = run_module("zookeeper_info", servers=["127.0.0.1:1"])
    assert answer["failed_servers"] == {"127.0.0.1:1": "Connection refused"}


def test_a_server_without_a_port_is_refused(run_module):
    answer = run_module("zookeeper_info", servers=["host1"])
    assert answer["msg"] == "'host1' is not a server: write HOST:PORT"
