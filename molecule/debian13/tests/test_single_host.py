"""One broker and one ZooKeeper member on a single host with Debian 13.

The host also has unusual settings of some sites (sandbox/test-artifacts/host-trixie).
"""

import re

import pytest
from hosts import connect, group, variable
from kafka_clients import consume, copies_in_sync, produce, zookeeper_mode
from units import exposure

(HOST,) = group("kafka")


def test_the_host_has_the_unusual_settings() -> None:
    host = connect(HOST)
    assert host.check_output("umask") == "0077"
    assert host.check_output("date +%Z") in ("+1245", "+1345")
    assert "hidepid=" in host.check_output("grep '^proc /proc ' /proc/mounts")
    assert "nicht gefunden" in host.run("ls /missing").stderr


def test_consumers_get_what_producers_sent(topic: str) -> None:
    values = [f"message {number}".encode() for number in range(100)]
    produce(topic, via=HOST, values=values)
    assert consume(topic, via=HOST, count=100) == values
    assert copies_in_sync(topic) == [1]


def test_the_only_member_runs_standalone_with_a_separate_transaction_log() -> None:
    assert zookeeper_mode(HOST) == "standalone"
    host = connect(HOST)
    assert host.check_output("ls /var/lib/zookeeper-log/version-2 | grep --count '^log[.]'") != "0"
    assert "log." not in host.check_output("ls /var/lib/zookeeper/version-2")


@pytest.mark.parametrize("unit", ["zookeeper", "kafka"])
def test_the_distributions_java_runs_in_a_confined_unit(unit: str) -> None:
    host = connect(HOST)
    assert host.system_info.release.startswith("13")
    service = host.service(unit)
    assert service.is_running
    assert service.is_enabled
    assert service.systemd_properties["NRestarts"] == "0"
    command = host.check_output(
        "readlink /proc/$(systemctl show --property MainPID --value %s)/exe", unit
    )
    assert "java-21" in command
    assert exposure(HOST, unit) <= 1.5


@pytest.mark.parametrize("unit", ["zookeeper", "kafka"])
def test_java_gets_the_options_of_the_inventory(unit: str) -> None:
    command = connect(HOST).check_output(
        "tr '\\0' '\\n' < /proc/$(systemctl show --property MainPID --value %s)/cmdline", unit
    )
    assert set(variable(HOST, f"{unit}_java_options").split()) <= set(command.split())


def test_disabled_metrics_have_no_agent_and_no_port() -> None:
    host = connect(HOST)
    assert "-javaagent" not in host.check_output("pgrep --list-full java")
    listening = host.check_output("ss --listening --tcp --numeric --no-header")
    assert not re.search(r":(9404|9405)\s", listening)
    assert not host.file("/etc/kafka/metrics.yml").exists


def test_a_listener_binds_to_its_configured_address() -> None:
    listening = connect(HOST).check_output("ss --listening --tcp --numeric --no-header").split()
    bound = {where for where in listening if where.endswith((":9091", ":9092", ":9093"))}
    assert len(bound) == 3
    assert [where for where in bound if "127.0.0.1" in where] == ["[::ffff:127.0.0.1]:9091"]


def test_kernel_settings_are_applied_except_unknown_ones() -> None:
    host = connect(HOST)
    written = host.file("/etc/sysctl.d/60-kafka.conf").content_string
    assert "net.core.somaxconn = 4096\nvm.of_another_kernel = 1\n" in written
    assert host.sysctl("net.core.somaxconn") == 4096
