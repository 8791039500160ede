"""Plans which broker holds which partition. Pure functions, so that plans are easy to test.

An assignment maps each partition, (topic, number), to the ids of its brokers. The first one is the
preferred leader. A plan is the part of an assignment that differs from the current one. Moving a
replica copies all its data, so a plan moves only what is necessary to balance the load or empty a
broker. Changing the leader costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

Partition = tuple[str, int]
Assignment = dict[Partition, list[int]]
# The brokers that may hold partitions, with their racks.
Brokers = Mapping[int, "str | None"]


class ImpossibleError(Exception):
    """No assignment meets the requirements. The text says why."""


def changes(before: Assignment, after: Assignment) -> Assignment:
    """The part of `after` that differs."""
    return {
        partition: replicas
        for partition, replicas in after.items()
        if replicas != before[partition]
    }


def spread(current: Assignment, brokers: Brokers) -> Assignment:
    """`current`, spread over `brokers` as evenly as possible, with the same number of replicas.

    In the end, the numbers of replicas per broker differ by at most one, and so do the numbers of
    preferred leaders. Racks take priority over that. Raises ImpossibleError.
    """
    after = resize(current, {topic: len(ids) for (topic, _), ids in current.items()}, brokers)
    _balance_replicas(after, brokers)
    _balance_leaders(after)
    return after


def resize(current: Assignment, factors: Mapping[str, int], brokers: Brokers) -> Assignment:
    """`current`, restricted to `brokers`, with the given number of replicas for each topic.

    Replicas on these brokers stay where they are. Raises ImpossibleError.
    """
    for topic, factor in sorted(factors.items()):
        if factor > len(brokers):
            raise ImpossibleError(
                f"topic '{topic}' is to have {factor} replicas, and there are {len(brokers)}"
                f" brokers for them: {', '.join(map(str, sorted(brokers)))}"
            )
    after = {
        (topic, number): [broker for broker in ids if broker in brokers][: factors[topic]]
        for (topic, number), ids in sorted(current.items())
    }
    load = _load(after, brokers)
    for (topic, _), replicas in after.items():
        while len(replicas) < factors[topic]:
            racks = {brokers[broker] for broker in replicas}
            chosen = min(
                brokers.keys() - set(replicas),
                key=lambda broker: (brokers[broker] in racks, load[broker], broker),
            )
            replicas.append(chosen)
            load[chosen] += 1
    return after


def _load(assignment: Assignment, brokers: Iterable[int]) -> Counter[int]:
    load = Counter(dict.fromkeys(brokers, 0))
    load.update(broker for replicas in assignment.values() for broker in replicas)
    return load


def _balance_replicas(assignment: Assignment, brokers: Brokers) -> None:
    load = _load(assignment, brokers)
    while move := _next_move(assignment, brokers, load):
        partition, giver, taker = move
        replicas = assignment[partition]
        replicas[replicas.index(giver)] = taker
        load[giver] -= 1
        load[taker] += 1


def _next_move(
    assignment: Assignment, brokers: Brokers, load: Counter[int]
) -> tuple[Partition, int, int] | None:
    """The replica whose move balances the load, of the topic that gains most."""
    by_load = sorted(brokers, key=lambda broker: (load[broker], broker))
    for giver in reversed(by_load):
        for taker in by_load:
            if load[giver] - load[taker] < 2:
                break
            held = Counter(
                (topic, broker)
                for (topic, _), replicas in assignment.items()
                for broker in replicas
                if broker in (giver, taker)
            )
            movable = [
                partition
                for partition, replicas in assignment.items()
                if giver in replicas
                and taker not in replicas
                and _racks(replicas, brokers)
                <= _racks([*(set(replicas) - {giver}), taker], brokers)
            ]
            if movable:
                best = max(
                    movable,
                    key=lambda partition: (
                        held[partition[0], giver] - held[partition[0], taker],
                        assignment[partition][0] != giver,  # rather a replica that does not lead
                    ),
                )
                return best, giver, taker
    return None


def _racks(replicas: Iterable[int], brokers: Brokers) -> int:
    return len({brokers[broker] for broker in replicas})


def _balance_leaders(assignment: Assignment) -> None:
    """Balance the preferred leaders over the brokers, as far as the replicas allow."""
    leads = Counter({broker: 0 for replicas in assignment.values() for broker in replicas})
    leads.update(replicas[0] for replicas in assignment.values())
    while True:
        swap = next(
            (
                (replicas, broker)
                for replicas in assignment.values()
                for broker in replicas[1:]
                if leads[replicas[0]] - leads[broker] >= 2
            ),
            None,
        )
        if swap is None:
            return
        replicas, broker = swap
        leads[replicas[0]] -= 1
        leads[broker] += 1
        other = replicas.index(broker)
        replicas[0], replicas[other] = replicas[other], replicas[0]
