"""A run on a host that was set up before asks for no more than it needs."""

from hosts import connect, group

from playbooks import run

(HOST,) = group("kafka")


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


def test_a_mirror_that_is_away_keeps_nobody_from_a_run() -> None:
    host = connect(HOST)
    lists = "touch --date '2 days ago' /var/lib/apt/lists"
    sources = "/etc/apt/sources.list"
    host.check_output(
        f"{lists} && mv {sources} /root/ && echo 'deb http://mirror.invalid sid main' > {sources}"
    )
    try:
        checked = run("playbooks/kafka.yml", options=("--check",))
    finally:
        host.check_output(f"mv /root/sources.list {sources}")
    assert checked.succeeded, checked.said
    assert set(checked.changed.values()) == {0}


def test_where_the_kernel_may_not_be_changed_the_run_says_so_and_goes_on() -> None:
    host = connect(HOST)
    locked = "mount --bind /proc/sys /proc/sys && mount --options remount,bind,ro /proc/sys"
    host.check_output(f"{locked} && umount /proc/sys && sysctl net.core.somaxconn=128 && {locked}")
    try:
        untuned = run("playbooks/kafka.yml")
    finally:
        host.check_output("umount /proc/sys && sysctl net.core.somaxconn=4096")
    assert untuned.succeeded, untuned.said
    told = untuned.said.partition(f"{HOST}: not all of /etc/sysctl.d/60-kafka.conf")[2]
    assert "net.core.somaxconn" in told
    assert set(untuned.changed.values()) == {0}


def test_what_metrics_leave_behind_is_removed_once_they_are_off_and_nothing_restarted() -> None:
    host = connect(HOST)
    left = [f"/etc/{unit}/metrics.yml" for unit in ("kafka", "zookeeper")]
    processes = "systemctl show --property MainPID kafka zookeeper"
    before = host.check_output(processes)
    # Newer than the process, as what it would have to be restarted for.
    host.check_output("touch %s %s", *left)
    ended = run("playbooks/kafka.yml")
    assert ended.succeeded, ended.said
    assert set(ended.changed.values()) == {2}
    assert not any(host.file(path).exists for path in left)
    assert host.check_output(processes) == before
