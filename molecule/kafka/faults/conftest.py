"""The fault matrix: selects rows, provides a healthy cluster for each, and prints the table.

FAULTS=some (the default) runs the rows with `every_run`, FAULTS=all all rows; `script/test
--faults=WHICH` sets it. Each row has goals for two times, in seconds: the longest gap between
acknowledgements under one key, and the time from the end of the fault until writes, reads and all
replicas are as before. The table has both beside the measured values, and marks missed goals. A
missed goal does not always fail the test: see `Traffic.assert_gap`.
"""

import os
from collections.abc import Iterator

import pytest
from hosts import eventually
from kafka_clients import certificates, let_applications_use, new_topic, whole
from matrix import HEADINGS, Fault

ROWS = pytest.StashKey[list[Fault]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "fault(row, what, gap, back, every_run): a row of the fault matrix; its goals in seconds",
    )
    config.stash[ROWS] = []
    if os.environ.get("FAULTS", "some") not in ("some", "all"):
        raise pytest.UsageError(f"FAULTS='{os.environ['FAULTS']}': set it to 'some' or 'all'")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("FAULTS", "some") == "all":
        return
    later = [item for item in items if not _marker(item).kwargs.get("every_run")]
    config.hook.pytest_deselected(items=later)
    items[:] = [item for item in items if item not in later]


def _marker(item: pytest.Item) -> pytest.Mark:
    marker = item.get_closest_marker("fault")
    assert marker is not None, f"{item.nodeid} has no marker pytest.mark.fault"
    return marker


@pytest.fixture(scope="session", autouse=True)
def _rights() -> None:
    """On a cluster that is installed with TLS, the traffic's clients may use the rows' topics."""
    if certificates().exists():
        let_applications_use("test-")


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Fault]:
    """The test's row, with a topic of its own, on a cluster in which every replica is in sync."""
    eventually(whole, within=120, what="every replica is in sync before the fault")
    row, what = _marker(request.node).args
    goals = _marker(request.node).kwargs
    with new_topic(partitions=3) as topic:
        fault = Fault(str(row), what, goals.get("gap"), goals["back"], topic)
        request.config.stash[ROWS].append(fault)
        yield fault


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    report = yield
    fault = getattr(item, "funcargs", {}).get("fault")
    if fault is not None and call.when == "call":
        fault.outcome = report.outcome
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [fault.cells() for fault in terminalreporter.config.stash[ROWS]]
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    terminalreporter.section("faults")
    for cells in (HEADINGS, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        terminalreporter.line(line.rstrip())
