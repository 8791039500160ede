"""Whatever is killed, everybody sees every acknowledged message once and in the same order. When
the log itself loses messages, nobody is told that nothing is missing.

The site has three replicas in their own processes, and three brokers, or one broker that may lose
the end of its log. People come and go, somebody tries to take their names, and all the time there
is a fault in one replica and one broker. A trial is one person who lost the connection and
continued from the last position on any replica. `after a loss` counts the trials of people whose
partition had lost its end since their last position. The faults are drawn from a seed, which is
printed. The scheduling of the machine is not, so runs with the same seed differ in their timing.
With an odd seed, nobody is let in on the three brokers without a token.

    pytest tests/chat/test_chaos.py -k everybody -s --trials 1000 --seed 7
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos.judge import Shown, Stretch, Verdict, Version, Witness, judge
from chaos.people import Person, SignIn, Thief, history_of, resume
from chaos.sites import PARTITIONS, ClusterSite, LoneSite, Site, Tokens
from conftest import Process, until
from kafka_broker import KafkaBroker, KafkaCluster

from chat.relay.base import partition_of

PEOPLE_PER_ROOM = 5
# The first two share a partition.
ROOMS = ("lobby", "kafka", "garden", "kitchen")
# After the faults, this many positions of a room are tried on each replica.
PROBES = 10
# A replica that has just started may accept somebody under a reserved name until signals from the
# others arrive.
ROBBED_SECONDS = 5.0

Start = Callable[..., Process]


def shown(offset: int, time: int = 1) -> Shown:
    """A message. With another time, it is another message at the same offset."""
    return Shown(f"e:0:{offset}:{time}", "a", "ada", f"c-{offset}-{time}", "text")


NOW = [shown(n) for n in range(4)]
LOST = [shown(0), shown(1), shown(2, time=9), shown(3, time=9)]


@pytest.mark.parametrize(
    ("seen", "acks", "counts"),
    [
        (NOW, {"c-1-1": NOW[1].id}, (0, 0, 0, 0)),
        ([NOW[0], NOW[2], NOW[3]], {}, (1, 0, 0, 0)),
        (NOW[:3], {}, (1, 0, 0, 0)),
        ([NOW[0], NOW[1], *NOW[1:]], {}, (0, 1, 0, 0)),
        ([*NOW, shown(4)], {}, (0, 1, 0, 0)),
        ([NOW[1], NOW[0], *NOW[2:]], {}, (0, 0, 1, 0)),
        (NOW, {"c-9-9": "e:0:9:9"}, (1, 0, 0, 0)),
        (NOW, {"c-1-1": NOW[2].id}, (0, 0, 1, 0)),
    ],
)
def test_the_judge_finds_what_is_wrong(
    seen: list[Shown], acks: dict[str, str], counts: tuple[int, ...]
) -> None:
    found = judge([NOW], [Witness("ada", "a", [Stretch(-1, seen)], acks)])
    assert tuple(found.counts.values()) == counts


@pytest.mark.parametrize(
    ("stretches", "counts"),
    [
        # The client was told of the loss, and shown all messages, or the last ones.
        ([Stretch(-1, LOST), Stretch(-1, NOW)], (0, 0, 0, 0)),
        ([Stretch(-1, LOST[:3]), Stretch(1, NOW[2:])], (0, 0, 0, 0)),
        # The client continued after a lost message, with and without a hole; or it still shows that
        # message.
        ([Stretch(-1, [*LOST[:3], NOW[3]])], (1, 0, 0, 1)),
        ([Stretch(-1, [*LOST[:3], *NOW[2:]])], (0, 0, 0, 1)),
        ([Stretch(-1, [*LOST[:3], NOW[3]]), Stretch(1, NOW[2:])], (1, 0, 0, 1)),
        ([Stretch(1, LOST[2:])], (2, 0, 0, 1)),
        # No lost message was seen, but there is a hole nevertheless.
        ([Stretch(-1, [NOW[0], NOW[1], NOW[3]])], (1, 0, 0, 0)),
        ([Stretch(-1, [LOST[1], LOST[2]]), Stretch(1, NOW[2:])], (1, 0, 0, 0)),
    ],
)
def test_the_judge_finds_who_was_not_told_of_a_loss(
    stretches: list[Stretch], counts: tuple[int, ...]
) -> None:
    found = judge([LOST, NOW], [Witness("ada", "a", stretches, {"c-2-9": LOST[2].id})])
    assert tuple(found.counts.values()) == counts


def test_the_judge_finds_an_id_that_means_two_messages() -> None:
    again = shown(2)._replace(text="another")
    seen = [Stretch(-1, [*NOW[:2], again]), Stretch(-1, NOW)]
    found = judge([[*NOW[:2], again], NOW], [Witness("ada", "a", seen, {})])
    assert found.counts["doubled"] == 1


@dataclass
class Course:
    """What happened to a site, and what people and the log recorded."""

    site: Site
    people: list[Person]
    thief: Thief
    seconds: float
    versions: dict[str, list[Version]]
    verdict: Verdict

    @property
    def robbed(self) -> list[float]:
        """How long (in seconds) people were told that their name is taken, for each time."""
        return [seconds for person in self.people for seconds in person.robbed]

    @property
    def names_lost(self) -> int:
        return sum(seconds > ROBBED_SECONDS for seconds in self.robbed)

    @property
    def reloads(self) -> int:
        return sum(not one.recovered for person in self.people for one in person.resumes)

    @property
    def after_a_loss(self) -> int:
        return sum(
            any(
                one.heard_last <= at <= one.back
                for at in self.site.lost_at[partition_of(person.room, PARTITIONS)]
            )
            for person in self.people
            for one in person.resumes
        )

    @property
    def lost_by_the_log(self) -> int:
        return sum(len(gone(versions)) for versions in self.versions.values())

    @property
    def figures(self) -> dict[str, object]:
        return {
            "trials": trials_of(self.people),
            "after a loss": self.after_a_loss,
            "seconds": round(self.seconds),
            "messages": sum(len(versions[-1]) for versions in self.versions.values()),
            "lost by the log": self.lost_by_the_log,
            "acknowledged": sum(len(person.acks) for person in self.people),
            "seen": sum(len(one.seen) for person in self.people for one in person.stretches),
            **self.verdict.counts,
            "told recovered: false": self.reloads,
            "tries for a name": self.thief.tries,
            "names taken for a moment": len(self.robbed) - self.names_lost,
            "names lost": self.names_lost,
            "tokens": "off" if self.site.tokens is None else "required",
            **self.site.done,
        }


def trials_of(people: list[Person]) -> int:
    return sum(len(person.resumes) for person in people)


def gone(versions: list[Version]) -> set[Shown]:
    """The messages that the log has lost."""
    return {shown for version in versions for shown in version} - set(versions[-1])


async def run(site: Site, trials: int, rng: random.Random) -> Course:
    """Let people talk while one replica and one broker at a time have faults, until there were
    enough trials.
    """
    people = [
        # One person per room always starts without a position, so that the log grows even after
        # losses.
        Person(
            f"{room}-{n}",
            room,
            site.ports,
            random.Random(rng.random()),
            site.sign_in,
            forgets=n == 0,
        )
        for room in ROOMS
        for n in range(PEOPLE_PER_ROOM)
    ]
    thief = Thief(people, site.ports, random.Random(rng.random()), site.sign_in)
    living = [asyncio.create_task(person.live()) for person in people]
    try:
        await until(lambda: all(person.position for person in people))
        stealing = asyncio.create_task(thief.live())
        living.append(stealing)
        for person in people:
            person.talks = person.leaves = True
        began = time.monotonic()
        await asyncio.gather(
            *(
                site.cause(faults, lambda: trials_of(people) >= trials)
                for faults in (site.replica_faults, site.broker_faults)
            )
        )
        took = time.monotonic() - began
        stealing.cancel()
        for person in people:
            person.leaves = False
        # Whoever has not joined, got an answer or seen everything by then never will. The judge
        # finds that.
        with contextlib.suppress(AssertionError):
            await until(lambda: all(person.here for person in people), 60)
        for person in people:
            person.talks = False
        with contextlib.suppress(AssertionError):
            await until(lambda: not any(person.pending for person in people), 30)
        versions = await site.versions(ROOMS)
        with contextlib.suppress(AssertionError):
            await until(lambda: all(has_seen(one, versions[one.room][-1]) for one in people), 30)
        probed = await asyncio.gather(
            *(
                probe(port, room, versions[room], rng, site.sign_in)
                for port in site.ports()
                for room in ROOMS
            )
        )
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
    verdict = Verdict()
    for room in ROOMS:
        verdict.add(judge(versions[room], [one.witness for one in people if one.room == room]))
    for found in probed:
        verdict.add(found)
    verdict.lost += [f"{one.name}: no answer to {one.pending}" for one in people if one.pending]
    return Course(site, people, thief, took, versions, verdict)


def has_seen(person: Person, log: Version) -> bool:
    """Whether the person saw the end of the log."""
    return bool(person.seen) and person.seen[-1] == log[-1]


async def probe(
    port: int, room: str, versions: list[Version], rng: random.Random, sign_in: SignIn
) -> Verdict:
    """Compare a replica's history of a room with the log, and resume from some positions."""
    verdict = Verdict()
    now = versions[-1]
    history = await history_of(port, room, sign_in)
    if history != now:
        verdict.lost.append(f"{room} on port {port}: its history is not what the log holds")
    # For a position ahead of its own, a replica would wait until the log reaches it.
    false = sorted(shown for shown in gone(versions) if shown.offset < now[-1].offset)
    for shown in rng.sample(false, min(PROBES, len(false))):
        if await resume(port, room, shown.id, sign_in) is not None:
            verdict.false_recovered.append(f"{room} on port {port}: {shown}")
    for back in rng.sample(range(1, 200), PROBES):
        missed = now[-back + 1 :] if back > 1 else []
        if back <= len(now) and await resume(port, room, now[-back].id, sign_in) != missed:
            verdict.lost.append(f"{room} on port {port}: what came after {now[-back]}")
    return verdict


