"""Metrics of brokers and ZooKeeper members."""

from collections import defaultdict

import requests
from hosts import address
from prometheus_client.parser import text_string_to_metric_families

PORTS = {"kafka": 9404, "zookeeper": 9405}


def scrape(job: str, name: str) -> dict[str, float]:
    """All metrics of a host's broker or ZooKeeper member, summed over labels."""
    answer = requests.get(f"http://{address(name)}:{PORTS[job]}/metrics", timeout=10)
    answer.raise_for_status()
    found: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] += sample.value
    return dict(found)


def tell(job: str, metric: str, *names: str) -> list[float]:
    """The values of a metric on these hosts, without hosts that do not have it."""
    return [told[metric] for told in (scrape(job, name) for name in names) if metric in told]
