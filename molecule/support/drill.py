"""A drill: what people notice while a part of the system fails, is changed, or is replaced.

All use the client library, which comes back wherever the edge sends it. What is promised of all,
whatever happened in between: every acknowledged message was shown exactly once, in the order of the
log.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
import uuid
from array import array
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from http.client import HTTPSConnection
from itertools import count
from typing import Self

import pytest
from cluster import kubectl
from delivery import History, Placed, Record, violations
from hosts import address, eventually, group, way_in
from hosts import connect as host

from chat.client import Back, Gap, Message, connect
from playbooks import Run, run

URL = f"https://{way_in()}/"
END = "the end"
# Who read along, as `script/test --clients=N` says.
READERS = int(os.environ.get("CLIENTS", "100"))
# As long as the chat may be away in a drill.
OPEN_SECONDS = 300.0

on_demand = pytest.mark.skipif(
    os.environ.get("FAULTS", "some") != "all", reason="`script/test --faults=all default` runs it"
)


def replicas() -> dict[str, bool]:
    """The pods, and whether each takes clients and is not on its way out."""
    listed = kubectl(
        "get pods --selector app.kubernetes.io/name=chat --output "
        "jsonpath='{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp} "
        '{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}\''
    )
    pods = [line.split() for line in listed.splitlines()]
    return {name: rest == ["True"] for name, *rest in pods}


def ready_replicas() -> list[str]:
    """The pods, if all of them take clients; else none."""
    pods = replicas()
    return list(pods) if all(pods.values()) else []


def holders_of_the_way_in() -> list[str]:
    shown = f"ip -brief address show to {way_in()}"
    return [name for name in group("microk8s") if host(name).check_output(shown)]


class Reader:
    """A client that reads, and what it was shown."""

    def __init__(self) -> None:
        # The numbers of the messages, in the order in which they were shown.
        self.shown = array("L")
        self.replicas: list[str] = []
        # The longest time without a new message, in seconds.
        self.silence = 0.0
        self.gaps = 0
        self._last = 0.0

    def begin(self) -> None:
        self._last = time.monotonic()

    def show(self, number: int) -> None:
        self.shown.append(number)
        now = time.monotonic()
        self.silence, self._last = max(self.silence, now - self._last), now


class Conversation:
    """A crowd that goes on, in a thread of its own, until the end of the block: one client writes,
    the others read, and every second somebody new comes and looks into the room.
    """

    def __init__(self) -> None:
        self.room = f"room-{uuid.uuid4()}"
        # The ids of the messages, by their numbers, as the writer was told them.
        self.acknowledged: list[str] = []
        self.readers = [Reader() for _ in range(READERS)]
        # The same, as the first reader was told them.
        self._ids: dict[int, str] = {}
        # The longest time that somebody new waited for the room, in seconds.
        self.newcomer = 0.0
        self._finished = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def somebody(self) -> Reader:
        return self.readers[0]

    def __enter__(self) -> Self:
        self._thread.start()
        self.goes_on(within=60, what="the conversation flows")
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._finished.set()
        self._thread.join(timeout=120)
        broken = self._broken()
        promises = ("skipped", "duplicated", "misordered")
        silences = sorted(reader.silence for reader in self.readers)
        print(
            f"{READERS} readers, {len(self.acknowledged)} messages;"
            f" {', '.join(f'{broken[promise]} {promise}' for promise in promises)};"
            f" longest silence: {silences[-1]:.1f} s, median {silences[len(silences) // 2]:.1f} s;"
            f" somebody new waited {self.newcomer:.1f} s at most;"
            f" {sum(len(reader.replicas) - 1 for reader in self.readers)} reconnected;"
            f" load average {os.getloadavg()[1]:.0f}"
        )
        if failure is None:
            assert self._problem is None, self._problem
            assert not self._thread.is_alive(), "a reader still waits"
            assert not broken.total(), broken

    def goes_on(self, within: float, what: str) -> None:
        """Wait until messages sent from now on are acknowledged, and shown to all."""
        first = len(self.acknowledged) + 1
        eventually(
            lambda: all(reader.shown and reader.shown[-1] > first + 3 for reader in self.readers),
            within=within,
            what=what,
        )

    def _broken(self) -> Counter[str]:
        """How often each promise was broken, counted over all readers."""

        def placed(numbers: Iterable[int]) -> list[Placed]:
            # The writer sends one at a time, so the order of the log is the order of sending.
            return [Placed(Record(self.room, number), 0, number) for number in numbers]

        log = placed(range(len(self.acknowledged)))
        sent = {each.record for each in log}
        broken = Counter(
            gaps=sum(reader.gaps for reader in self.readers),
            contradicted=sum(
                self._ids.get(number, told) != told for number, told in enumerate(self.acknowledged)
            ),
        )
        for reader in self.readers:
            found = violations(History(sent, log, placed(reader.shown), log))
            broken.update({name: len(records) for name, records in vars(found).items()})
        return broken

    def _run(self) -> None:
        try:
            asyncio.run(self._converse())
        except BaseException as problem:
            self._problem = problem
            raise

    async def _converse(self) -> None:
        async with asyncio.TaskGroup() as crowd:
            ready = asyncio.Barrier(READERS + 1)
            for number, reader in enumerate(self.readers):
                crowd.create_task(self._read(reader, f"reader-{number}", ready))
            async with connect(URL, "writer", open_seconds=OPEN_SECONDS) as writer:
                await ready.wait()
                newcomers = crowd.create_task(self._welcome_newcomers())
                while not self._finished.is_set():
                    text = f"message {len(self.acknowledged)}"
                    self.acknowledged.append(await writer.send(self.room, text))
                    await asyncio.sleep(0.2)
                newcomers.cancel()
                await writer.send(self.room, END)

    async def _read(self, reader: Reader, name: str, ready: asyncio.Barrier) -> None:
        async with connect(URL, name, open_seconds=OPEN_SECONDS) as chat:
            reader.replicas.append(chat.replica)
            room = chat.room(self.room, events=True)
            await room.joined()
            await ready.wait()
            reader.begin()
            async for event in room:
                match event:
                    case Message(text=text) if text == END:
                        return
                    case Message(_, identity, _, text):
                        number = int(text.split()[-1])
                        reader.show(number)
                        assert self._ids.setdefault(number, identity) == identity, identity
                    case Back(replica):
                        reader.replicas.append(replica)
                    case Gap():
                        reader.gaps += 1

    async def _welcome_newcomers(self) -> None:
        for number in count():
            began = time.monotonic()
            async with connect(URL, f"newcomer-{number}", open_seconds=OPEN_SECONDS) as chat:
                await chat.room(self.room, recent=True).joined()
            self.newcomer = max(self.newcomer, time.monotonic() - began)
            await asyncio.sleep(1)


def status() -> Run:
    """Run playbooks/status.yml. Hosts that share their processors with other tests need time."""
    return run("playbooks/status.yml", {"status_seconds": 15})


def all_is_as_before() -> None:
    eventually(
        lambda: "All is as it should be" in status().said,
        within=180,
        what="all is as before",
    )
    # A host that comes back may bring a replica of which there are enough by now.
    eventually(lambda: len(ready_replicas()) == 2, within=60, what="two replicas are ready")
    # Those who are connected need not notice that nobody else can come, or only by way of one host.
    eventually(
        lambda: all(map(knows_the_replicas, group("microk8s"))),
        within=120,
        what="somebody new gets the page from every host",
    )


def knows_the_replicas(name: str) -> bool:
    """Whether this host's Traefik sends people only to replicas that are there. A try at one that
    has gone takes 0.5 s.

    Traefik learns new addresses late if its API server was on a host that died.
    """
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    # It takes the replicas in turns.
    for _ in range(4):
        with contextlib.closing(HTTPSConnection(way_in(), timeout=0.4)) as connection:
            try:
                there = socket.create_connection((address(name), 443), timeout=0.4)
                connection.sock = context.wrap_socket(there, server_hostname=way_in())
                connection.request("GET", "/")
                if connection.getresponse().status != HTTPStatus.OK:
                    return False
            except OSError:
                return False
    return True
