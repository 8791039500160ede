"""The judge: compares what people saw, and what was confirmed to them, with the log.

A log that loses its end has *versions*: what it held before each loss, and what it holds now. What
somebody saw is in *stretches*: a new one begins when they are told `recovered: false`. A stretch
must be a piece of one version: without holes, in order, each message once, and of repeats in the
log the first one only. The last stretch must reach to the end of the log of now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import NamedTuple

from chat.protocol import Position


class Shown(NamedTuple):
    """A message of a room, as somebody saw it or as the log has it."""

    id: str
    author: str
    user: str
    cid: str
    text: str

    @property
    def offset(self) -> int:
        return offset_of(self.id)


Version = Sequence[Shown]


def offset_of(position: str) -> int:
    read = Position.parse(position)
    assert read is not None, position
    return read.offset


@dataclass
class Stretch:
    """What somebody saw after the offset `after`, over however many connections."""

    after: int
    seen: list[Shown] = field(default_factory=list)


class Witness(NamedTuple):
    """What a person saw, oldest stretch first, and the ids that were confirmed, by cid."""

    name: str
    author: str
    stretches: Sequence[Stretch]
    acks: Mapping[str, str]


@dataclass
class Verdict:
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    misordered: list[str] = field(default_factory=list)
    # Went on, as if nothing was missing, from what the log had lost.
    false_recovered: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether everybody saw everything once and in order."""
        return not any(self.counts.values())

    @property
    def counts(self) -> dict[str, int]:
        return {one.name.replace("_", " "): len(getattr(self, one.name)) for one in fields(self)}

    def add(self, other: Verdict) -> None:
        for one in fields(self):
            getattr(self, one.name).extend(getattr(other, one.name))


def judge(versions: Sequence[Version], witnesses: Iterable[Witness]) -> Verdict:
    """Judge what was seen of one room. `versions` of its log: oldest first, the last is of now."""
    verdict = Verdict()
    ever = {shown for version in versions for shown in version}
    by_id: dict[str, Shown] = {}
    for shown in ever:
        if by_id.setdefault(shown.id, shown) != shown:
            verdict.doubled.append(f"the log gave one id to {shown} and {by_id[shown.id]}")
    places: dict[tuple[str, str], set[str]] = {}
    for shown in ever:
        places.setdefault((shown.author, shown.cid), set()).add(shown.id)
    for who, author, stretches, acks in witnesses:
        for cid, confirmed in acks.items():
            known = places.get((author, cid), set())
            if not known:
                verdict.lost.append(f"{who}: {cid} was confirmed and never was in the log")
            elif confirmed not in known:
                verdict.misordered.append(f"{who}: {cid} was confirmed as {confirmed}: {known}")
        for number, stretch in enumerate(stretches, 1):
            others = [shown for shown in stretch.seen if shown not in ever]
            verdict.doubled += [f"{who}: {shown} is no first in the log" for shown in others]
            seen = [shown for shown in stretch.seen if shown in ever]
            last = number == len(stretches)
            candidates = versions[-1:] if last else versions
            verdict.add(_judge_stretch(who, Stretch(stretch.after, seen), candidates, last))
    return verdict


def _judge_stretch(who: str, stretch: Stretch, versions: Sequence[Version], last: bool) -> Verdict:
    """Judge a stretch by the version that it fits best."""
    verdict = Verdict()
    seen, there = stretch.seen, set(stretch.seen)
    verdict.doubled += [f"{who}: {one}" for one, times in Counter(seen).items() if times > 1]
    verdict.misordered += [
        f"{who}: {shown} after {before}"
        for before, shown in pairwise(seen)
        if shown.offset < before.offset
    ]
    if not seen and not last:
        return verdict

    def differs(version: Version) -> tuple[list[Shown], list[Shown]]:
        """What was seen that the version has not, and what it has that was not seen."""
        expected = [
            shown
            for shown in version
            if stretch.after < shown.offset and (last or shown.offset <= seen[-1].offset)
        ]
        known = set(version)
        others = [shown for shown in seen if shown not in known]
        return others, [shown for shown in expected if shown not in there]

    others, missing = min(map(differs, versions), key=lambda both: [*map(len, both)])
    if others:
        verdict.false_recovered.append(f"{who}: went on from what the log has lost: {others}")
    verdict.lost += [f"{who}: {shown}" for shown in missing]
    return verdict
