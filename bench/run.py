"""One run: a fresh server on one core, the load on another, and the results."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from bench.broker import Broker
from bench.contenders import ARTIFACTS, ROOT, Contender
from tests.kafka_broker import free_port

SERVER_CORE, LOAD_CORE = 0, 1
# Above this share of its core, the load may be the limit, and the figures are not used. But if the
# servers use their core fully, they are the limit.
LOAD_SHARE_LIMIT = 0.9
SERVER_SHARE_FULL = 0.97
START_SECONDS = 20
# Memory is read when it has been constant for this long.
SETTLE_SECONDS = 1.0
SETTLE_LIMIT = 5.0


class BenchError(Exception):
    """A run without a result. The text says why."""


@dataclass(frozen=True)
class Run:
    """The results of one run. CPU time is user and system time together."""

    clients: int
    messages: int
    deliveries: int
    seconds: float
    delivered_bytes: float
    server_cpu: float
    load_cpu: float
    neighbour_cpu: float
    others_cpu: float
    p50_ms: float
    p99_ms: float
    rss_before: int
    rss_joined: int
    server_cpu_joined: float

    @property
    def load_share(self) -> float:
        """The used share of the load's core, including other processes on it."""
        return (self.load_cpu + self.neighbour_cpu) / self.seconds

    @property
    def neighbour_share(self) -> float:
        return self.neighbour_cpu / self.seconds

    @property
    def limited_by_load(self) -> bool:
        """Whether the load may have limited the figures."""
        return self.load_share > LOAD_SHARE_LIMIT and self.server_share < SERVER_SHARE_FULL

    @property
    def others_share(self) -> float:
        """The load of the rest of the machine, in cores."""
        return max(0.0, self.others_cpu / self.seconds)

    @property
    def server_share(self) -> float:
        return self.server_cpu / self.seconds


def run(
    contender: Contender,
    load: Sequence[str],
    *,
    settle: bool = False,
    replicas: int = 1,
    kafka: Broker | None = None,
) -> Run:
    """Start the server, put it under load and return the results.

    With `settle`, memory is read after it has stopped changing. With `kafka`, the server has its
    own topics there; the broker shares the load's core.

    Raises `BenchError` if the server does not start, if messages were lost, repeated or reordered,
    or if the load was the limit.
    """
    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in range(replicas)]
        variables = kafka.new_topics() if kafka else {}
        pids = [stack.enter_context(_server(contender, port, variables)) for port in ports]
        for port in ports:
            _await_ready(contender, port)
        before = sum(rss(pid) for pid in pids)
        cpu_before = sum(cpu_seconds(pid) for pid in pids)
        processes = [f"--server={pid}" for pid in pids]
        if kafka:
            processes.append(f"--neighbour={kafka.pid}")
        options = [*processes, *load, *map(str, ports)]
        process = stack.enter_context(_load(contender.dialect, options))
        assert process.stdin is not None
        assert process.stdout is not None
        joined, cpu_joined = 0, 0.0
        if process.stdout.readline():
            cpu_joined = sum(cpu_seconds(pid) for pid in pids) - cpu_before
            joined = sum(_settled_rss(pid) if settle else rss(pid) for pid in pids)
        output, errors = process.communicate("speak\n")
        if process.returncode != 0:
            raise BenchError(f"{contender.name}: {errors.strip() or process.returncode}")
    found = json.loads(output)
    others = found.pop("machine_cpu") - sum(
        found[who] for who in ("server_cpu", "load_cpu", "neighbour_cpu")
    )
    result = Run(
        **found,
        others_cpu=others,
        rss_before=before,
        rss_joined=joined,
        server_cpu_joined=cpu_joined,
    )
    if result.messages > 0 and result.deliveries == 0:
        raise BenchError(f"{contender.name}: nothing was delivered within {result.seconds:.1f} s")
    if result.limited_by_load:
        raise BenchError(
            f"{contender.name}: the load's core was busy for {result.load_share:.0%} of the time,"
            f" the servers' for {result.server_share:.0%}, so the figures may be the load's own;"
            " nothing was recorded"
        )
    return result


@contextlib.contextmanager
def _server(contender: Contender, port: int, variables: Mapping[str, str]) -> Iterator[int]:
    """The server's process id, once it listens."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*_pinned(SERVER_CORE), *contender.command(port)],
            cwd=ROOT,
            env={**os.environ, **contender.environment(port), **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    said = output.read().decode(errors="replace")[-1000:].strip()
                    raise BenchError(f"{contender.name} does not listen on port {port}: {said}")
                time.sleep(0.02)
            yield process.pid
        finally:
            process.kill()
            process.wait()


def _await_ready(contender: Contender, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while contender.ready is not None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("GET", contender.ready)
            if (answer := connection.getresponse()).status == HTTPStatus.OK:
                return
        if time.monotonic() > deadline:
            raise BenchError(f"{contender.name} does not become ready: {answer.read().decode()}")
        time.sleep(0.1)


@contextlib.contextmanager
def _load(dialect: str, options: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [
            *_pinned(LOAD_CORE),
            str(ARTIFACTS / "wsload" / "wsload"),
            f"--dialect={dialect}",
            "--hold",
            *options,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _pinned(core: int) -> list[str]:
    # The kernel ends the process when the bench has ended for any reason.
    return ["taskset", "-c", str(core), "setpriv", "--pdeathsig=KILL"]


def rss(pid: int) -> int:
    """Resident memory of the process, in bytes."""
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """CPU time of the process, user and system together."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _settled_rss(pid: int) -> int:
    """Resident memory, once it has been constant for a while. The wait is limited, because a
    garbage collector may never stop.
    """
    start = then = time.monotonic()
    before = rss(pid)
    while time.monotonic() - then < SETTLE_SECONDS and time.monotonic() - start < SETTLE_LIMIT:
        time.sleep(0.1)
        if (current := rss(pid)) != before:
            then, before = time.monotonic(), current
    return before


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
