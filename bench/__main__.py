"""`script/bench`: build what is missing, measure, and write the results."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time

from bench import report
from bench.broker import Broker, broker
from bench.contenders import CHAT, ROOT
from bench.run import LOAD_CORE, BenchError, Run, run
from bench.workloads import WORKLOADS, Workload

# Programs that script/bootstrap does not install, and their Debian packages.
PROGRAMS = {"node": "nodejs", "npm": "npm", "taskset": "util-linux", "setpriv": "util-linux"}
# Long enough to see that everything works, but too short for figures.
MOMENT = ("--warm-up=0.1", "--seconds=0.5")


def main() -> int:
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(
        prog="script/bench",
        description="Measure the chat and its peers side by side, and write bench/RESULTS.md.",
        epilog="Workloads: "
        + "; ".join(f"{workload.name} ({workload.title})" for workload in WORKLOADS),
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="number of runs per contender (5)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="quick check: only ours, with few clients and short runs. Writes nothing",
    )
    parser.add_argument(
        "workload", nargs="*", metavar="WORKLOAD", help=f"{', '.join(names)}; all if none is given"
    )
    options = parser.parse_args()
    if unknown := set(options.workload) - set(names):
        parser.error(f"no workload is called '{sorted(unknown)[0]}'; there are: {', '.join(names)}")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: give at least 1")
    chosen = [
        workload
        for workload in WORKLOADS
        if not options.workload or workload.name in options.workload
    ]
    # The servers get the other core; the broker and everything else stay off it.
    os.sched_setaffinity(0, {LOAD_CORE})
    act = try_out if options.quick else measure
    failed = False
    try:
        check_machine(quick=options.quick)
        build(chosen, quick=options.quick)
    except BenchError as error:
        print(f"script/bench: {error}", file=sys.stderr)
        return 1
    with contextlib.ExitStack() as stack:
        kafka = None
        for workload in chosen:
            if workload.kafka and kafka is None:
                kafka = stack.enter_context(broker())
            try:
                act(workload, options.rounds, kafka if workload.kafka else None)
            except BenchError as error:
                # The other workloads can still produce results.
                print(f"\nscript/bench: {workload.name}: {error}", file=sys.stderr)
                failed = True
    return int(failed)


def check_machine(*, quick: bool) -> None:
    if (os.cpu_count() or 1) < 2:
        raise BenchError("this machine has one core; server and load need one each")
    needed = PROGRAMS if not quick else ("taskset", "setpriv")
    for program in needed:
        if shutil.which(program) is None:
            raise BenchError(
                f"'{program}' is missing; install it, on Debian with:"
                f" apt-get install --no-install-recommends {PROGRAMS[program]}"
            )


def build(chosen: list[Workload], *, quick: bool) -> None:
    artifacts = {
        entry.contender.artifact
        for workload in chosen
        for entry in workload.entries
        if entry.contender.artifact and not quick
    }
    kafka = ["kafka"] if any(workload.kafka for workload in chosen) else []
    for folder, names in (
        ("sandbox/artifacts", kafka),
        ("bench", ["wsload"]),
        ("bench/peers", sorted(artifacts)),
    ):
        if names:
            command = [str(ROOT / "sandbox" / "build"), "--from", folder, *names]
            if subprocess.run(command, check=False).returncode != 0:
                raise BenchError(f"{', '.join(names)} could not be built; see above")


def try_out(workload: Workload, rounds: int, kafka: Broker | None) -> None:
    """Run our server for a moment to find errors. It gives no figures."""
    print(workload.title, end=": ", flush=True)
    for _ in range(rounds):
        for entry in workload.entries:
            if entry.contender.name == CHAT.name:
                load = [*workload.load, *entry.load, *workload.quick, *MOMENT]
                run(entry.contender, load, replicas=workload.replicas, kafka=kafka)
    print("works")


def measure(workload: Workload, rounds: int, kafka: Broker | None) -> None:
    start = time.monotonic()
    print(f"{workload.title}: {workload.metric.meaning}, {workload.metric.unit}")
    runs: dict[str, list[Run]] = {entry.name: [] for entry in workload.entries}
    for _ in range(rounds):
        for entry in workload.entries:
            found = run(
                entry.contender,
                [*workload.load, *entry.load],
                settle=workload.settle,
                replicas=workload.replicas,
                kafka=kafka,
            )
            runs[entry.name].append(found)
            print(f"  {entry.name} {workload.metric.of(found):.2f}", end="", flush=True)
        print()
    for name, found_runs in runs.items():
        figures = [workload.metric.of(found) for found in found_runs]
        print(
            f"  {name:<18} {statistics.median(figures):10.2f}"
            f"  ({min(figures):.2f} to {max(figures):.2f})"
        )
    others = statistics.median(one.others_share for found in runs.values() for one in found)
    print(f"  {time.monotonic() - start:.0f} s; others on this machine took {others:.0%} of a core")
    versions = {entry.contender.name: entry.contender.version() for entry in workload.entries}
    report.save(workload, report.record(workload, runs, versions))


if __name__ == "__main__":
    sys.exit(main())
