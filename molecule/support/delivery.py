"""What Kafka promises of acknowledged records, as a check of what was sent, told and read.

The promise, as Jepsen's workload for Kafka-like logs puts it (jepsen-io/jepsen,
jepsen/src/jepsen/tests/kafka.clj): what was acknowledged is read, at the place the acknowledgement
named; each key keeps its order; no record is there twice; no place ever holds two records; and what
a reader has seen stays. A send that failed promises nothing: its record may be there or not.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Record(NamedTuple):
    """A record's name: the key it was sent under, and its number among that key's, from 0."""

    key: str
    number: int

    def __str__(self) -> str:
        return f"{self.key}/{self.number}"


class Placed(NamedTuple):
    """A record at its place in the log."""

    record: Record
    partition: int
    offset: int


@dataclass
class History:
    """What a writer and its readers lived through."""

    sent: set[Record] = field(default_factory=set)
    # In the order in which the acknowledgements came.
    acknowledged: list[Placed] = field(default_factory=list)
    # What a reader saw that read along, in its order.
    followed: list[Placed] = field(default_factory=list)
    # The whole log in the end, partition by partition in the order of offsets.
    log: list[Placed] = field(default_factory=list)


@dataclass(frozen=True)
class Violations:
    """Each broken promise, and the records it was broken for."""

    # Acknowledged, and not in the log.
    lost: list[str]
    # Acknowledged and in the log, and never shown to the reader that read along.
    skipped: list[str]
    # Shown to that reader, and not in the log any more.
    taken_back: list[str]
    # At two places, or shown twice.
    duplicated: list[str]
    # Acknowledged, and behind a later one of the same key.
    misordered: list[str]
    # One place, two records: among the acknowledgements, the reader that read along and the log.
    contradicted: list[str]
    # In the log, and never sent.
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
    """Which promises were broken for which records; false when none was."""
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
