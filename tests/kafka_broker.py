"""Real Kafka for tests: one broker, or a cluster of several, and ZooKeeper, on free loopback ports.

They run from the archive that `sandbox/build kafka` assembles, as child processes that end with the
tests whatever ends those. A broker keeps its port and its data when it is stopped and started, so
that a test can take Kafka away and give it back.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

ARTIFACT = Path(__file__).parent.parent / ".artifacts" / "kafka"

# Short-lived JVMs: a quick start matters more than peak speed. The classes come from an archive
# with a checksum: verifying them takes a seventh of a broker's start.
QUICK_START = (
    "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    " -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
)

# Topics exist only when somebody made them.
SETTINGS = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "1",
}
# There is nobody to hand leadership to.
ALONE = {"controlled.shutdown.enable": "false"}
# What role kafka sets. A dead broker is missed for seconds; a slow machine must not look like one.
TOGETHER = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "replica.lag.time.max.ms": "3000",
    "zookeeper.connection.timeout.ms": "60000",
    "zookeeper.session.timeout.ms": "6000",
}
TICK_MS = 500

STARTED = "started (kafka.server.KafkaServer)"
# ZooKeeper takes one that was killed for alive until its session ends; and on a busy machine, one
# that starts for dead.
REFUSED_BY_ZOOKEEPER = ("KeeperErrorCode = NodeExists", "KeeperErrorCode = Session expired")

# The kernel ends a child when the thread that started it ends, not only the whole process. This
# thread lives as long as pytest, unlike those of `asyncio.to_thread`, which end with a test's loop.
launcher = ThreadPoolExecutor(1, "kafka-launcher")


def unpack(directory: Path) -> Path:
    """Unpack the Kafka archive below `directory` and return its home, the folder with bin/."""
    archives = list(ARTIFACT.glob("kafka_*.tgz"))
    if not archives:
        raise FileNotFoundError(f"There is no Kafka archive in {ARTIFACT}: run sandbox/build kafka")
    shutil.unpack_archive(archives[0], directory)
    return directory / archives[0].name.removesuffix(".tgz")


class ZooKeeper:
    """One server, running once a broker has found it: brokers wait for it by themselves."""

    def __init__(self, home: Path, directory: Path) -> None:
        self._home = home
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        if self._process is not None:
            return
        configuration = self._directory / "zoo.cfg"
        configuration.write_text(
            f"dataDir={self._directory / 'zookeeper'}\n"
            f"clientPort={self._port}\n"
            "clientPortAddress=127.0.0.1\n"
            "admin.enableServer=false\n"
            f"tickTime={TICK_MS}\n"
            # What a broker asks for, whatever the ticks are.
            "maxSessionTimeout=60000\n"
        )
        self._process = run(
            self._home / "bin" / "zookeeper-server-start.sh",
            str(configuration),
            heap="-Xmx64m",
            output=self._directory / "zookeeper.out",
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class KafkaBroker:
    """A broker, running once `start` has returned, with a ZooKeeper of its own or a shared one.

    `home` is an unpacked archive; configuration, data and output are kept in `directory`.
    `settings` are the broker's, by Kafka's names; `listeners` are those it has besides, as URLs.
    """

    def __init__(
        self,
        home: Path,
        directory: Path,
        *,
        zookeeper: ZooKeeper | None = None,
        settings: dict[str, str] | None = None,
        listeners: Sequence[str] = (),
    ) -> None:
        self._home = home
        self._directory = directory
        self._port = free_port()
        self._listeners = [
            f"PLAINTEXT://{self.bootstrap_servers}",
            *listeners,
        ]
        self._zookeeper = zookeeper or ZooKeeper(home, directory)
        self._settings = SETTINGS | (ALONE if settings is None else settings)
        self._process: subprocess.Popen[bytes] | None = None
        # How much of its output is from before it was launched.
        self._written = 0

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is stopped"
        return self._process.pid

    @property
    def zookeeper_server(self) -> str:
        return self._zookeeper.server

    @property
    def log(self) -> str:
        """All that the broker has written so far."""
        path = self._directory / "broker.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def segments(self, topic: str, partition: int) -> list[Path]:
        """The files of a partition's log, oldest first."""
        return sorted((self._directory / "broker" / f"{topic}-{partition}").glob("*.log"))

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def started(self) -> bool:
        """Whether it has said that it serves, since it was launched."""
        return STARTED in self.log[self._written :]

    @property
    def ended(self) -> bool:
        """Whether it ended by itself, as one does that cannot register with ZooKeeper."""
        return self._process is not None and self._process.poll() is not None

    def start(self, timeout: float = 120) -> None:
        """Start the broker (and ZooKeeper, the first time) and return when it serves."""
        if not self.running:
            self.launch()
            self.wait(timeout)

    def wait(self, timeout: float = 120) -> None:
        """Return when it serves."""
        assert self._process is not None, "the broker was not launched"
        deadline = time.monotonic() + timeout
        while not self.started:
            if self.ended and any(why in self.log[self._written :] for why in REFUSED_BY_ZOOKEEPER):
                # As systemd does.
                self.launch()
            self._expect(not self.ended, "The broker ended instead of starting")
            self._expect(time.monotonic() < deadline, f"The broker needs more than {timeout:.0f} s")
            time.sleep(0.05)
        # It takes connections from now on, and a moment later it also knows the cluster.
        with KafkaAdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            while admin.describe_cluster()["controller_id"] < 0:
                self._expect(time.monotonic() < deadline, "The broker finds no controller")
                time.sleep(0.05)

    def launch(self) -> None:
        """Begin to start it, and do not wait."""
        self._zookeeper.start()
        self._written = len(self.log)
        settings = {
            "listeners": ",".join(self._listeners),
            "log.dirs": str(self._directory / "broker"),
            "zookeeper.connect": self._zookeeper.server,
        }
        self._process = run(
            self._home / "bin" / "kafka-server-start.sh",
            str(self._home / "config" / "server.properties"),
            *(f"--override={key}={value}" for key, value in (self._settings | settings).items()),
            heap="-Xmx256m",
            output=self._directory / "broker.out",
        )

    def _expect(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise RuntimeError(f"{otherwise}. The end of its log:\n{self.log[-3000:]}")

    def stop(self) -> None:
        """Stop the broker as an operator would; ZooKeeper goes on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(timeout=60)
            self._process = None

    def kill(self) -> None:
        """End the broker as a power cut would; ZooKeeper goes on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze the broker: it keeps its connections and answers nothing."""
        assert self._process is not None, "the broker is stopped"
        self._process.send_signal(signal.SIGSTOP)
        # On a busy machine, its threads go on until one of them has taken the signal.
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Let a paused broker go on."""
        assert self._process is not None, "the broker is stopped"
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and its ZooKeeper."""
        self.kill()
        self._zookeeper.close()


class KafkaCluster:
    """Three brokers that hold every partition, of which two are enough, on one ZooKeeper."""

    def __init__(self, home: Path, directory: Path, settings: dict[str, str] | None = None) -> None:
        self._zookeeper = ZooKeeper(home, directory)
        self.brokers = []
        for number in range(3):
            folder = directory / f"broker-{number}"
            folder.mkdir()
            own = {"broker.id": str(number)}
            self.brokers.append(
                KafkaBroker(
                    home,
                    folder,
                    zookeeper=self._zookeeper,
                    settings=TOGETHER | (settings or {}) | own,
                )
            )

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def start(self) -> None:
        """Start those that do not run, all at once, and return when each knows of all."""
        for broker in self.brokers:
            if not broker.running:
                broker.launch()
        self._wait_for_knowledge(timeout=240)

    def lose(self, number: int) -> None:
        """Kill a broker, and return when each of the others knows that it is gone."""
        self.brokers[number].kill()
        self._wait_for_knowledge(timeout=60)

    def _wait_for_knowledge(self, timeout: float) -> None:
        """Return when those that run know of each other and of nobody else."""
        running = [broker for broker in self.brokers if broker.running]
        deadline = time.monotonic() + timeout
        while unaware := [broker for broker in running if not self._knows(broker, len(running))]:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"A broker does not know of {len(running)}:\n{unaware[0].log[-3000:]}"
                )
            for broker in unaware:
                # As systemd does: on a busy machine, ZooKeeper may take one for dead meanwhile.
                if broker.ended:
                    broker.launch()
            time.sleep(0.1)

    def _knows(self, broker: KafkaBroker, count: int) -> bool:
        if broker.ended or not broker.started:
            return False
        try:
            with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
                return len(admin.describe_cluster()["brokers"]) == count
        except KafkaError:
            # The client asks any that it is told of, also one that was killed a moment ago.
            return False

    def close(self) -> None:
        for broker in self.brokers:
            broker.kill()
        self._zookeeper.close()


def run(script: Path, *arguments: str, heap: str, output: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "EXTRA_ARGS": "",
        "KAFKA_HEAP_OPTS": heap,
        "KAFKA_JVM_PERFORMANCE_OPTS": QUICK_START,
        "LOG_DIR": str(output.with_suffix(".logs")),
    }
    with output.open("ab") as written:
        return launcher.submit(
            subprocess.Popen[bytes],
            # The kernel ends it when pytest is gone, however that went.
            ["setpriv", "--pdeathsig=KILL", str(script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            env=environment,
        ).result()


# The kernel gives ports from 32768 on to whoever asks for any (ip_local_port_range). Those below
# are divided among the workers of pytest-xdist. None is given away twice.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_own = range(20_000 + _worker, 32_768, _workers)
_ports = iter(random.sample(_own, len(_own)))


def free_port() -> int:
    """A port that nobody else is given while its broker or replica is away."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("No port from 20000 to 32767 is left")
