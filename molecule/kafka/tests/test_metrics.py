"""Metrics: all that the alerts use are served, and only on the configured address."""

import re

import promql_parser
import pytest
import yaml
from hosts import ROOT, address, connect
from kafka_clients import BROKERS
from metrics import PORTS, scrape, tell

ALERTS = yaml.safe_load((ROOT / "monitoring" / "kafka-alerts.yml").read_text())["groups"]
# Metrics from elsewhere: Prometheus' own; node_exporter's, which the roles do not install; and one
# that needs TLS, which ../faults/test_security.py tests.
ELSEWHERE = {
    "up",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "certificate_not_after_seconds",
}


def asked(expression: str) -> set[str]:
    """The metrics in an expression. The parser writes each with braces after it."""
    return set(re.findall(r"(\w+)\{", str(promql_parser.parse(expression))))


@pytest.mark.parametrize(
    ("alert", "expression"),
    [(rule["alert"], rule["expr"]) for group in ALERTS for rule in group["rules"]],
)
def test_every_metric_of_an_alert_exists(alert: str, expression: str) -> None:
    jobs = ["zookeeper"] if alert.startswith("ZooKeeper") else ["kafka"]
    if 'job=~"kafka|zookeeper"' in expression:
        jobs = ["kafka", "zookeeper"]
    for job in jobs:
        assert asked(expression) - ELSEWHERE <= scrape(job, BROKERS[0]).keys()


def test_metrics_show_a_healthy_cluster() -> None:
    assert (
        sum(tell("kafka", "kafka_controller_kafkacontroller_activecontrollercount", *BROKERS)) == 1
    )
    for metric in (
        "kafka_controller_kafkacontroller_offlinepartitionscount",
        "kafka_server_replicamanager_underreplicatedpartitions",
        "kafka_server_replicamanager_underminisrpartitioncount",
        "kafka_log_logmanager_offlinelogdirectorycount",
    ):
        assert tell("kafka", metric, *BROKERS) == [0, 0, 0], metric
    assert tell("zookeeper", "zookeeper_quorum_size", *BROKERS) == [3, 3, 3]
    assert len(tell("zookeeper", "zookeeper_outstandingrequests", *BROKERS)) == 3


@pytest.mark.parametrize("name", BROKERS)
def test_metrics_are_served_only_on_the_configured_address(name: str) -> None:
    listening = connect(name).check_output("ss --listening --tcp --numeric --no-header")
    for port in PORTS.values():
        bound = re.findall(rf"(\S+):{port}\s", listening)
        # Java's sockets are IPv6 sockets, on IPv4 addresses too.
        assert [at.strip("[]").removeprefix("::ffff:") for at in bound] == [address(name)]
