"""The installed Kafka layer: a quorum, three replicas, listeners, units."""

import re

import pytest
from hosts import address, connect, group
from kafka import (
    KafkaAdminClient,
    KafkaConsumer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka_clients import (
    BROKERS,
    bootstrap,
    consume,
    copies_in_sync,
    four_letters,
    produce,
    settings_of,
    zookeeper_mode,
)

# A network namespace behind the host's address, like a pod's.
POD = """
ip netns add pod
ip link add pod0 type veth peer name eth0 netns pod
ip address add 10.77.0.1/24 dev pod0
ip link set pod0 up
ip -netns pod address add 10.77.0.2/24 dev eth0
ip -netns pod link set eth0 up
ip -netns pod route add default via 10.77.0.1
sysctl --quiet --write net.ipv4.ip_forward=1
iptables --table nat --append POSTROUTING --source 10.77.0.0/24 --jump MASQUERADE
"""
NO_POD = """
iptables --table nat --delete POSTROUTING --source 10.77.0.0/24 --jump MASQUERADE
ip netns delete pod
"""


def test_zookeeper_has_one_leader_and_two_followers() -> None:
    modes = sorted(zookeeper_mode(name) for name in group("zookeeper"))
    assert modes == ["follower", "follower", "leader"]


@pytest.mark.parametrize(
    ("first", "other"), list(zip(BROKERS, BROKERS[1:] + BROKERS[:1], strict=True))
)
def test_messages_sent_via_one_broker_are_read_via_another(
    topic: str, first: str, other: str
) -> None:
    values = [f"{first} {number}".encode() for number in range(100)]
    produce(topic, via=first, values=values)
    assert consume(topic, via=other, count=100) == values


def test_a_topic_has_three_replicas_and_needs_two_in_sync(topic: str) -> None:
    assert copies_in_sync(topic) == [3]
    settings = connect(BROKERS[0]).check_output(
        "/opt/kafka/bin/kafka-configs.sh --bootstrap-server %s --describe --all "
        "--entity-type topics --entity-name %s",
        bootstrap()[0],
        topic,
    )
    assert re.search(r"min\.insync\.replicas=2 ", settings)


@pytest.mark.parametrize("name", BROKERS)
def test_a_broker_has_the_settings_for_a_cluster_of_three(name: str) -> None:
    promised = {
        "auto.create.topics.enable": "false",
        "default.replication.factor": "3",
        "inter.broker.protocol.version": "3.9",
        "min.insync.replicas": "2",
        "offsets.topic.replication.factor": "3",
        "transaction.state.log.min.isr": "2",
        "transaction.state.log.replication.factor": "3",
        "unclean.leader.election.enable": "false",
    }
    told = settings_of(name)
    assert {setting: told[setting] for setting in promised} == promised


def test_consumer_offsets_have_three_replicas(topic: str) -> None:
    with KafkaConsumer(bootstrap_servers=bootstrap(), group_id="test") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(0, "", -1)})
    assert set(copies_in_sync("__consumer_offsets")) == {3}


@pytest.mark.parametrize("name", group("zookeeper"))
def test_zookeeper_answers_only_monitoring_commands_and_purges_old_files(name: str) -> None:
    assert four_letters(name, "ruok") == "imok"
    assert "zk_server_state" in four_letters(name, "mntr")
    assert "not in the whitelist" in four_letters(name, "dump")
    # ZooKeeper's admin server would listen on all addresses.
    listening = connect(name).check_output("ss --listening --tcp --numeric --no-header")
    assert not re.search(r":8080\s", listening)
    # By default, ZooKeeper keeps all snapshots and logs for ever.
    said = connect(name).check_output("cat /var/log/zookeeper/*.log*")
    assert "autopurge.snapRetainCount set to 3" in said
    assert "autopurge.purgeInterval set to 1" in said


def brokers_reached(name: str, port: int, within: str = "") -> set[str]:
    """The brokers that host `name` reaches at their advertised addresses, via the first broker."""
    seen = connect(name).check_output(
        f"{within} /opt/kafka/bin/kafka-broker-api-versions.sh"
        f" --bootstrap-server {address(BROKERS[0])}:{port}"
    )
    return set(re.findall(r"^(\S+) \(id: \d+ rack: \w+\) ->", seen, re.MULTILINE))


def test_brokers_advertise_their_addresses_and_racks_to_the_ansible_controller() -> None:
    with KafkaAdminClient(bootstrap_servers=bootstrap(BROKERS[0])) as admin:
        found = sorted(admin.describe_cluster()["brokers"], key=lambda broker: broker["broker_id"])
    assert [f"{broker['host']}:{broker['port']}" for broker in found] == bootstrap()
    assert [broker["rack"] for broker in found] == ["a", "b", "c"]


def test_another_host_reaches_every_broker() -> None:
    assert brokers_reached(BROKERS[1], 9092) == set(bootstrap())


def test_a_pod_reaches_every_broker_through_the_listener_cluster() -> None:
    host = connect(BROKERS[2])
    host.check_output(POD)
    try:
        found = brokers_reached(BROKERS[2], 9093, within="ip netns exec pod")
    finally:
        host.check_output(NO_POD)
    assert found == {f"{address(name)}:9093" for name in BROKERS}


@pytest.mark.parametrize("unit", ["zookeeper", "kafka"])
@pytest.mark.parametrize("name", BROKERS)
def test_units_start_at_boot_run_unprivileged_and_have_not_crashed(name: str, unit: str) -> None:
    service = connect(name).service(unit)
    assert service.is_enabled
    assert service.is_running
    assert service.is_valid
    properties = service.systemd_properties
    assert properties["User"] == "kafka"
    assert properties["NRestarts"] == "0"
    assert properties["ProtectSystem"] == "strict"
    assert properties["NoNewPrivileges"] == "yes"


@pytest.mark.parametrize("name", BROKERS)
def test_nobody_can_log_in_as_kafka(name: str) -> None:
    user = connect(name).user("kafka")
    assert user.shell.endswith("nologin")
    assert user.groups == ["kafka"]
