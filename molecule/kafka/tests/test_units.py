"""The systemd units: confinement, stop and restart, memory, files, size of the logs."""

import re

import pytest
from hosts import connect
from kafka import KafkaAdminClient
from kafka_clients import BROKERS, bootstrap
from testinfra.host import Host
from units import exposure, property_of

from playbooks import run

# Expected properties of each unit, in systemd's notation.
PROMISES = {
    "kafka": {"TimeoutStopUSec": "5min", "RestartUSec": "10s"},
    "zookeeper": {"TimeoutStopUSec": "1min", "RestartUSec": "5s"},
}
COMMON = {
    "KillMode": "mixed",
    "LimitNOFILE": "100000",
    "Restart": "on-failure",
    "StartLimitIntervalUSec": "0",
    "SuccessExitStatus": "143",
    "User": "kafka",
}
MEGABYTE = 10**6
CODECS = ["gzip", "lz4", "snappy", "zstd"]


@pytest.mark.parametrize("unit", PROMISES)
def test_a_unit_has_its_timeouts_restarts_after_failures_and_is_confined(unit: str) -> None:
    host = connect(BROKERS[0])
    properties = host.service(unit).systemd_properties
    promised = COMMON | PROMISES[unit]
    assert {name: properties[name] for name in promised} == promised
    assert exposure(BROKERS[0], unit) <= 1.5


def open_files(host: Host, process: str) -> int:
    limit = re.search(
        r"^Max open files +\d+ +(\d+) ", host.file(f"{process}/limits").content_string, re.M
    )
    assert limit
    return int(limit[1])


@pytest.mark.parametrize(("unit", "heap"), [("kafka", "384m"), ("zookeeper", "128m")])
def test_a_service_has_its_heap_and_open_file_limit_and_does_not_swap(unit: str, heap: str) -> None:
    host = connect(BROKERS[0])
    process = f"/proc/{property_of(BROKERS[0], unit, 'MainPID')}"
    command = host.check_output(f"tr '\\0' ' ' < {process}/cmdline").split()
    assert {f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError"} <= {
        *command
    }
    # A container's limit may be lower: no process gets more than the host's init.
    assert open_files(host, process) == min(100_000, open_files(host, "/proc/1"))
    # A JVM that swaps may pause so long that others consider it dead.
    assert property_of(BROKERS[0], unit, "MemorySwapMax") == "0"


@pytest.mark.parametrize("unit", PROMISES)
def test_the_logs_of_a_service_take_at_most_a_gigabyte(unit: str) -> None:
    host = connect(BROKERS[0])
    settings = host.file(f"/etc/{unit}/log4j.properties").content_string
    appenders = re.findall(r"^log4j\.appender\.(\w+)=(\S+)", settings, re.MULTILINE)
    files = [name for name, kind in appenders if not kind.endswith("ConsoleAppender")]
    bound = 0
    for name in files:
        size = re.search(rf"appender\.{name}\.MaxFileSize=(\d+)MB", settings)
        old = re.search(rf"appender\.{name}\.MaxBackupIndex=(\d+)", settings)
        assert size, f"nothing bounds the files of {name}"
        assert old, f"nothing bounds the files of {name}"
        bound += int(size[1]) * (int(old[1]) + 1)
    # The options of the running process.
    command = host.check_output(
        "tr '\\0' ' ' < /proc/$(systemctl show --property MainPID --value %s)/cmdline", unit
    )
    logs = re.findall(r"-Xlog:\S*", command)
    for log in logs:
        rotated = re.search(r"filecount=(\d+),filesize=(\d+)M", log)
        assert rotated, f"nothing bounds {log}"
        bound += (int(rotated[1]) + 1) * int(rotated[2])
    assert len(files) >= 1
    assert len(logs) == 1
    assert bound * MEGABYTE <= 1000 * MEGABYTE
    print(f"{unit}: at most {bound} MB of logs")


def test_the_confined_broker_reads_and_writes_every_codec() -> None:
    """Each topic is stored with another codec than its producer's, so the broker converts."""
    kept_in = dict(zip(CODECS, CODECS[1:] + CODECS[:1], strict=True))
    admin = KafkaAdminClient(bootstrap_servers=bootstrap())
    names = [f"codec-{codec}" for codec in CODECS]
    host = connect(BROKERS[0])
    tools = f"/opt/kafka/bin/kafka-console-%s.sh --bootstrap-server {bootstrap()[0]}"
    try:
        for codec, kept in kept_in.items():
            topic = {"num_partitions": 1, "replication_factor": 3}
            admin.create_topics({f"codec-{codec}": topic | {"configs": {"compression.type": kept}}})
        admin.wait_for_topics(names)
        producers = [
            f"yes 'in {codec}' | head -n 100 | {tools % 'producer'} --topic codec-{codec}"
            f" --compression-codec {codec} --producer-property linger.ms=100 &"
            for codec in CODECS
        ]
        host.check_output("\n".join([*producers, "wait"]))
        read = host.check_output(
            f"{tools % 'consumer'} --include 'codec-.*' --from-beginning --max-messages 400"
            " --timeout-ms 30000"
        )
    finally:
        admin.delete_topics(names)
        admin.close()
    assert sorted(read.splitlines()) == sorted(
        f"in {codec}" for codec in CODECS for _ in range(100)
    )


def test_a_dry_run_reports_changed_files_without_their_passwords() -> None:
    checked = run(
        "playbooks/kafka.yml",
        {
            "kafka_config": {"listener.name.client.ssl.keystore.password": "hunter2"},
            "zookeeper_config": {"ssl.keyStore.password": "hunter2"},
        },
        options=("--check", "--diff"),
    )
    assert checked.succeeded, checked.said
    assert set(checked.changed.values()) == {2}, "only one file of each service changes"
    assert "hunter2" not in checked.said
