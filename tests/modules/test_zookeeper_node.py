"""zookeeper_node reads a znode, and distinguishes a missing one from a server without an answer."""

import json

import pytest


def test_a_znode_of_a_real_server_is_read(run_module, kafka_broker):
    told = run_module("zookeeper_node", servers=[kafka_broker.zookeeper_server], path="/cluster/id")
    assert told["answered"]
    assert told["found"]
    assert json.loads(told["content"])["id"] in kafka_broker.log


def test_a_missing_znode_is_distinguished_from_a_server_that_does_not_answer(
    run_module, kafka_broker
):
    servers = ["127.0.0.1:1", kafka_broker.zookeeper_server]
    told = run_module("zookeeper_node", servers=servers, path="/elsewhere/cluster/id")
    assert (told["answered"], told["found"], told["content"]) == (True, False, "")
    assert told["failed_servers"] == {"127.0.0.1:1": "Connection refused"}
    told = run_module("zookeeper_node", servers=servers[:1], path="/cluster/id")
    assert (told["answered"], told["found"]) == (False, False)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        # A member without a quorum does this.
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 400 Bad Request", "does not answer as ZooKeeper does"),
        (b"\0\0\0\x25short", "does not answer as ZooKeeper does"),
        (b"\0\0\0\0", "does not answer as ZooKeeper does"),
    ],
)
def test_a_malformed_answer_is_reported(run_module, zookeeper_server, answer, why):
    address = zookeeper_server(answer)
    told = run_module("zookeeper_node", servers=[address], path="/cluster/id", timeout=5)
    assert (told["answered"], told["failed_servers"]) == (False, {address: why})


def test_a_server_without_a_port_is_refused(run_module):
    told = run_module("zookeeper_node", servers=["host1"], path="/cluster/id")
    assert told["msg"] == "'host1' is not a server: write HOST:PORT"
