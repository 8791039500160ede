"""Brokers stop, crash, freeze, have a full disk or lose data: rows 1 to 4, 8, 9, 11 and 13."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hosts import connect, eventually, restart_host
from kafka import KafkaProducer
from kafka.errors import NotEnoughReplicasError
from kafka_clients import BROKERS, connection, controller, controller_last, leader, zookeeper_mode
from matrix import Fault
from metrics import tell
from units import kill, property_of, restarts, stopped

DATA = "/var/lib/kafka/data"


@pytest.mark.fault(1, "stop the leader", gap=2, back=60)
def test_a_stopped_leader_hands_over_its_partitions_first(fault: Fault) -> None:
    with fault.traffic() as traffic:
        victim = leader(fault.topic)
        with stopped(victim, "kafka"):
            # systemd must not report a clean stop as a failure.
            assert property_of(victim, "kafka", "Result") == "success"
            traffic.goes_on(within=30)
        fault.recovers()


@pytest.mark.fault(2, "kill -9 the leader", gap=12, back=60, every_run=True)
def test_a_killed_leader_is_replaced_and_restarts_by_itself(fault: Fault) -> None:
    with fault.traffic():
        victim = leader(fault.topic)
        before = restarts(victim)
        kill(victim, "kafka")
        fault.recovers()
        assert restarts(victim) > before


@pytest.mark.fault(3, "kill -9 the controller", gap=12, back=60, every_run=True)
def test_a_killed_controller_has_one_successor(fault: Fault) -> None:
    with fault.traffic():
        *others, victim = controller_last()
        kill(victim, "kafka")
        eventually(
            lambda: controller(*others) in others,
            within=40,
            what="the others agree on another controller",
        )
        fault.recovers()
        # The metric of the alert KafkaNotOneController.
        metric = "kafka_controller_kafkacontroller_activecontrollercount"
        assert sum(tell("kafka", metric, *BROKERS)) == 1


@pytest.mark.fault(4, "chase the leader 5 x stop, 5 x kill -9", gap=12, back=60)
@pytest.mark.timeout(1500)
def test_no_record_is_lost_when_every_new_leader_is_stopped_or_killed(fault: Fault) -> None:
    with fault.traffic():
        for _ in range(5):
            with stopped(leader(fault.topic), "kafka"):
                pass
            fault.recovers()
        for _ in range(5):
            kill(leader(fault.topic), "kafka")
            fault.recovers()


# The gap usually ends with the session (5 s), and at the latest when the frozen replica leaves the
# in-sync set (replica.lag.time.max.ms, 30 s).
@pytest.mark.fault(8, "freeze the leader past its session", gap=35, back=60, every_run=True)
def test_a_frozen_leader_is_replaced_and_becomes_a_follower_when_resumed(fault: Fault) -> None:
    with fault.traffic() as traffic:
        victim = leader(fault.topic)
        process = property_of(victim, "kafka", "MainPID")
        with frozen_broker(victim):
            # Its partitions get other leaders only after its session has expired.
            traffic.goes_on(within=60)
        fault.recovers()
        # The broker recovered without a restart.
        assert property_of(victim, "kafka", "MainPID") == process


@contextmanager
def frozen_broker(victim: str) -> Iterator[None]:
    host = connect(victim)
    host.check_output("systemctl kill --signal STOP kafka")
    try:
        yield
    finally:
        host.check_output("systemctl kill --signal CONT kafka")


@pytest.mark.fault("control", "acks=1, kill -9 the only copy", back=60)
def test_the_check_finds_lost_records(fault: Fault) -> None:
    def lose() -> None:
        with fault.traffic(acks=1) as traffic:
            victim = leader(fault.topic)
            first, second = [name for name in BROKERS if name != victim]
            with frozen_broker(first), frozen_broker(second):
                before = traffic.acknowledged
                eventually(
                    lambda: traffic.acknowledged > before + 20,
                    within=20,
                    what="one replica acknowledges",
                )
                kill(victim, "kafka")
            fault.recovers()

    with pytest.raises(AssertionError, match=r"\d+ lost: key\d/\d+"):
        lose()


@pytest.mark.fault(9, "fill the disk of one broker", gap=12, back=60)
def test_a_broker_with_a_full_disk_stops_and_recovers_when_there_is_space(fault: Fault) -> None:
    victim = BROKERS[1]
    with small_disk(victim), fault.traffic() as traffic:
        fault.recovers()
        before = restarts(victim)
        connect(victim).run(f"dd if=/dev/zero of={DATA}/filler bs=1M")
        eventually(lambda: restarts(victim) > before, within=60, what="the broker exited")
        traffic.goes_on(within=60)
        connect(victim).check_output(f"rm {DATA}/filler")
        fault.recovers()


@contextmanager
def small_disk(victim: str) -> Iterator[None]:
    """Move the broker's data to a file system of 256 MB, and back at the end."""
    host = connect(victim)
    with stopped(victim, "kafka"):
        host.check_output(
            f"mv {DATA} {DATA}.away && install -d -o kafka -g kafka -m 750 {DATA} && "
            f"mount -t tmpfs -o size=256m,uid=kafka,gid=kafka,mode=750 tmpfs {DATA} && "
            f"cp -a {DATA}.away/. {DATA}"
        )
    try:
        yield
    finally:
        with stopped(victim, "kafka"):
            host.check_output(
                f"rm -rf {DATA}/filler {DATA}.away && cp -a {DATA} {DATA}.away && umount {DATA} && "
                f"rmdir {DATA} && mv {DATA}.away {DATA}"
            )


