"""Reassignment plans are balanced, move as little as possible, and use different racks."""

from collections import Counter
from unittest.mock import Mock

import pytest
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_assignment import (
    ImpossibleError,
    changes,
    resize,
    spread,
)
from ansible_collections.baremetal_chat.platform.plugins.module_utils.kafka_reassignment import (
    assignment,
)
from hypothesis import given
from hypothesis import strategies as st

THREE = {1: None, 2: None, 3: None}


def held(assignment):
    return Counter(broker for replicas in assignment.values() for broker in replicas)


def led(assignment):
    return Counter(replicas[0] for replicas in assignment.values())


def moved(before, after):
    return sum(len(set(after[partition]) - set(before[partition])) for partition in before)


def test_a_new_broker_gets_its_share_and_nothing_else_moves():
    before = {("chat", n): [1 + n % 3, 1 + (n + 1) % 3, 1 + (n + 2) % 3] for n in range(12)}
    after = spread(before, THREE | {4: None})
    assert held(after) == {1: 9, 2: 9, 3: 9, 4: 9}
    assert led(after) == {1: 3, 2: 3, 3: 3, 4: 3}
    assert moved(before, after) == 9


def test_a_balanced_assignment_does_not_change():
    before = {("chat", n): [1 + n % 3, 1 + (n + 1) % 3] for n in range(12)}
    assert changes(before, spread(before, THREE)) == {}


def test_a_retired_broker_gives_everything_away():
    before = {("chat", n): [1 + n % 3, 1 + (n + 1) % 3] for n in range(12)}
    after = spread(before, {1: None, 2: None})
    assert held(after) == {1: 12, 2: 12}
    assert led(after) == {1: 6, 2: 6}
    assert moved(before, after) == held(before)[3]


def test_a_broker_cannot_be_retired_if_too_few_would_remain():
    with pytest.raises(ImpossibleError, match="'chat' is to have 3 replicas, and there are 2"):
        spread({("chat", 0): [1, 2, 3]}, {1: None, 2: None})


def test_replicas_of_a_partition_are_in_different_racks():
    racks = {1: "a", 2: "a", 3: "b", 4: "b"}
    after = resize({("chat", n): [1 + n % 4] for n in range(8)}, {"chat": 2}, racks)
    assert all(len({racks[broker] for broker in replicas}) == 2 for replicas in after.values())


def test_fewer_replicas_keep_the_leader():
    after = resize({("chat", 0): [2, 3, 1]}, {"chat": 1}, THREE)
    assert after == {("chat", 0): [2]}


@st.composite
def clusters(draw):
    """A cluster of up to six brokers, some topics, and the brokers that are to stay."""
    brokers = {broker: draw(st.sampled_from("ab")) for broker in range(draw(st.integers(2, 6)))}
    assignment = {}
    for topic in range(draw(st.integers(1, 3))):
        factor = draw(st.integers(1, min(3, len(brokers) - 1)))
        for number in range(draw(st.integers(1, 12))):
            replicas = draw(st.permutations(sorted(brokers)))[:factor]
            assignment[f"topic{topic}", number] = list(replicas)
    leaving = draw(st.sampled_from([None, *brokers]))
    return assignment, {b: r for b, r in brokers.items() if b != leaving}


@given(clusters())
def test_a_plan_is_valid_balanced_and_stable(cluster):
    before, brokers = cluster
    after = spread(before, brokers)
    for partition, replicas in after.items():
        assert len(replicas) == len(set(replicas)) == len(before[partition])
        assert set(replicas) <= brokers.keys()
        kept = {brokers[b] for b in before[partition] if b in brokers}
        assert len(kept) <= len({brokers[b] for b in replicas})
    if len(set(brokers.values())) == 1:
        load = [held(after)[broker] for broker in brokers]
        assert max(load) - min(load) <= 1
    assert changes(after, spread(after, brokers)) == {}


def test_stale_metadata_after_a_move_is_not_used():
    def told(*replicas):
        partitions = [{"partition_index": 0, "replica_nodes": list(replicas)}]
        return [{"name": "topic", "partitions": partitions}]

    admin = Mock()
    admin.list_partition_reassignments.return_value = {}
    admin.describe_topics.side_effect = [told(0, 1, 2), told(0, 1), told(0, 1)]
    assert assignment(admin) == {("topic", 0): [0, 1]}
