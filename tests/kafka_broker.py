"""A real Kafka broker for tests: ZooKeeper and one broker, on free loopback ports.

Both run from the archive that `sandbox/build kafka` assembles, as child processes that end with the
tests whatever ends those. The broker keeps its port and its data when it is stopped and started, so
that a test can take Kafka away and give it back.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from kafka import KafkaAdminClient

ARTIFACT = Path(__file__).parent.parent / ".artifacts" / "kafka"

# Short-lived JVMs: a quick start matters more than peak speed.
QUICK_START = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"

# One broker, so there is nobody to hand leadership to; topics exist only when somebody made them.
SETTINGS = {
    "auto.create.topics.enable": "false",
    "controlled.shutdown.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "1",
}

STARTED = "started (kafka.server.KafkaServer)"


def unpack(directory: Path) -> Path:
    """Unpack the Kafka archive below `directory` and return its home, the folder with bin/."""
    archives = list(ARTIFACT.glob("kafka_*.tgz"))
    if not archives:
        raise FileNotFoundError(f"There is no Kafka archive in {ARTIFACT}: run sandbox/build kafka")
    shutil.unpack_archive(archives[0], directory)
    return directory / archives[0].name.removesuffix(".tgz")


class KafkaBroker:
    """ZooKeeper and one broker, running once `start` has returned.

    `home` is an unpacked archive; configuration, data and output are kept in `directory`.
    """

    def __init__(self, home: Path, directory: Path) -> None:
        self._home = home
        self._directory = directory
        self._port = free_port()
        self._zookeeper_port = free_port()
        self._zookeeper: subprocess.Popen[bytes] | None = None
        self._broker: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def zookeeper_server(self) -> str:
        return f"127.0.0.1:{self._zookeeper_port}"

    @property
    def log(self) -> str:
        """All that the broker has written so far."""
        path = self._directory / "broker.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, timeout: float = 120) -> None:
        """Start the broker (and ZooKeeper, the first time) and return when it serves."""
        if self._zookeeper is None:
            self._zookeeper = self._start_zookeeper()
        if self._broker is not None:
            return
        written = len(self.log)
        settings = SETTINGS | {
            "listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "log.dirs": str(self._directory / "broker"),
            "zookeeper.connect": self.zookeeper_server,
        }
        self._broker = self._run(
            "broker",
            "kafka-server-start.sh",
            str(self._home / "config" / "server.properties"),
            *(f"--override={key}={value}" for key, value in settings.items()),
            heap="-Xmx256m",
        )
        deadline = time.monotonic() + timeout
        while STARTED not in self.log[written:]:
            self._expect(self._broker.poll() is None, "The broker ended instead of starting")
            self._expect(time.monotonic() < deadline, f"The broker needs more than {timeout:.0f} s")
            time.sleep(0.05)
        # It takes connections from now on, and a moment later it also knows the cluster.
        with KafkaAdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            while admin.describe_cluster()["controller_id"] < 0:
                self._expect(time.monotonic() < deadline, "The broker finds no controller")
                time.sleep(0.05)

    def _expect(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise RuntimeError(f"{otherwise}. The end of its log:\n{self.log[-3000:]}")

    def stop(self) -> None:
        """Stop the broker as an operator would; ZooKeeper goes on."""
        if self._broker is not None:
            self._broker.send_signal(signal.SIGCONT)
            self._broker.terminate()
            self._broker.wait(timeout=60)
            self._broker = None

    def pause(self) -> None:
        """Freeze the broker: it keeps its connections and answers nothing."""
        assert self._broker is not None, "the broker is stopped"
        self._broker.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker go on."""
        assert self._broker is not None, "the broker is stopped"
        self._broker.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End both, without ceremony."""
        for process in (self._broker, self._zookeeper):
            if process is not None:
                process.kill()
                process.wait()
        self._broker = self._zookeeper = None

    def _start_zookeeper(self) -> subprocess.Popen[bytes]:
        # The broker waits for ZooKeeper by itself, so nothing is waited for here.
        configuration = self._directory / "zoo.cfg"
        configuration.write_text(
            f"dataDir={self._directory / 'zookeeper'}\n"
            f"clientPort={self._zookeeper_port}\n"
            "clientPortAddress=127.0.0.1\n"
            "admin.enableServer=false\n"
        )
        return self._run(
            "zookeeper", "zookeeper-server-start.sh", str(configuration), heap="-Xmx64m"
        )

    def _run(self, name: str, script: str, *arguments: str, heap: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "EXTRA_ARGS": "",
            "KAFKA_HEAP_OPTS": heap,
            "KAFKA_JVM_PERFORMANCE_OPTS": QUICK_START,
            "LOG_DIR": str(self._directory / f"{name}-logs"),
        }
        with (self._directory / f"{name}.out").open("ab") as output:
            return subprocess.Popen(
                # The kernel ends it when pytest is gone, however that went.
                ["setpriv", "--pdeathsig=KILL", str(self._home / "bin" / script), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
