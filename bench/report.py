"""Keeps measurements in `results.json`, one record per workload, and writes `RESULTS.md` from
it.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contenders import CHAT
from bench.run import LOAD_SHARE_LIMIT, SERVER_SHARE_FULL, Run
from bench.workloads import WORKLOADS, Entry, Goal, Workload

JSON = Path(__file__).parent / "results.json"
MARKDOWN = Path(__file__).parent / "RESULTS.md"

# Maximum load of the rest of a quiet machine, in cores.
QUIET = 0.15

METHOD = f"""\
How it is measured:

- The server has one core for itself, the load the other. Each run starts a server of its own;
  rounds go through all contenders in turn (A B C A B C), so that what changes about the machine
  changes for all.
- The load (`wsload`, C, one thread) parses every frame and knows every delivery by sender and
  number: a run with anything lost, repeated or out of order has no result. It naps instead of
  waiting in epoll, so that no server pays for waking it. A run in which its core is busy for more
  than {LOAD_SHARE_LIMIT:.0%} of the time has no result either, unless the servers' is full
  ({SERVER_SHARE_FULL:.0%}). What was taken of both cores, and by the load for a delivery, is in
  the tables.
- Delivered messages have the same size everywhere: the load finds out what a server puts around a
  text, and pads the text.
- CPU time is user and system time of the server's process over the measured span, by the kernel's
  own clock for it. Rates are paced, because load and server share a machine: what a delivery costs
  is the figure to compare.
- Figures are medians over the rounds, with the smallest and the largest. Ratios are of medians,
  with the smallest and the largest of a round.
- No compression anywhere. Peers are `bench/peers/*`, written as their documentation does, at their
  best settings.
"""


def record(
    workload: Workload, runs: dict[str, list[Run]], versions: dict[str, str]
) -> dict[str, Any]:
    """The record of a workload."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": _machine(),
        "versions": versions,
        "figures": {
            entry: [round(workload.metric.of(run), 4) for run in entry_runs]
            for entry, entry_runs in runs.items()
        },
        "p50_ms": {entry: [run.p50_ms for run in found] for entry, found in runs.items()},
        "p99_ms": {entry: [run.p99_ms for run in found] for entry, found in runs.items()},
        "delivered_bytes": {
            entry: statistics.median(run.delivered_bytes for run in found)
            for entry, found in runs.items()
        },
        "messages": {
            entry: round(statistics.median(run.messages / run.seconds for run in found), 1)
            for entry, found in runs.items()
        },
        "server_share": {
            entry: round(statistics.median(run.server_share for run in found), 3)
            for entry, found in runs.items()
        },
        "load_cost": {
            entry: round(
                statistics.median(run.load_cpu / max(1, run.deliveries) * 1e6 for run in found), 2
            )
            for entry, found in runs.items()
        },
        "load_share": {
            entry: round(max(run.load_share for run in found), 3) for entry, found in runs.items()
        },
        "neighbour_share": {
            entry: round(statistics.median(run.neighbour_share for run in found), 3)
            for entry, found in runs.items()
        },
        "others_share": round(
            statistics.median(run.others_share for found in runs.values() for run in found), 3
        ),
    }


def save(workload: Workload, found: dict[str, Any]) -> None:
    """Replace the workload's record, and write the report."""
    kept = json.loads(JSON.read_text()) if JSON.exists() else {}
    kept[workload.name] = found
    JSON.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    MARKDOWN.write_text(markdown(kept))


def markdown(kept: dict[str, Any], workloads: Sequence[Workload] = WORKLOADS) -> str:
    measured = [workload for workload in workloads if workload.name in kept]
    sections = [
        "# What was measured\n",
        "Written by `script/bench`; the runs are in `results.json`.\n",
        "| workload | against | goal | measured | |\n|---|---|---|---|---|\n"
        + "".join(
            _verdict(workload, goal, kept[workload.name])
            for workload in measured
            for goal in workload.goals
        ),
        METHOD,
        *(_section(workload, kept[workload.name]) for workload in measured),
    ]
    return "\n".join(sections)


def _verdict(workload: Workload, goal: Goal, found: dict[str, Any]) -> str:
    rounds = found["figures"][goal.entry]
    value = statistics.median(rounds)
    if goal.than is None:
        wanted, got = f"{goal.limit:g} {workload.metric.unit}", f"{value:.1f}"
        less = False
    else:
        than = found["figures"][goal.than]
        value /= statistics.median(than)
        # "3 times less" reads better than "0.33 times".
        less = goal.limit < 1
        ratios = [
            theirs / ours if less else ours / theirs
            for ours, theirs in zip(rounds, than, strict=True)
        ]
        word = "times less" if less else "times"
        wanted = f"{1 / goal.limit if less else goal.limit:.3g} {word}"
        got = f"{1 / value if less else value:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    sign = "≥" if less or goal.more else "≤"
    met = value >= goal.limit if goal.more else value <= goal.limit
    return (
        f"| {workload.title}: {workload.metric.meaning} | {goal.than or ''} | {sign} {wanted} |"
        f" {got} | {'met' if met else '**missed**'} |\n"
    )


def _section(workload: Workload, found: dict[str, Any]) -> str:
    figures: dict[str, list[float]] = found["figures"]
    rounds = len(next(iter(figures.values())))
    ours = statistics.median(figures.get(CHAT.name) or next(iter(figures.values())))
    lines = [
        f"## {workload.title}\n",
        f"{workload.text}\n",
        f"{workload.metric.meaning[0].upper()}{workload.metric.meaning[1:]}; rounds: {rounds};"
        f" {found['date']}; {found['machine']}. {_others(found['others_share'])}\n",
        f"| | {workload.metric.unit} | smallest to largest | times ours | latency p50 / p99, ms |"
        " messages/s | bytes | server's core | load's core | load, µs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in workload.entries:
        values = figures[entry.name]
        median = statistics.median(values)
        spoke = found["delivered_bytes"][entry.name] > 0
        lines.append(
            f"| {entry.name} | {median:.2f} | {min(values):.2f} to {max(values):.2f} |"
            f" {median / ours:.2f} | {_latency(found, entry) if spoke else ''} |"
            f" {found['messages'][entry.name]:.0f} | {found['delivered_bytes'][entry.name]:.0f} |"
            f" {found['server_share'][entry.name]:.0%} | {found['load_share'][entry.name]:.0%} |"
            f" {found['load_cost'][entry.name]:.1f} |"
        )
    versions = [
        f"- {one.name}: {one.note} ({found['versions'][one.name]})"
        for one in dict.fromkeys(entry.contender for entry in workload.entries)
    ]
    if workload.kafka:
        shares = ", ".join(
            f"{share:.0%} with {name}" for name, share in found["neighbour_share"].items()
        )
        versions.append(f"\nOf the load's core, Kafka took {shares}; the rest was the load.")
    return "\n".join([*lines, "", *versions, ""])


def _others(share: float) -> str:
    text = f"Other work on the machine took {share:.0%} of a core."
    return text if share <= QUIET else f"**{text[:-1]}: it was not quiet.**"


def _latency(found: dict[str, Any], entry: Entry) -> str:
    return " / ".join(
        f"{statistics.median(found[percentile][entry.name]):.1f}"
        for percentile in ("p50_ms", "p99_ms")
    )


def _machine() -> str:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}"
