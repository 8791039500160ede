"""A drill: what clients notice while a part of the system fails, changes or is replaced.

All clients use the client library, which reconnects to the replica that Traefik chooses. In every
drill, each reader must see every acknowledged message exactly once, in the order of the log.
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
from hosts import address, eventually, group, virtual_ip
from hosts import connect as host

from chat.client import Back, Gap, Message, connect
from playbooks import Run, run

URL = f"https://{virtual_ip()}/"
END = "the end"
# Number of readers, set by `script/test --clients=N`.
READERS = int(os.environ.get("CLIENTS", "100"))
# Time for a first connection, in seconds: longer than any drill interrupts the chat.
OPEN_SECONDS = 300.0

on_demand = pytest.mark.skipif(
    os.environ.get("FAULTS", "some") != "all", reason="`script/test --faults=all default` runs it"
)


def replicas() -> dict[str, bool]:
    """The pods, and whether each is ready and not being deleted."""
    listed = kubectl(
        "get pods --selector app.kubernetes.io/name=chat --output "
        "jsonpath='{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp} "
        '{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}\''
    )
    pods = [line.split() for line in listed.splitlines()]
    return {name: rest == ["True"] for name, *rest in pods}


def ready_replicas() -> list[str]:
    """The pods if all of them are ready, otherwise an empty list."""
    pods = replicas()
    return list(pods) if all(pods.values()) else []


def holders_of_virtual_ip() -> list[str]:
    shown = f"ip -brief address show to {virtual_ip()}"
    return [name for name in group("microk8s") if host(name).check_output(shown)]


class Reader:
    """What a reading client saw."""

    def __init__(self) -> None:
        # The numbers of the messages, in the order in which they arrived.
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
    """Traffic in one room, in its own thread, until the end of the block: one client writes, the
    others read, and every second a new client joins and leaves.
    """

    def __init__(self) -> None:
        self.room = f"room-{uuid.uuid4()}"
        # The ids of the messages, by number, from the writer's acknowledgements.
        self.acknowledged: list[str] = []
        self.readers = [Reader() for _ in range(READERS)]
        # The same, from the first reader of each message.
        self._ids: dict[int, str] = {}
        # The longest time in which a new client joined the room, in seconds.
        self.newcomer = 0.0
        self._finished = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def somebody(self) -> Reader:
        return self.readers[0]

    def __enter__(self) -> Self:
        self._thread.start()
        self.goes_on(within=60, what="messages flow")
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
            f" longest join of a new client: {self.newcomer:.1f} s;"
            f" {sum(len(reader.replicas) - 1 for reader in self.readers)} reconnected;"
            f" load average {os.getloadavg()[1]:.0f}"
        )
        if failure is None:
            assert self._problem is None, self._problem
            assert not self._thread.is_alive(), "a client has not finished within 120 s"
            assert not broken.total(), broken

    def goes_on(self, within: float, what: str) -> None:
        """Wait until messages sent from now on are acknowledged, and every reader sees them."""
        first = len(self.acknowledged) + 1
        eventually(
            lambda: all(reader.shown and reader.shown[-1] > first + 3 for reader in self.readers),
            within=within,
            what=what,
        )

    def _broken(self) -> Counter[str]:
        """How often each promise was broken, counted over all readers."""

        def placed(numbers: Iterable[int]) -> list[Placed]:
            # The writer sends one message at a time, so this is also the order of the log.
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
    """Run playbooks/status.yml, with a longer timeout: other tests run on the same processors."""
    return run("playbooks/status.yml", {"status_seconds": 15})


def await_recovery() -> None:
    """Wait until status.yml finds nothing wrong, both replicas are ready, and every host serves the
    page.
    """
    eventually(
        lambda: "All is as it should be" in status().said,
        within=180,
        what="status.yml finds nothing wrong",
    )
    # A host that comes back may still have a replica that was replaced meanwhile.
    eventually(lambda: len(ready_replicas()) == 2, within=60, what="two replicas are ready")
    # Connected readers do not notice if new clients cannot connect, or only through some hosts.
    eventually(
        lambda: all(map(knows_the_replicas, group("microk8s"))),
        within=120,
        what="every host serves the page to new clients",
    )


def knows_the_replicas(name: str) -> bool:
    """Whether this host's Traefik forwards only to replicas that exist. An attempt to connect to
    one that does not takes 0.3 s.

    Traefik gets new addresses late if its API server was on a host that lost power.
    """
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    # Traefik uses the replicas round robin.
    for _ in range(4):
        with contextlib.closing(HTTPSConnection(virtual_ip(), timeout=0.25)) as connection:
            try:
                there = socket.create_connection((address(name), 443), timeout=0.25)
                connection.sock = context.wrap_socket(there, server_hostname=virtual_ip())
                connection.request("GET", "/")
                if connection.getresponse().status != HTTPStatus.OK:
                    return False
            except OSError:
                return False
    return True