@pytest.mark.fault(11, "delete a follower's data", gap=2, back=120)
def test_a_follower_that_lost_its_data_copies_it_from_the_others(fault: Fault) -> None:
    with fault.traffic() as traffic:
        victim = next(name for name in BROKERS if name != leader(fault.topic))
        with stopped(victim, "kafka"):
            connect(victim).check_output(f"find {DATA} -mindepth 1 -delete")
            traffic.goes_on(within=30)
        fault.recovers()


@pytest.mark.fault(13, "stop two of three brokers", back=60, every_run=True)
def test_a_single_remaining_broker_acknowledges_nothing(fault: Fault) -> None:
    with fault.traffic() as traffic:
        first, second, alone = BROKERS
        with stopped(first, "kafka"), stopped(second, "kafka"):
            eventually(
                lambda: refuses(fault.topic, alone), within=30, what="the last broker refuses"
            )
            before = traffic.acknowledged
            with pytest.raises(AssertionError, match=", 0 failed"):
                traffic.goes_on(within=3)
            assert traffic.acknowledged == before
            # The metrics of the alerts KafkaUnderMinIsr and KafkaUnderReplicated.
            for metric in ("underminisrpartitioncount", "underreplicatedpartitions"):
                (told,) = tell("kafka", f"kafka_server_replicamanager_{metric}", alone)
                assert told > 0
        fault.recovers()


def refuses(topic: str, via: str) -> bool:
    """Whether a send with acks=all is refused because too few replicas are in sync."""
    with KafkaProducer(
        **connection(via), acks="all", enable_idempotence=False, retries=0
    ) as producer:
        # A record without a key: if it is accepted, it does not disturb the traffic.
        sent = producer.send(topic, value=b"", partition=0)
        try:
            sent.get(timeout=10)
        except NotEnoughReplicasError:
            return True
    # Both other brokers have stopped, so an acknowledgement fails the test without a retry.
    pytest.fail("a single replica was enough for an acknowledgement")


@pytest.mark.fault("host", "power-cycle a host", gap=12, back=120, every_run=True)
def test_a_restarted_host_recovers_by_itself(fault: Fault) -> None:
    with fault.traffic():
        victim = BROKERS[2]
        restart_host(victim)
        eventually(
            lambda: zookeeper_mode(victim) in ("leader", "follower"),
            within=60,
            what="ZooKeeper on the restarted host serves",
        )
        fault.recovers()
