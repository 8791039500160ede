"""A rolling restart: one broker at a time. It stops if a broker stays down, and can be resumed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import connect, eventually, group
from kafka_clients import BROKERS, controller_last, whole, zookeeper_mode
from units import give_up_restart, started, stopped

from playbooks import refusals, run

MEMBERS = group("zookeeper")
DROP_IN = "/etc/systemd/system/kafka.service.d/broken.conf"


@contextmanager
def broken(name: str) -> Iterator[None]:
    """On this host, systemd starts a program that never responds instead of the broker."""
    host = connect(name)
    # The program does not exit: whether systemd considers a command started that exits at once is a
    # race.
    unit = "[Service]\nExecStart=\nExecStart=/bin/sleep infinity\n"
    host.check_output("mkdir -p $(dirname %s) && printf %%s %s > %s", DROP_IN, unit, DROP_IN)
    try:
        yield
    finally:
        host.check_output("rm -r $(dirname %s) && systemctl daemon-reload", DROP_IN)
        host.check_output("systemctl restart kafka")


@pytest.mark.timeout(1200)
def test_a_restart_stops_at_a_broker_that_stays_down_and_resumes_with_the_others() -> None:
    first, second, last = controller_last()
    before = {name: started(name, "kafka") for name in BROKERS}
    with broken(second):
        refused = run("playbooks/restart.yml", {"kafka_health_timeout": 30}, tags="kafka")
        assert not refused.succeeded
        assert f"Brokers restarted: {first}, {second}. Not restarted: {last}." in refused.said
        assert started(last, "kafka") == before[last]
    eventually(whole, within=60, what="the repaired broker is in sync")
    between = {name: started(name, "kafka") for name in BROKERS}
    resumed = run("playbooks/restart.yml", tags="kafka")
    assert resumed.succeeded, resumed.said
    assert f"Brokers restarted, in this order: {last}." in resumed.said
    assert {name for name in BROKERS if started(name, "kafka") > between[name]} == {last}


def test_no_broker_is_restarted_while_another_is_down() -> None:
    first, away, last = controller_last()
    before = {name: started(name, "kafka") for name in (first, last)}
    with stopped(away, "kafka"):
        refused = run("playbooks/restart.yml", {"kafka_health_timeout": 4}, tags="kafka")
    give_up_restart(BROKERS)
    eventually(whole, within=60, what="the stopped broker is in sync again")
    assert not refused.succeeded
    assert f"Brokers not responding: {away}." in refused.said
    assert f"Brokers restarted: none. Not restarted: {first}, {last}." in refused.said
    assert {name: started(name, "kafka") for name in (first, last)} == before


def everywhere(command: str) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: connect(name).check_output(command), MEMBERS))


def test_an_ensemble_in_which_no_member_serves_recovers_in_one_run() -> None:
    # Give each member another election port, at which it also looks for the others.
    everywhere(
        "sed --in-place s/:3888/:388$(cat /var/lib/zookeeper/myid)/ /etc/zookeeper/zoo.cfg"
        " && systemctl restart zookeeper"
    )
    eventually(lambda: {zookeeper_mode(name) for name in MEMBERS} == {""}, 30, "nobody serves")
    everywhere("sed --in-place s/:388.$/:3888/ /etc/zookeeper/zoo.cfg")
    restarted = run("playbooks/restart.yml", {"zookeeper_health_timeout": 30}, tags="zookeeper")
    assert restarted.succeeded, restarted.said
    assert sorted(map(zookeeper_mode, MEMBERS)) == ["follower", "follower", "leader"]
    eventually(whole, within=60, what="every replica is in sync")


def test_port_changes_that_would_split_the_ensemble_are_refused(tmp_path: Path) -> None:
    before = {name: started(name, "zookeeper") for name in MEMBERS}
    moves = {"zookeeper_peer_port": "host1, host2, host3 serve", "zookeeper_client_port": "2181"}
    cases = {
        port: ("playbooks/restart.yml", {port: 2999}, [words, port, "zookeeper on all members"])
        for port, words in moves.items()
    }
    for refused in refusals(cases, tmp_path).values():
        refused.result()
    assert {name: started(name, "zookeeper") for name in MEMBERS} == before
