"""What `site.yml` made can be taken away again; messages stay unless somebody says otherwise."""

from hosts import connect, group

from playbooks import run

HOSTS = group("all")
MADE = [
    "/opt/kafka",
    "/opt/jmx_exporter",
    "/etc/kafka",
    "/etc/zookeeper",
    "/etc/systemd/system/kafka.service",
]
DATA = ["/var/lib/kafka/data/meta.properties", "/var/lib/zookeeper/version-2"]


def test_uninstall_keeps_the_data_until_told() -> None:
    removed = run("playbooks/uninstall.yml")
    assert removed.succeeded, removed.said
    for host in map(connect, HOSTS):
        assert not [path for path in MADE if host.file(path).exists]
        assert all(host.file(path).exists for path in DATA)
        assert host.check_output("systemctl --failed --no-legend") == ""
        # Neither Java nor a container is left running.
        assert host.run("pgrep --list-full 'java|containerd|kubelet'").stdout == ""
    first = connect(group("microk8s")[0])
    assert "microk8s" not in first.run("snap list").stdout

    again = run("playbooks/uninstall.yml")
    assert set(again.changed.values()) == {0}

    told = {"kafka_remove_data": True, "zookeeper_remove_data": True}
    assert run("playbooks/uninstall.yml", told).succeeded
    assert set(run("playbooks/uninstall.yml", told).changed.values()) == {0}
    for host in map(connect, HOSTS):
        assert not [path for path in DATA if host.file(path).exists]