def report(course: Course, seed: int, record_property: Callable[[str, object], None]) -> None:
    figures = {"seed": seed} | course.figures
    record_property("chaos", figures)
    print("\n" + ", ".join(f"{name}: {figure}" for name, figure in figures.items()))


TakeCourse = Callable[[Callable[[random.Random], Site]], Awaitable[Course]]


@pytest.fixture
def take_course(
    trials: int, seed: int, record_property: Callable[[str, object], None]
) -> TakeCourse:
    """Returns a function that runs the trials on a site built from the seed's random numbers, and
    judges them.
    """

    async def take(make: Callable[[random.Random], Site]) -> Course:
        rng = random.Random(seed)
        site = make(rng)
        await site.open()
        course = await run(site, trials, rng)
        report(course, seed, record_property)
        assert course.verdict, course.verdict
        assert course.names_lost == 0, "a name stays its owner's while they are away"
        return course

    return take


@pytest.mark.timeout(1800)
async def test_everybody_sees_everything_once_whatever_is_killed(
    kafka_cluster: KafkaCluster,
    process: Start,
    take_course: TakeCourse,
    tmp_path: Path,
    seed: int,
) -> None:
    def make(rng: random.Random) -> Site:
        site = ClusterSite(kafka_cluster, process, rng)
        site.tokens = Tokens(tmp_path) if seed % 2 else None
        return site

    course = await take_course(make)
    assert course.reloads == 0, "nobody was away for longer than the window"


@pytest.mark.timeout(1800)
async def test_everybody_is_told_of_what_the_log_has_lost(
    lone_broker: KafkaBroker, process: Start, take_course: TakeCourse
) -> None:
    course = await take_course(lambda rng: LoneSite(lone_broker, process, rng))
    assert course.lost_by_the_log, "there was nothing to tell anybody"
