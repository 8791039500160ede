"""The report says of each goal whether it is met, by the medians."""

import dataclasses

import pytest

from bench import report
from bench.run import Run
from bench.workloads import CPU_PER_DELIVERY, DELIVERIES, WORKLOADS, Goal, Metric

FAN_OUT = WORKLOADS[0]


def run(figure: float) -> Run:
    """A run that delivered 1,000,000 messages in `figure` seconds, all of them CPU time."""
    return Run(
        clients=1000,
        messages=1000,
        deliveries=1_000_000,
        seconds=figure,
        delivered_bytes=190,
        server_cpu=figure,
        load_cpu=0,
        neighbour_cpu=0,
        others_cpu=0,
        p50_ms=1,
        p99_ms=2,
        rss_before=0,
        rss_joined=0,
        server_cpu_joined=0,
    )


@pytest.mark.parametrize(
    ("metric", "goal", "verdict"),
    [
        (
            CPU_PER_DELIVERY,
            Goal(1 / 3, "tornado"),
            "| ≥ 3 times less | 3.00 (2.00 to 4.00) | met |",
        ),
        (CPU_PER_DELIVERY, Goal(1 / 4, "tornado"), "3.00 (2.00 to 4.00) | **missed** |"),
        (CPU_PER_DELIVERY, Goal(1.3, "tornado"), "| ≤ 1.3 times | 0.33 (0.25 to 0.50) | met |"),
        (CPU_PER_DELIVERY, Goal(2), "| ≤ 2 µs | 2.0 | met |"),
        (CPU_PER_DELIVERY, Goal(1.9), "| ≤ 1.9 µs | 2.0 | **missed** |"),
        (DELIVERIES, Goal(2, "tornado", more=True), "| ≥ 2 times | 3.00 (2.00 to 4.00) | met |"),
        (
            DELIVERIES,
            Goal(4, "tornado", more=True),
            "| ≥ 4 times | 3.00 (2.00 to 4.00) | **missed** |",
        ),
    ],
)
def test_a_goal_is_met_or_missed(metric: Metric, goal: Goal, verdict: str) -> None:
    workload = dataclasses.replace(FAN_OUT, metric=metric, goals=(goal,))
    runs = {entry.name: [run(1)] * 3 for entry in workload.entries}
    runs["chat"] = [run(2), run(2), run(2)]
    runs["tornado"] = [run(4), run(6), run(8)]
    versions = {entry.contender.name: "1.0" for entry in workload.entries}
    page = report.markdown({workload.name: report.record(workload, runs, versions)}, [workload])
    assert verdict in page


@pytest.mark.parametrize(
    ("load", "kafka", "servers", "limited"),
    [(0.5, 0.3, 0.6, False), (0.5, 0.45, 0.6, True), (0.5, 0.45, 0.99, False)],
)
def test_a_busy_load_is_the_limit_unless_the_servers_are(
    load: float, kafka: float, servers: float, limited: bool
) -> None:
    found = dataclasses.replace(run(1), load_cpu=load, neighbour_cpu=kafka, server_cpu=servers)
    assert found.limited_by_load is limited
