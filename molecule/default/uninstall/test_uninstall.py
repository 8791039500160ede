"""uninstall.yml removes what `site.yml` made, and data only with kafka_remove_data.

It never removes what somebody else made: files that the documentation tells operators to create,
and others of the same names.
"""

from hosts import connect, group

from playbooks import run

HOSTS = group("all")
MADE = (
    "/opt/kafka /opt/kafka_* /opt/.kafka_* /opt/jmx_exporter /etc/kafka /etc/zookeeper"
    " /etc/systemd/system/{kafka,zookeeper}.service /etc/sysctl.d/60-kafka.conf"
    " /etc/systemd/system/*.wants/{kafka,zookeeper}.service /var/lib/kafka/tmp"
)
DATA = ["/var/lib/kafka/data/meta.properties", "/var/lib/zookeeper/version-2", "/var/log/kafka"]
DIRECTORIES = "/var/{lib,log}/{kafka,zookeeper}"


def left(name: str, patterns: str) -> list[str]:
    """The paths that still exist, dangling links included."""
    return connect(name).run("bash -c %s", f"ls -d {patterns}").stdout.split()


def test_uninstall_removes_data_only_with_kafka_remove_data() -> None:
    # An interrupted unpacking leaves this directory.
    broken_off = "/opt/.kafka_2.13-9.9.9-01234567"
    connect(HOSTS[0]).check_output("mkdir %s", broken_off)
    assert {broken_off, "/opt/kafka", "/var/lib/kafka/tmp"} <= set(left(HOSTS[0], MADE))
    key = "/etc/kafka/broker.pem"
    connect(HOSTS[0]).check_output("touch %s", key)

    refused = run("playbooks/uninstall.yml", {"zookeeper_remove_data": True})
    assert "Set kafka_remove_data=true" in refused.said
    assert set(refused.changed.values()) == {0}

    removed = run("playbooks/uninstall.yml")
    assert removed.succeeded, removed.said
    for name in HOSTS:
        host = connect(name)
        assert left(name, MADE) == (["/etc/kafka"] if name == HOSTS[0] else [])
        assert all(host.file(path).exists for path in DATA)
        assert host.check_output("systemctl --failed --no-legend") == ""
        # Neither Java nor a container is left running.
        assert host.run("pgrep --list-full 'java|containerd|kubelet'").stdout == ""
    first = connect(group("microk8s")[0])
    assert "microk8s" not in first.run("snap list").stdout

    assert left(HOSTS[0], "/etc/kafka/{,.[!.]}*") == [key]

    # Somebody unpacked Kafka by hand.
    connect(HOSTS[0]).check_output("mkdir -p /opt/kafka/bin")
    again = run("playbooks/uninstall.yml")
    assert set(again.changed.values()) == {0}
    assert left(HOSTS[0], "/opt/kafka/*") == ["/opt/kafka/bin"]

    told = {"kafka_remove_data": True}
    assert run("playbooks/uninstall.yml", told).succeeded
    assert set(run("playbooks/uninstall.yml", told).changed.values()) == {0}
    assert [path for name in HOSTS for path in left(name, DIRECTORIES)] == []
