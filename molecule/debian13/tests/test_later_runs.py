"""Later runs: they need no package mirror, remove what is no longer configured, and report what
they cannot change.
"""

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
    """One run for all tests, after changes around the services; and the processes before the run.

    The package mirror cannot be reached, the kernel's settings are read-only and differ, and files
    are left from when metrics were enabled.
    """
    host = connect(HOST)
    before = host.check_output(PROCESSES)
    host.check_output(
        "touch --date '2 days ago' /var/lib/apt/lists"
        f" && mv {SOURCES} /root/ && echo 'deb http://mirror.invalid sid main' > {SOURCES}"
    )
    host.check_output(f"{LOCK} && umount /proc/sys && sysctl net.core.somaxconn=128 && {LOCK}")
    # Newer than the process: a file that is in use would cause a restart.
    host.check_output("touch %s %s", *METRICS)
    try:
        yield run("playbooks/kafka.yml", options=["-vvv", "--diff"]), before
    finally:
        host.check_output("umount /proc/sys && sysctl net.core.somaxconn=4096")
        host.check_output(f"mv /root/sources.list {SOURCES}")


def test_a_run_does_not_need_the_package_mirror(later: tuple[Run, str]) -> None:
    ended, _ = later
    assert ended.succeeded, ended.said


def test_a_run_reports_read_only_kernel_settings_and_continues(later: tuple[Run, str]) -> None:
    ended, _ = later
    told = ended.said.partition(f"{HOST}: some settings of /etc/sysctl.d/60-kafka.conf")[2]
    assert "net.core.somaxconn" in told


def test_files_of_disabled_metrics_are_removed_without_a_restart(later: tuple[Run, str]) -> None:
    ended, before = later
    host = connect(HOST)
    assert set(ended.changed.values()) == {len(METRICS)}
    assert not any(host.file(path).exists for path in METRICS)
    assert host.check_output(PROCESSES) == before


def test_the_most_verbose_output_contains_no_secret(later: tuple[Run, str]) -> None:
    ended, _ = later
    assert "Make the users" in ended.said
    assert kept_password("chat") not in ended.said
    assert "PRIVATE KEY" not in ended.said


def test_preflight_accepts_a_broker_configuration_without_replica_settings() -> None:
    """The broker then has Kafka's own defaults."""
    host = connect(HOST)
    path = "/etc/kafka/server.properties"
    host.check_output("mv %s /root/ && echo '# by hand' > %s", path, path)
    try:
        checked = run("playbooks/kafka_preflight.yml")
    finally:
        host.check_output("mv /root/server.properties %s", path)
    assert checked.succeeded, checked.said


def test_collected_logs_are_in_english_on_a_host_with_a_german_locale(tmp_path: Path) -> None:
    fetched = run("playbooks/logs.yml", {"logs_directory": str(tmp_path)})
    assert fetched.succeeded, fetched.said
    assert "Filesystem" in (tmp_path / HOST / "host.txt").read_text()


def test_another_authority_or_security_is_refused_on_an_installed_cluster(tmp_path: Path) -> None:
    facts = tmp_path / "facts"
    elsewhere = {"kafka_tls_directory": str(tmp_path / "other")}
    words = ["zookeeper trusts another authority than kafka_tls_directory has", "which has none"]
    assert_refused("playbooks/kafka.yml", elsewhere, words, facts=facts)
    words = ["(by default kafka_security) is plaintext, and the ensemble is installed with tls"]
    assert_refused("playbooks/kafka.yml", {"kafka_security": "plaintext"}, words, facts=facts)
