"""The chat through the loss of its parts: a pod, replicas, a broker, a ZooKeeper member, a host.

One writer keeps sending, one reader reads, each with the client library, which comes back wherever
the edge sends it. What is promised of both, whatever happened in between: every acknowledged
message was shown exactly once, in the order of the log.
"""

import asyncio
import os
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest
from cluster import kubectl
from hosts import address, eventually, frozen, group, podman, powered_off, variable, way_in
from hosts import connect as host
from units import firewalled

from chat.client import Back, Gap, Message, Room, connect
from playbooks import inventory, run

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
        print(f"the longest silence: {self.silence:.1f} s of {len(self.acknowledged)} messages")
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


def test_a_rollout_that_never_gets_ready_is_rolled_back_and_costs_nobody_a_message() -> None:
    with Conversation() as conversation:
        victim, other = ready_replicas()
        failed = run(
            "playbooks/chat.yml",
            {"chat_config": {"CHAT_RATE": "fast"}, "chat_rollout_timeout": 20},
        )
        assert not failed.succeeded
        assert "CHAT_RATE" in failed.said, failed.said
        assert [name for name, ready in replicas().items() if ready] == [victim, other]
        # A replica that starts again meanwhile reads the environment it was made for.
        kubectl(f"delete pod {victim}")
        eventually(
            lambda: victim not in replicas() and sum(replicas().values()) == 2,
            within=90,
            what="a new pod took its place",
        )
        back = run("playbooks/rollback.yml")
        assert back.succeeded, back.said
        assert len(ready_replicas()) == 2
        conversation.goes_on(within=60, what="the conversation goes on")


def test_the_chat_goes_on_without_one_broker_and_one_zookeeper_member() -> None:
    last = host(group("kafka")[-1])
    with Conversation() as conversation:
        try:
            last.check_output("systemctl stop kafka zookeeper")
            conversation.goes_on(within=60, what="two of three brokers carry the conversation")
        finally:
            last.check_output("systemctl start zookeeper kafka")
        conversation.goes_on(within=60, what="the conversation goes on with all three")


def holders_of_the_way_in() -> list[str]:
    shown = f"ip -brief address show to {way_in()}"
    return [name for name in group("microk8s") if host(name).check_output(shown)]


def lead_the_way_in_to(wanted: str) -> None:
    """The others leave the address, one of the rest takes it, and none takes it back."""
    others = [host(name) for name in group("microk8s") if name != wanted]
    for each in others:
        each.check_output("systemctl stop keepalived")
    eventually(lambda: holders_of_the_way_in() == [wanted], within=30, what="the way in has moved")
    for each in others:
        each.check_output("systemctl start keepalived")


def all_is_as_before() -> None:
    eventually(
        lambda: "All is as it should be" in run("playbooks/status.yml").said,
        within=180,
        what="all is as before",
    )
    assert len(ready_replicas()) == 2


@pytest.mark.timeout(600)
def test_any_one_machine_may_die_and_the_chat_can_be_deployed_without_it(tmp_path: Path) -> None:
    """The worst one: it has the way in and the registry, a control plane, a broker and a member."""
    registry = "get pods --namespace container-registry --output jsonpath={.items[0].spec.nodeName}"
    down = kubectl(registry)
    left = next(name for name in group("microk8s") if name != down)
    lead_the_way_in_to(down)
    # A host that is down cannot tell its address, and nobody resolves the names of the sandbox.
    brokers = {name: {"kafka_address": address(name)} for name in group("kafka")}
    addresses = inventory(tmp_path, {"kafka": brokers})
    with Conversation() as conversation:
        with powered_off(down):
            conversation.goes_on(within=90, what="the conversation goes on elsewhere")

            deployed = run("playbooks/chat.yml", {"chat_config": {"CHAT_RATE": 7}}, addresses)
            assert deployed.succeeded, deployed.said
            path = "{.spec.template.spec.containers[0].envFrom[0].configMapRef.name}"
            used = kubectl(f"get deployment chat --output jsonpath={path}", via=left)
            rate = f"get configmap {used} --output jsonpath={{.data.CHAT_RATE}}"
            assert kubectl(rate, via=left) == "7"

            back = run("playbooks/rollback.yml")
            assert back.succeeded, back.said
            validated = run("playbooks/validate.yml")
            passed = f"{down} did not respond. All checks of the other hosts passed."
            assert passed in validated.said, validated.said
        conversation.goes_on(within=60, what="the conversation goes on")
    all_is_as_before()


@on_demand
@pytest.mark.timeout(600)
@pytest.mark.parametrize("down", group("microk8s"))
def test_each_machine_may_die(down: str) -> None:
    lead_the_way_in_to(down)
    with Conversation() as conversation:
        with powered_off(down):
            conversation.goes_on(within=90, what="the conversation goes on elsewhere")
        conversation.goes_on(within=60, what="the conversation goes on")
        all_is_as_before()


