"""Brokers move to where they are reached by the same roll as any change."""

from hosts import address
from kafka import KafkaAdminClient
from kafka_clients import BROKERS

from playbooks import run


def test_all_brokers_move_to_another_port_and_back_one_at_a_time() -> None:
    for listeners, port in (({"CLIENT": {"port": 9192}}, 9192), ({}, 9092)):
        done = run("playbooks/kafka.yml", {"kafka_listeners": listeners})
        assert done.succeeded, done.said
        with KafkaAdminClient(bootstrap_servers=f"{address(BROKERS[0])}:{port}") as admin:
            found = {
                (broker["host"], broker["port"]) for broker in admin.describe_cluster()["brokers"]
            }
        assert found == {(address(name), port) for name in BROKERS}
