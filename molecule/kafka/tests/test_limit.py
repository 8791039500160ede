"""A run with --limit takes the addresses of other hosts from the inventory, or is refused."""

from pathlib import Path

from hosts import address
from kafka_clients import BROKERS

from playbooks import inventory, run

FIRST, *OTHERS = BROKERS
LIMIT = ("--limit", FIRST)


def test_a_run_with_limit_takes_other_hosts_addresses_from_the_inventory(tmp_path: Path) -> None:
    known = {
        name: {"kafka_address": address(name), "zookeeper_address": address(name)}
        for name in OTHERS
    }
    more = inventory(tmp_path, {"kafka": known})
    limited = run("playbooks/kafka.yml", None, more, options=LIMIT)
    assert limited.succeeded, limited.said
    # All files keep the same addresses.
    assert set(limited.changed.values()) == {0}, limited.said


def test_a_run_with_limit_is_refused_if_the_inventory_has_no_addresses() -> None:
    """The sandbox's addresses are only in its SSH configuration."""
    refused = run("playbooks/kafka_preflight.yml", options=LIMIT)
    assert not refused.succeeded
    assert f"No address is known for {', '.join(OTHERS)}" in refused.said
