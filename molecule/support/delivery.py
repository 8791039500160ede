"""Checks Kafka's promises on a history of sent, acknowledged and read records.

The promises are those of Jepsen's workload for Kafka-like logs (jepsen-io/jepsen,
jepsen/src/jepsen/tests/kafka.clj):

- Every acknowledged record is read, at the partition and offset that the acknowledgement named.
- Each key keeps its order.
- No record is there twice, and no offset ever has two records.
- A record that a reader has seen does not disappear.

A failed send promises nothing: its record may be in the log or not.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Record(NamedTuple):
    """The identity of a record: its key, and its number among the records of this key, from 0."""

    key: str
    number: int

    def __str__(self) -> str:
        return f"{self.key}/{self.number}"


class Placed(NamedTuple):
    """A record and its position in the log."""

    record: Record
    partition: int
    offset: int


@dataclass
class History:
    """What a writer sent and its readers read."""

    sent: set[Record] = field(default_factory=set)
    # In the order of the acknowledgements.
    acknowledged: list[Placed] = field(default_factory=list)
    # What the concurrent reader got, in its order.
    followed: list[Placed] = field(default_factory=list)
    # The whole log at the end: each partition in the order of offsets.
    log: list[Placed] = field(default_factory=list)


@dataclass(frozen=True)
class Violations:
    """The broken promises, each with its records."""

    # Acknowledged, but not in the log.
    lost: list[str]
    # Acknowledged and in the log, but not seen by the concurrent reader.
    skipped: list[str]
    # Seen by that reader, but not in the log at the end.
    taken_back: list[str]
    # At two positions, or read twice.
    duplicated: list[str]
    # Acknowledged, but after a later one of the same key.
    misordered: list[str]
    # Two records at one position, in acknowledgements, the concurrent reader and the log together.
    contradicted: list[str]
    # In the log, but never sent.
    unknown: list[str]

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def __str__(self) -> str:
        found = ((name.replace("_", " "), records) for name, records in vars(self).items())
        return "; ".join(
            f"{len(records)} {name}: {', '.join(records[:5])}{' ...' if len(records) > 5 else ''}"
            for name, records in found
            if records
        )


def violations(history: History) -> Violations:
    """The broken promises and their records. The result is false if there are none."""
    acknowledged = {placed.record for placed in history.acknowledged}
    followed = {placed.record for placed in history.followed}
    log = {placed.record for placed in history.log}
    return Violations(
        lost=_names(acknowledged - log),
        skipped=_names((acknowledged & log) - followed),
        taken_back=_names(followed - log),
        duplicated=_names(_repeated(history.followed) | _repeated(history.log)),
        misordered=_names(_inversions(history.followed, acknowledged))
        or _names(_inversions(history.log, acknowledged)),
        contradicted=_contradictions([*history.acknowledged, *history.followed, *history.log]),
        unknown=_names(log - history.sent),
    )


def _names(records: Iterable[Record]) -> list[str]:
    return [str(record) for record in sorted(records)]


def _repeated(placed: list[Placed]) -> set[Record]:
    return {
        record for record, times in Counter(each.record for each in placed).items() if times > 1
    }


def _inversions(placed: list[Placed], acknowledged: set[Record]) -> list[Record]:
    newest: dict[str, int] = {}
    found = []
    for record in (each.record for each in placed if each.record in acknowledged):
        if record.number < newest.get(record.key, 0):
            found.append(record)
        newest[record.key] = max(record.number, newest.get(record.key, 0))
    return found


def _contradictions(placed: list[Placed]) -> list[str]:
    held: defaultdict[tuple[int, int], set[Record]] = defaultdict(set)
    for each in placed:
        held[each.partition, each.offset].add(each.record)
    return [
        f"partition {partition} offset {offset} is {' and '.join(_names(records))}"
        for (partition, offset), records in sorted(held.items())
        if len(records) > 1
    ]
