"""A run for one host knows the others from the inventory, or is refused."""

from pathlib import Path

from hosts import address
from kafka_clients import BROKERS

from playbooks import inventory, run

FIRST, *OTHERS = BROKERS
LIMIT = ("--limit", FIRST)


def test_a_run_for_one_host_finds_the_others_in_the_inventory(tmp_path: Path) -> None:
    known = {
        name: {"kafka_address": address(name), "zookeeper_address": address(name)}
        for name in OTHERS
    }
    more = inventory(tmp_path, {"kafka": known})
    limited = run("playbooks/kafka.yml", None, more, options=LIMIT)
    assert limited.succeeded, limited.said
    # Also no address in a file.
    assert set(limited.changed.values()) == {0}, limited.said


def test_it_is_refused_if_the_inventory_does_not_say_where_they_are() -> None:
    """The sandbox's addresses are known to SSH alone."""
    refused = run("playbooks/kafka_preflight.yml", options=LIMIT)
    assert not refused.succeeded
    assert f"No address is known for {', '.join(OTHERS)}" in refused.said
