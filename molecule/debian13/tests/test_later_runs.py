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
