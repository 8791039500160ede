"""Shared by the tests of all scenarios: a topic, and the hosts' journals when a test fails."""

from collections.abc import Generator, Iterator

import pytest
from hosts import connect, sandbox_hosts
from kafka_clients import new_topic

EVIDENCE = r"""
systemctl --no-pager --failed
for unit in zookeeper kafka 'snap.microk8s.*'; do
  journalctl --no-pager --lines 40 --unit "$unit"
done
if [ -x /snap/bin/microk8s ]; then
  /snap/bin/microk8s kubectl get pods --all-namespaces --output wide
  /snap/bin/microk8s kubectl get events --all-namespaces --sort-by .lastTimestamp | tail -n 30
  /snap/bin/microk8s kubectl logs --namespace chat \
    --selector app.kubernetes.io/name=chat --tail 40 --prefix
fi
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for name in sandbox_hosts():
            try:
                seen = connect(name).run(EVIDENCE)
                journal = seen.stdout + seen.stderr
            except RuntimeError as error:
                journal = f"not reachable: {error}"
            report.sections.append((f"journal of {name}", journal))
    return report


@pytest.fixture
def topic() -> Iterator[str]:
    """A topic with one partition and the cluster's defaults."""
    with new_topic() as name:
        yield name
