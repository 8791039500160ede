"""The bench itself works: what needs no broker runs against the chat, and mistakes are named."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "script" / "bench", *arguments], capture_output=True, text=True, check=False
    )


def test_the_workloads_run_against_the_chat_and_nothing_is_lost() -> None:
    run = bench("--quick", "--rounds=1", "burst-100", "inbound", "idle")
    assert run.returncode == 0, run.stderr
    for title in ("Fan-out", "Inbound", "Memory"):
        assert title in run.stdout


def test_an_unknown_workload_is_named_with_those_that_exist() -> None:
    run = bench("fanout")
    assert run.returncode == 2
    assert "no workload is called 'fanout'; there are: fan-out, burst-10" in run.stderr


def hostile(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "bench" / "hostile.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_row_tells_what_an_offender_costs() -> None:
    run = hostile("--seconds=1", "pongs")
    assert run.returncode == 0, run.stderr
    heading, _, row = run.stdout.splitlines()
    assert row.startswith("| pongs |")
    assert heading.count("|") == row.count("|")


def test_an_unknown_offender_or_checkout_is_named() -> None:
    run = hostile("trolls")
    assert run.returncode == 2
    assert "no kind is called 'trolls'; there are: empty-before-hello, empty" in run.stderr
    run = hostile("--against=/nowhere", "pongs")
    assert run.returncode == 2
    assert "/nowhere is no checkout of the chat" in run.stderr
