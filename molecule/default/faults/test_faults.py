"""The chat through the loss of its parts: a pod, replicas, a broker, a ZooKeeper member, a host.

One writer keeps sending and retries what was not acknowledged; one reader reconnects wherever the
edge sends it and resumes from the last position it knows. What is promised of both, whatever
happened in between: every acknowledged message was shown exactly once, in the order of the log.
"""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Self

import pytest
from chat_client import Chat, Frame
from hosts import address, connect, eventually, group, restart_host
from websockets.exceptions import WebSocketException

EDGE = address(group("microk8s")[0])


def kubectl(command: str) -> str:
    output: str = connect(group("microk8s")[0]).check_output(
        "/snap/bin/microk8s kubectl --namespace chat " + command
    )
    return output.strip()


def ready_replicas() -> list[str]:
    """The pods, if all of them take clients and none is on its way out; else none."""
    listed = kubectl(
        "get pods --selector app.kubernetes.io/name=chat --output "
        "jsonpath='{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp} "
        '{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}\''
    )
    pods = [line.split() for line in listed.splitlines()]
    return [name for name, *_ in pods] if all(rest == ["True"] for _, *rest in pods) else []


class Conversation:
    """A writer and a reader that go on, each in a thread, until `finish`."""

    def __init__(self) -> None:
        self.room = f"room-{uuid.uuid4()}"
        self.acknowledged: dict[str, str] = {}
        self.seen: list[Frame] = []
        self.reader_replicas: list[str] = []
        self._position: str | None = None
        self._pending = ""
        self._written = threading.Event()
        self._problems: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._keep_up, args=(session,), daemon=True)
            for session in (self._write, self._read)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: len(self.seen) > 3, within=30, what="the conversation flows")
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._written.set()
        for thread in self._threads:
            thread.join(timeout=60)
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
        assert not self._problems, self._problems
        assert not any(thread.is_alive() for thread in self._threads), "the reader still waits"
        texts = [message["text"] for message in self.seen]
        # The writer sends one at a time, so the order of the log is the order of sending.
        assert texts == list(self.acknowledged), "lost, doubled or out of order"
        assert [message["id"] for message in self.seen] == list(self.acknowledged.values())

    def _keep_up(self, session: Callable[[], None]) -> None:
        """Hold a session until its end, on a new connection whenever the old one breaks."""
        try:
            while True:
                try:
                    return session()
                except (OSError, WebSocketException, RuntimeError) as broken:
                    # What breaks connections is what these tests are about.
                    print(f"{session.__name__}: {broken!r}")
                    time.sleep(0.5)
        except BaseException as problem:
            self._problems.append(problem)
            raise

    def _write(self) -> None:
        with Chat(EDGE, "writer") as chat:
            chat.join(self.room)
            while not self._written.is_set() or self._pending:
                # The same cid until it is acknowledged: a retry is never a second message.
                self._pending = f"message {len(self.acknowledged)}"
                cid = f"{self.room}-{len(self.acknowledged)}"
                self.acknowledged[self._pending] = chat.send(self.room, self._pending, cid)
                self._pending = ""
                self._written.wait(0.05)

    def _read(self) -> None:
        with Chat(EDGE, "reader") as chat:
            joined = chat.join(self.room, since=self._position)
            assert self._position is None or joined["recovered"], "the log was there all the time"
            self.reader_replicas.append(chat.replica)
            while self._threads[0].is_alive() or len(self.seen) < len(self.acknowledged):
                self.seen += chat.messages.pop(self.room, [])
                self._position = chat.positions[self.room]
                chat.poll(within=0.5)


@pytest.fixture(autouse=True)
def two_replicas() -> None:
    eventually(lambda: len(ready_replicas()) == 2, within=60, what="two replicas are ready")


def test_a_killed_pod_costs_nobody_a_message() -> None:
    with Conversation() as conversation:
        victim = conversation.reader_replicas[-1]
        kubectl(f"delete pod {victim} --grace-period=0 --force --wait=false")
        eventually(
            lambda: len(ready_replicas()) == 2 and victim not in ready_replicas(),
            within=90,
            what="a new pod took the killed one's place",
        )
        conversation.goes_on(within=60, what="the conversation goes on")
        assert len(conversation.reader_replicas) > 1, "the reader had to come back"


def test_scaling_out_and_back_costs_nobody_a_message() -> None:
    with Conversation() as conversation:
        for count in (4, 2):
            kubectl(f"scale deployment chat --replicas={count}")
            eventually(
                lambda count=count: len(ready_replicas()) == count,
                within=120,
                what=f"{count} replicas are ready",
            )
            conversation.goes_on(within=60, what="the conversation goes on")


def test_a_rolling_restart_costs_nobody_a_message() -> None:
    with Conversation() as conversation:
        kubectl("rollout restart deployment chat")
        kubectl("rollout status deployment chat --timeout=180s")
        eventually(lambda: len(ready_replicas()) == 2, within=90, what="the old replicas are gone")
        conversation.goes_on(within=60, what="the conversation goes on")


def test_the_chat_goes_on_without_one_broker_and_one_zookeeper_member() -> None:
    host = connect(group("kafka")[-1])
    with Conversation() as conversation:
        try:
            host.check_output("systemctl stop kafka zookeeper")
            conversation.goes_on(within=60, what="two of three brokers carry the conversation")
        finally:
            host.check_output("systemctl start zookeeper kafka")
        conversation.goes_on(within=60, what="the conversation goes on with all three")


def test_after_a_restart_of_the_cluster_host_everything_comes_back_by_itself() -> None:
    with Conversation() as conversation:
        restart_host(group("microk8s")[0])
        conversation.goes_on(within=150, what="the conversation goes on")
    eventually(lambda: len(ready_replicas()) == 2, within=60, what="two replicas are ready")
    for unit in ("zookeeper", "kafka"):
        assert connect(group("kafka")[0]).service(unit).is_running
