"""Brokers for tests live as long as their test wants them to."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kafka_broker import run


def test_a_broker_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        process = thread.submit(run, Path("/bin/sleep"), "60", heap="", output=tmp_path / "out")
        broker = process.result()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            broker.wait(timeout=0.3)
    finally:
        broker.kill()
        broker.wait()
