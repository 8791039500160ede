"""A second run of site.yml changes nothing.

The first run created Kafka's topics last, so whatever the second one restarts or writes is newer
than they are.
"""

import pytest
from hosts import connect
from kafka_clients import BROKERS

from playbooks import Run, run

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def second_run() -> Run:
    return run("site.yml")


def test_the_second_run_reports_no_change(second_run: Run) -> None:
    assert second_run.succeeded, second_run.said
    assert second_run.changed
    assert not any(second_run.changed.values()), second_run.said


@pytest.mark.usefixtures("second_run")
@pytest.mark.parametrize("unit", ["zookeeper", "kafka"])
@pytest.mark.parametrize("name", BROKERS)
def test_the_second_run_restarted_and_wrote_nothing(name: str, unit: str) -> None:
    last = "/var/lib/kafka/data/chat-0/partition.metadata"
    host = connect(name)
    started = host.check_output(
        'date +%%s --date "$(systemctl show --property ExecMainStartTimestamp --value %s)"', unit
    )
    assert int(started) < int(host.check_output("stat --format %%Y %s", last))
    written = f"/etc/{unit} /etc/systemd/system/{unit}.service"
    assert not host.check_output(f"find {written} -type f -newer {last}")
