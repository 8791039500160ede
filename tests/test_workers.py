"""Tests that share fixtures run in the same worker, which makes these once."""

import pytest
from xdist.scheduler import LoadGroupScheduling


def test_the_scheduler_reads_the_name_of_the_group(request: pytest.FixtureRequest) -> None:
    if not hasattr(request.config, "workerinput"):
        pytest.skip("there are no workers: see --numprocesses")
    group = LoadGroupScheduling._split_scope(None, request.node.nodeid)
    assert group == "tests/test_workers.py"
