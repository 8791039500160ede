"""The bench itself works: every workload runs against the chat, and mistakes are named."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "script" / "bench", *arguments], capture_output=True, text=True, check=False
    )


def test_every_workload_runs_against_the_chat() -> None:
    run = bench("--quick", "--rounds=1")
    assert run.returncode == 0, run.stderr
    for title in ("Fan-out", "Inbound", "Memory"):
        assert title in run.stdout


def test_an_unknown_workload_is_named_with_those_that_exist() -> None:
    run = bench("fanout")
    assert run.returncode == 2
    assert "no workload is called 'fanout'; there are: fan-out, burst-10" in run.stderr
