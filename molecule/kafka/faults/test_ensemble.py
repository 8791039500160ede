"""ZooKeeper loses members, and all services stop: rows 5, 6 and 10."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hosts import connect, eventually, group
from kafka import KafkaAdminClient
from kafka.errors import KafkaTimeoutError, RequestTimedOutError
from kafka_clients import BROKERS, connection, new_topic, zookeeper_mode
from matrix import Fault
from metrics import scrape
from units import give_up_restart, stopped

from playbooks import run

MEMBERS = group("zookeeper")
REFUSED_TOPIC = "refused-topic"


def member(mode: str) -> str:
    return next(name for name in MEMBERS if zookeeper_mode(name) == mode)


def topics_can_be_created() -> bool:
    with new_topic():
        return True


@pytest.mark.fault(5, "stop one ZooKeeper member", gap=2, back=60, every_run=True)
def test_writers_do_not_notice_the_loss_of_a_zookeeper_member(fault: Fault) -> None:
    with fault.traffic() as traffic:
        for mode in ("leader", "follower"):
            victim = member(mode)
            others = [name for name in MEMBERS if name != victim]
            with stopped(victim, "zookeeper"):
                eventually(
                    lambda others=others: (
                        sorted(map(zookeeper_mode, others)) == ["follower", "leader"]
                    ),
                    within=60,
                    what="the other two have one leader",
                )
                eventually(topics_can_be_created, within=60, what="topics can be created")
                traffic.goes_on(within=30)
            eventually(
                lambda victim=victim: zookeeper_mode(victim) == "follower",
                within=60,
                what="the restarted member follows",
            )
        fault.recovers()


@pytest.mark.fault(6, "stop two of three ZooKeeper members", gap=2, back=60)
def test_without_a_quorum_leaders_keep_serving_and_no_topic_is_created(fault: Fault) -> None:
    with fault.traffic() as traffic:
        with stopped(MEMBERS[0], "zookeeper"), stopped(MEMBERS[1], "zookeeper"):
            with KafkaAdminClient(**connection(), request_timeout_ms=10_000) as admin:
                with pytest.raises((RequestTimedOutError, KafkaTimeoutError)):
                    admin.create_topics({REFUSED_TOPIC: {"num_partitions": 1}}, timeout_ms=8_000)
                assert REFUSED_TOPIC not in admin.list_topics()
            traffic.goes_on(within=30)
            # Without ZooKeeper, health checks of the playbook would block brokers' request threads.
            refused = run("playbooks/restart.yml", tags="kafka")
            give_up_restart(BROKERS)
            assert "ZooKeeper has no leader" in refused.said
            traffic.goes_on(within=30)
            # The metrics of the alert ZooKeeperWithoutQuorum: the remaining member responds, but
            # does not serve.
            told = scrape("zookeeper", MEMBERS[2])
            assert told["zookeeper_quorum_size"] == 3
            assert "zookeeper_outstandingrequests" not in told
        fault.recovers()
        eventually(topics_can_be_created, within=60, what="topics can be created")
    # A broker may still create the topic after the request has failed.
    with KafkaAdminClient(**connection()) as admin:
        if REFUSED_TOPIC in admin.list_topics():
            admin.delete_topics([REFUSED_TOPIC])


@pytest.mark.fault(10, "stop everything, start brokers first", back=120, every_run=True)
def test_acknowledged_records_survive_a_stop_of_all_services(fault: Fault) -> None:
    with fault.traffic(), ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: connect(name).check_output("systemctl stop kafka"), BROKERS))
        list(pool.map(lambda name: connect(name).check_output("systemctl stop zookeeper"), MEMBERS))
        for name in reversed(BROKERS):
            connect(name).check_output("systemctl start kafka")
        for name in MEMBERS:
            connect(name).check_output("systemctl start zookeeper")
        fault.recovers()
