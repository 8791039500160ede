"""The bench itself works: what needs no broker runs against the chat, and mistakes are named."""

import subprocess
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
