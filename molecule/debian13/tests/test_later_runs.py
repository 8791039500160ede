"""A later run asks for no more than it needs, takes what is over away, and says what it cannot."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import connect, group
from kafka_clients import kept_password

from playbooks import Run, assert_refused, run

(HOST,) = group("kafka")
PROCESSES = "systemctl show --property MainPID kafka zookeeper"
METRICS = [f"/etc/{unit}/metrics.yml" for unit in ("kafka", "zookeeper")]
SOURCES = "/etc/apt/sources.list"
LOCK = "mount --bind /proc/sys /proc/sys && mount --options remount,bind,ro /proc/sys"


@pytest.fixture(scope="module")
def later() -> Iterator[tuple[Run, str]]:
    """One run for all, when much has changed around the services, and their processes before it."""
    host = connect(HOST)
    before = host.check_output(PROCESSES)
    host.check_output(
        "touch --date '2 days ago' /var/lib/apt/lists"
        f" && mv {SOURCES} /root/ && echo 'deb http://mirror.invalid sid main' > {SOURCES}"
    )
    host.check_output(f"{LOCK} && umount /proc/sys && sysctl net.core.somaxconn=128 && {LOCK}")
    # Left from when metrics were on; newer than the process, as what it would be restarted for.
    host.check_output("touch %s %s", *METRICS)
    try:
        yield run("playbooks/kafka.yml", options=["-vvv", "--diff"]), before
    finally:
        host.check_output("umount /proc/sys && sysctl net.core.somaxconn=4096")
        host.check_output(f"mv /root/sources.list {SOURCES}")


def test_a_mirror_that_is_away_keeps_nobody_from_a_run(later: tuple[Run, str]) -> None:
    ended, _ = later
    assert ended.succeeded, ended.said


def test_where_the_kernel_may_not_be_changed_the_run_says_so_and_goes_on(
    later: tuple[Run, str],
) -> None:
    ended, _ = later
    told = ended.said.partition(f"{HOST}: some settings of /etc/sysctl.d/60-kafka.conf")[2]
    assert "net.core.somaxconn" in told


def test_what_metrics_left_is_removed_once_they_are_off_and_nothing_restarted(
    later: tuple[Run, str],
) -> None:
    ended, before = later
    host = connect(HOST)
    assert set(ended.changed.values()) == {len(METRICS)}
    assert not any(host.file(path).exists for path in METRICS)
    assert host.check_output(PROCESSES) == before


def test_a_run_that_tells_all_it_does_tells_no_password(later: tuple[Run, str]) -> None:
    ended, _ = later
    assert "Make the users" in ended.said
    assert kept_password("chat") not in ended.said
    assert "PRIVATE KEY" not in ended.said


def test_a_configuration_that_says_nothing_of_replicas_is_none_that_cannot_be_read() -> None:
    """Kafka's own defaults are then what the broker was told."""
    host = connect(HOST)
    path = "/etc/kafka/server.properties"
    host.check_output("mv %s /root/ && echo '# by hand' > %s", path, path)
    try:
        checked = run("playbooks/kafka_preflight.yml")
    finally:
        host.check_output("mv /root/server.properties %s", path)
    assert checked.succeeded, checked.said


def test_logs_are_in_english_although_the_host_speaks_german(tmp_path: Path) -> None:
    fetched = run("playbooks/logs.yml", {"logs_directory": str(tmp_path)})
    assert fetched.succeeded, fetched.said
    assert "Filesystem" in (tmp_path / HOST / "host.txt").read_text()


def test_an_installed_cluster_keeps_its_authority_and_its_security(tmp_path: Path) -> None:
    facts = tmp_path / "facts"
    elsewhere = {"kafka_tls_directory": str(tmp_path / "other")}
    words = ["zookeeper trusts another authority than kafka_tls_directory has", "which has none"]
    assert_refused("playbooks/kafka.yml", elsewhere, words, facts=facts)
    words = ["(by default kafka_security) is plaintext, and the ensemble is installed with tls"]
    assert_refused("playbooks/kafka.yml", {"kafka_security": "plaintext"}, words, facts=facts)
