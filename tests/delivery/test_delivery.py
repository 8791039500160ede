"""The check finds each kind of broken promise, and none in traffic through a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import fields

import pytest
from delivery import History, Placed, Record, Violations, violations
from kafka import KafkaAdminClient
from kafka_broker import KafkaBroker
from traffic import KEYS, Traffic


def kept() -> History:
    """A history without violations: two keys on two partitions. The last send of `b` failed, but
    its record is in the log.
    """
    log = [Placed(Record("a", number), 0, number) for number in range(4)]
    log += [Placed(Record("b", number), 1, number) for number in range(4)]
    return History(
        sent={placed.record for placed in log} | {Record("a", 4)},
        acknowledged=log[:-1],
        followed=list(log),
        log=list(log),
    )


def test_a_correct_history_has_no_violations() -> None:
    assert not violations(kept())
    assert str(violations(kept())) == ""


def lose(history: History) -> None:
    history.followed.remove(Placed(Record("a", 3), 0, 3))
    history.log.remove(Placed(Record("a", 3), 0, 3))


def skip(history: History) -> None:
    history.followed.remove(Placed(Record("a", 1), 0, 1))


def take_back(history: History) -> None:
    history.log.remove(Placed(Record("b", 3), 1, 3))


def store_twice(history: History) -> None:
    history.followed.append(Placed(Record("a", 3), 0, 4))
    history.log.insert(4, Placed(Record("a", 3), 0, 4))


def show_twice(history: History) -> None:
    history.followed.insert(1, history.followed[0])


def swap(history: History) -> None:
    for placed in (history.acknowledged, history.followed, history.log):
        placed[1:3] = [Placed(Record("a", 2), 0, 1), Placed(Record("a", 1), 0, 2)]


def show_in_another_order(history: History) -> None:
    history.followed[1:3] = reversed(history.followed[1:3])


def acknowledge_another_place(history: History) -> None:
    history.acknowledged[0] = Placed(Record("a", 0), 1, 0)


def rewrite(history: History) -> None:
    # The reader got the failed record at a position that has another record at the end.
    history.followed[-1] = Placed(Record("b", 3), 1, 2)


def invent(history: History) -> None:
    history.log.append(Placed(Record("c", 0), 1, 4))


@pytest.mark.parametrize(
    ("broken", "found", "names"),
    [
        (lose, "lost", "a/3"),
        (skip, "skipped", "a/1"),
        (take_back, "taken_back", "b/3"),
        (store_twice, "duplicated", "a/3"),
        (show_twice, "duplicated", "a/0"),
        (swap, "misordered", "a/1"),
        (show_in_another_order, "misordered", "a/1"),
        (acknowledge_another_place, "contradicted", "partition 1 offset 0 is a/0 and b/0"),
        (rewrite, "contradicted", "partition 1 offset 2 is b/2 and b/3"),
        (invent, "unknown", "c/0"),
    ],
)
def test_each_broken_promise_is_found_and_named(
    broken: Callable[[History], None], found: str, names: str
) -> None:
    history = kept()
    broken(history)
    expected = {each.name: [] for each in fields(Violations)} | {found: [names]}
    assert vars(violations(history)) == expected
    assert names in str(violations(history))


def test_a_failed_send_may_have_any_position_and_order() -> None:
    history = kept()
    history.sent.add(Record("b", 4))
    late = Placed(Record("b", 3), 1, 4)
    history.log[-1:] = [Placed(Record("b", 4), 1, 3), late]
    history.followed[:] = history.log
    history.acknowledged.append(Placed(Record("b", 4), 1, 3))
    assert not violations(history)


@pytest.fixture
def topic(kafka_broker: KafkaBroker) -> str:
    name = f"traffic-{uuid.uuid4()}"
    with KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap_servers) as admin:
        admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1}})
        admin.wait_for_topics([name])
    return name


def test_traffic_measures_the_gap_and_loses_nothing(kafka_broker: KafkaBroker, topic: str) -> None:
    with Traffic([kafka_broker.bootstrap_servers], topic) as traffic:
        kafka_broker.pause()
        with pytest.raises(AssertionError, match=", 0 failed"):
            traffic.goes_on(within=1)
        kafka_broker.resume()
        traffic.goes_on(within=60)
    assert traffic.longest_gap > 1
    assert traffic.failed == []
    assert len(traffic.history.log) == traffic.acknowledged >= 2 * len(KEYS)


def test_traffic_fails_if_an_acknowledged_record_was_lost(
    kafka_broker: KafkaBroker, topic: str
) -> None:
    def write_then_lose() -> None:
        with Traffic([kafka_broker.bootstrap_servers], topic) as traffic:
            traffic.history.acknowledged.append(Placed(Record("key0", 10**6), 0, 10**6))

    with pytest.raises(AssertionError, match="1 lost: key0/1000000"):
        write_then_lose()
