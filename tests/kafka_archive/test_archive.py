"""The Kafka archive: tools, servers, logs, environment variables."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "sandbox" / "artifacts" / "kafka"
TOOLS = [
    line.split()[0]
    for line in (SOURCES / "tools").read_text().splitlines()
    if not line.startswith("#")
]


def run(script: Path, *arguments: str, **environment: str) -> str:
    """Everything the script prints; what it exits with differs from tool to tool."""
    finished = subprocess.run(
        [script, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )
    return finished.stdout


@pytest.fixture(scope="session")
def help_of(kafka_home):
    """What each tool prints for --help."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scripts = [kafka_home / "bin" / tool for tool in TOOLS]
        printed = pool.map(lambda script: run(script, "--help"), scripts)
        return dict(zip(TOOLS, printed, strict=True))


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_prints_its_help(help_of, tool):
    assert any(word in help_of[tool].lower() for word in ("usage:", "option ")), help_of[tool]
    assert "Exception" not in help_of[tool]


def test_the_zookeeper_shell_finds_the_broker(kafka_home, kafka_broker):
    shell = kafka_home / "bin" / "zookeeper-shell.sh"
    printed = run(shell, kafka_broker.zookeeper_server, "ls", "/brokers/ids")
    # What it says of its connection comes before or after that.
    assert "[0]" in printed.splitlines(), printed


@pytest.mark.parametrize(
    "script", ["kafka-server-start.sh", "zookeeper-server-start.sh", "zookeeper-shell.sh"]
)
def test_a_script_without_arguments_prints_its_usage(kafka_home, script):
    assert run(kafka_home / "bin" / script).startswith("USAGE: ")


def test_the_archive_has_the_layout_of_the_official_one(kafka_home):
    assert {"bin", "config", "libs", "LICENSE", "NOTICE"} <= {p.name for p in kafka_home.iterdir()}


def test_the_jars_are_the_locked_ones(kafka_home):
    locked = [line.split()[1] for line in (SOURCES / "libs.sha256").read_text().splitlines()]
    assert sorted(p.name for p in (kafka_home / "libs").iterdir()) == sorted(locked)


def test_the_broker_logs(kafka_broker):
    """A second slf4j on the classpath would silence it, and nothing else would fail."""
    assert "started (kafka.server.KafkaServer)" in kafka_broker.log
    assert "SLF4J:" not in kafka_broker.log


@pytest.fixture
def jvm_options(kafka_home, tmp_path):
    """The command line a script would give to Java under some environment."""
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    java.chmod(0o755)

    def options(script: str, *arguments: str, **environment: str) -> list[str]:
        home = str(java.parent.parent)
        return run(
            kafka_home / "bin" / script, *arguments, JAVA_HOME=home, **environment
        ).splitlines()

    return options


@pytest.mark.parametrize(
    ("variable", "value", "option"),
    [
        ("KAFKA_HEAP_OPTS", "-Xmx3g", "-Xmx3g"),
        ("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:+UseZGC", "-XX:+UseZGC"),
        ("KAFKA_OPTS", "-javaagent:a.jar", "-javaagent:a.jar"),
        ("KAFKA_LOG4J_OPTS", "-Dlog4j.debug", "-Dlog4j.debug"),
        ("KAFKA_GC_LOG_OPTS", "-Xlog:gc", "-Xlog:gc"),
        ("KAFKA_JMX_OPTS", "-Djmx=1", "-Djmx=1"),
        ("JMX_PORT", "9999", "-Dcom.sun.management.jmxremote.port=9999"),
        ("LOG_DIR", "/tmp", "-Dkafka.logs.dir=/tmp"),
        ("EXTRA_ARGS", "-name x -Dextra", "-Dextra"),
    ],
)
def test_environment_variables_become_options_of_java(jvm_options, variable, value, option):
    environment = {"EXTRA_ARGS": "-name kafkaServer"} | {variable: value}
    assert option in jvm_options("kafka-server-start.sh", "argument", **environment)


@pytest.mark.parametrize(
    ("script", "heap"),
    [
        ("kafka-topics.sh", ["-Xmx256M"]),
        ("kafka-console-consumer.sh", ["-Xmx512M"]),
        ("kafka-server-start.sh", ["-Xmx1G", "-Xms1G"]),
        ("zookeeper-server-start.sh", ["-Xmx512M", "-Xms512M"]),
    ],
)
def test_the_default_heap_is_the_official_one(jvm_options, tmp_path, script, heap):
    options = jvm_options(script, "argument", LOG_DIR=str(tmp_path))
    assert [option for option in options if option.startswith("-Xm")] == heap


def test_servers_write_a_bounded_garbage_collection_log_by_default(jvm_options, tmp_path):
    [log] = [
        o
        for o in jvm_options("kafka-server-start.sh", "argument", LOG_DIR=str(tmp_path))
        if "-Xlog" in o
    ]
    assert log.endswith(f"{tmp_path}/kafkaServer-gc.log:time,tags:filecount=10,filesize=100M")


def test_a_symlinked_home_is_resolved_before_the_jvm_starts(jvm_options, kafka_home, tmp_path):
    link = tmp_path / "kafka"
    link.symlink_to(kafka_home)
    assert f"{kafka_home}/libs/*" in jvm_options(f"{link}/bin/kafka-topics.sh", "argument")


def test_arguments_are_passed_unchanged(jvm_options):
    assert jvm_options("kafka-topics.sh", "--topic", "two words", "*")[-3:] == [
        "--topic",
        "two words",
        "*",
    ]
