"""A drill: what people notice while a part of the system fails, is changed, or is replaced.

One writer keeps sending, one reader reads, each with the client library, which comes back wherever
the edge sends it. What is promised of both, whatever happened in between: every acknowledged
message was shown exactly once, in the order of the log.
"""

import asyncio
import os
import threading
import time
import uuid
from typing import Self

import pytest
from cluster import kubectl
from hosts import connect as host
from hosts import eventually, group, way_in

from chat.client import Back, Gap, Message, Room, connect
from playbooks import run

URL = f"https://{way_in()}/"
END = "the end"

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


class Conversation:
    """A writer and a reader that go on, in a thread of their own, until the end of the block."""

    def __init__(self) -> None:
        self.room = f"room-{uuid.uuid4()}"
        # Text and id, in the order of sending and of showing.
        self.acknowledged: list[tuple[str, str]] = []
        self.seen: list[tuple[str, str]] = []
        self.reader_replicas: list[str] = []
        # The longest time without a new message for the reader, in seconds.
        self.silence = 0.0
        self._last = time.monotonic()
        self._finished = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        eventually(lambda: len(self.seen) > 3, within=30, what="the conversation flows")
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._finished.set()
        self._thread.join(timeout=60)
        print(
            f"the longest silence: {self.silence:.1f} s of {len(self.acknowledged)} messages;"
            f" load average {os.getloadavg()[1]:.0f}"
        )
        if failure is None:
            self._check()

    def goes_on(self, within: float, what: str) -> None:
        """Wait until messages sent from now on are acknowledged and shown."""
        acknowledged, seen = len(self.acknowledged), len(self.seen)
        eventually(
            lambda: len(self.acknowledged) > acknowledged + 3 and len(self.seen) > seen + 3,
            within=within,
            what=what,
        )

    def _check(self) -> None:
        assert self._problem is None, self._problem
        assert not self._thread.is_alive(), "the reader still waits"
        # The writer sends one at a time, so the order of the log is the order of sending.
        assert self.seen == self.acknowledged, "lost, doubled or out of order"

    def _run(self) -> None:
        try:
            asyncio.run(self._converse())
        except BaseException as problem:
            self._problem = problem
            raise

    async def _converse(self) -> None:
        async with connect(URL, "writer") as writer, connect(URL, "reader") as reader:
            self.reader_replicas.append(reader.replica)
            room = reader.room(self.room, events=True)
            await room.joined()
            reading = asyncio.create_task(self._read(room))
            while not self._finished.is_set():
                text = f"message {len(self.acknowledged)}"
                self.acknowledged.append((text, await writer.send(self.room, text)))
                await asyncio.sleep(0.05)
            await writer.send(self.room, END)
            await reading

    async def _read(self, room: Room) -> None:
        async for event in room:
            match event:
                case Message(text=text) if text == END:
                    return
                case Message(_, identity, _, text):
                    self.seen.append((text, identity))
                    now = time.monotonic()
                    self.silence, self._last = max(self.silence, now - self._last), now
                case Back(replica):
                    self.reader_replicas.append(replica)
                case Gap():
                    raise AssertionError("the log was there all the time")


def all_is_as_before() -> None:
    eventually(
        lambda: "All is as it should be" in run("playbooks/status.yml").said,
        within=180,
        what="all is as before",
    )
    assert len(ready_replicas()) == 2