@on_demand
def test_the_edge_on_the_host_with_the_address_may_be_killed() -> None:
    (holder,) = holders_of_the_way_in()
    path = "jsonpath={.items[0].metadata.name}"
    there = f"--namespace traefik --field-selector spec.nodeName={holder}"
    pod = kubectl(f"get pods {there} --output {path}")
    with Conversation() as conversation:
        kubectl(f"delete pod {pod} --namespace traefik --grace-period=0 --force --wait=false")
        eventually(
            lambda: len(conversation.reader_replicas) > 1, within=60, what="the reader came back"
        )
        conversation.goes_on(within=60, what="the conversation goes on")
    all_is_as_before()


@on_demand
@pytest.mark.timeout(600)
def test_a_host_that_is_cut_off_from_the_others_fools_nobody_who_reaches_it() -> None:
    (cut,) = holders_of_the_way_in()
    left, *_ = others = [name for name in group("all") if name != cut]
    ways = [
        f"{chain} {side} {address(other)} -j DROP"
        for other in others
        for chain, side in (
            ("INPUT", "--source"),
            ("OUTPUT", "--destination"),
            ("FORWARD", "--source"),
            ("FORWARD", "--destination"),
        )
    ]
    # Pods reach those of other hosts by their own addresses.
    pods = ["FORWARD -o eth0 -d 10.1.0.0/16 -j DROP", "FORWARD -i eth0 -s 10.1.0.0/16 -j DROP"]
    ready = """jsonpath='{.status.conditions[?(@.type=="Ready")].status}'"""
    with Conversation() as conversation:
        with firewalled(cut, *ways, *pods):
            eventually(
                lambda: kubectl(f"get node {cut} --output {ready}", via=left) == "Unknown",
                within=90,
                what="the others miss it",
            )
        conversation.goes_on(within=120, what="the conversation goes on")
    all_is_as_before()


@on_demand
@pytest.mark.timeout(1200)
def test_all_machines_may_stop_and_the_history_is_there_when_they_are_back() -> None:
    with Conversation() as conversation:
        with ExitStack() as off:
            for name in group("all"):
                off.enter_context(powered_off(name))
        conversation.goes_on(within=300, what="the conversation goes on")
    all_is_as_before()


@on_demand
@pytest.mark.timeout(1800)
def test_hosts_are_drained_and_changed_one_at_a_time_and_it_costs_nobody_a_message() -> None:
    usual = variable(group("microk8s")[0], "microk8s_launch_config")["extraKubeletArgs"]
    with Conversation() as conversation:
        for most in ("100", None):
            arguments = usual | {"--max-pods": most}
            changed = run(
                "playbooks/microk8s.yml",
                {"microk8s_launch_config": {"extraKubeletArgs": arguments}},
            )
            assert changed.succeeded, changed.said
            for name in group("microk8s"):
                used = host(name).file("/var/snap/microk8s/current/args/kubelet").content_string
                assert ("--max-pods=100" in used) == (most is not None)
            assert "SchedulingDisabled" not in kubectl("get nodes")
            conversation.goes_on(within=60, what="the conversation goes on")
    # Once it is removed, it need not be named any more.
    assert run("playbooks/microk8s.yml").succeeded
    again = run("playbooks/microk8s.yml")
    assert set(again.changed.values()) == {0}, again.said


@on_demand
@pytest.mark.timeout(1800)
def test_an_empty_machine_that_replaces_the_first_joins_the_cluster_of_the_others() -> None:
    first, *others = group("microk8s")
    identity = "get namespace kube-system --output jsonpath={.metadata.uid}"
    before = kubectl(identity, via=others[0])
    host(first).check_output("snap remove --purge microk8s")
    # A new kernel has no rules of the old one's network, which lead to pods that are gone.
    podman("restart", first)
    eventually(lambda: host(first).run("true").rc == 0, within=60, what="the machine is up")
    replaced = run("site.yml")
    assert replaced.succeeded, replaced.said
    assert kubectl(identity, via=first) == before
    nodes = kubectl("get nodes --output jsonpath={.items[*].metadata.name}", via=others[0])
    assert sorted(nodes.split()) == sorted(group("microk8s"))
    all_is_as_before()


def test_the_status_is_shown_with_a_host_that_hangs_and_when_all_is_well() -> None:
    last = group("kafka")[-1]
    with frozen(last):
        status = run("playbooks/status.yml")
    assert status.succeeded, status.said
    assert f"{last}: NOT REACHED" in status.said
    assert f"not there: {last}" in status.said
    assert "chat/chat: 2 of 2 ready" in status.said
    assert set(status.changed.values()) == {0}
    all_is_as_before()
