"""What the tests of all scenarios share: a topic, and the hosts' journals when a test fails."""

import uuid
from collections.abc import Generator, Iterator

import pytest
from hosts import connect, group
from kafka import KafkaAdminClient
from kafka_clients import bootstrap

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
        for name in group("all"):
            try:
                seen = connect(name).run(EVIDENCE)
                journal = seen.stdout + seen.stderr
            except RuntimeError as gone:
                journal = f"not reachable: {gone}"
            report.sections.append((f"journal of {name}", journal))
    return report


@pytest.fixture
def topic() -> Iterator[str]:
    """A topic of one partition with the layer's own defaults."""
    name = f"test-{uuid.uuid4()}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap())
    try:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": -1}})
        admin.wait_for_topics([name])
        yield name
        admin.delete_topics([name])
    finally:
        admin.close()
