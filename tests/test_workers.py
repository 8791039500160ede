"""Tests that share fixtures run in the same worker, which makes these once."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from xdist.scheduler import LoadGroupScheduling

CONFTEST = "tests/conftest.py"


def test_the_scheduler_reads_the_name_of_the_group(request: pytest.FixtureRequest) -> None:
    if not hasattr(request.config, "workerinput"):
        pytest.skip("there are no workers: see --numprocesses")
    group = LoadGroupScheduling._split_scope(None, request.node.nodeid)
    assert group == "tests/test_workers.py"


def test_brokers_end_after_the_last_of_their_tests_and_not_before(
    request: pytest.FixtureRequest,
) -> None:
    brokers = Mock()
    using = SimpleNamespace(fixturenames=["secured_broker"], funcargs={"secured_broker": brokers})
    other = SimpleNamespace(fixturenames=["kafka_broker"], funcargs={"kafka_broker": Mock()})
    teardown = request.config.hook.pytest_runtest_teardown
    (ours,) = [each for each in teardown.get_hookimpls() if each.plugin_name.endswith(CONFTEST)]
    ours.function(using, using)
    ours.function(other, using)
    brokers.close.assert_not_called()
    ours.function(using, other)
    brokers.close.assert_called_once_with()
