"""The workloads: what is measured, of which servers, and the goals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.contenders import (
    CENTRIFUGE,
    CENTRIFUGE_TUNED,
    CHAT,
    CHAT_ON_KAFKA,
    NODE_KAFKA,
    NODE_WS,
    SEND_LOOP,
    SOCKET_IO,
    TORNADO,
    WEBSOCKETS,
    Contender,
)
from bench.run import Run


@dataclass(frozen=True)
class Metric:
    unit: str
    meaning: str
    of: Callable[[Run], float]


CPU_PER_DELIVERY = Metric(
    "µs", "CPU time of the server per delivery", lambda run: run.server_cpu / run.deliveries * 1e6
)
# For rooms of one member: each message is received once and delivered once. Deliveries are counted
# instead of sent messages, because some of those may still be unread.
CPU_PER_MESSAGE = Metric("µs", "CPU time of the server per message", CPU_PER_DELIVERY.of)
DELIVERIES = Metric(
    "deliveries/s", "deliveries per second", lambda run: run.deliveries / run.seconds
)
P99 = Metric("ms", "99th percentile from said to delivered", lambda run: run.p99_ms)
RSS_PER_CLIENT = Metric(
    "KiB",
    "resident memory of the server per client",
    lambda run: (run.rss_joined - run.rss_before) / run.clients / 1024,
)


@dataclass(frozen=True)
class Entry:
    """A contender, with its settings for this workload."""

    contender: Contender
    load: tuple[str, ...] = ()
    suffix: str = ""

    @property
    def name(self) -> str:
        return self.contender.name + self.suffix


@dataclass(frozen=True)
class Goal:
    """The figure of `entry` is at most `limit` times that of `than`; without `than`, at most
    `limit` units. With `more`, it is at least that.
    """

    limit: float
    than: str | None = None
    entry: str = CHAT.name
    more: bool = False


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`settle`: memory is read once it has stopped changing. `quick`: a version with few clients.
    `kafka`: through a real broker, with this many replicas.
    """

    name: str
    title: str
    text: str
    metric: Metric
    load: tuple[str, ...]
    entries: tuple[Entry, ...]
    goals: tuple[Goal, ...]
    settle: bool = False
    quick: tuple[str, ...] = ("--clients=50",)
    kafka: bool = False
    replicas: int = 1


def _entries(*contenders: Contender) -> tuple[Entry, ...]:
    return tuple(Entry(contender) for contender in contenders)


WORKLOADS = (
    Workload(
        name="fan-out",
        title="Fan-out, one message a tick",
        text=(
            "1,000 clients in one room; every 50 ms one of them says one message, which all get,"
            " itself included. The next tick waits until the one before is delivered everywhere."
        ),
        metric=CPU_PER_DELIVERY,
        load=("--clients=1000", "--interval=0.05", "--warm-up=0.5", "--seconds=2"),
        entries=_entries(CHAT, SEND_LOOP, WEBSOCKETS, NODE_WS, CENTRIFUGE, TORNADO, SOCKET_IO),
        goals=(
            Goal(1 / 3, TORNADO.name),
            Goal(1 / 1.1, NODE_WS.name),
            Goal(1 / 1.1, WEBSOCKETS.name),
            Goal(1 / 1.4, CENTRIFUGE.name),
            Goal(1.35, SEND_LOOP.name),
        ),
    ),
    Workload(
        name="burst-10",
        title="Fan-out, ten messages a tick",
        text="The same with ten messages at once, in one write, every 100 ms.",
        metric=CPU_PER_DELIVERY,
        load=("--clients=1000", "--burst=10", "--interval=0.1", "--warm-up=0.5", "--seconds=2"),
        entries=_entries(
            CHAT,
            SEND_LOOP,
            WEBSOCKETS,
            NODE_WS,
            CENTRIFUGE,
            CENTRIFUGE_TUNED,
            TORNADO,
            SOCKET_IO,
        ),
        goals=(
            Goal(1 / 25, TORNADO.name),
            Goal(1 / 8, NODE_WS.name),
            Goal(1 / 8, WEBSOCKETS.name),
            Goal(1 / 1.5, CENTRIFUGE.name),
            Goal(1 / 1.5, CENTRIFUGE_TUNED.name),
        ),
    ),
    Workload(
        name="burst-100",
        title="Fan-out, a hundred messages a tick",
        text="The same with a hundred messages at once, every 250 ms.",
        metric=CPU_PER_DELIVERY,
        load=("--clients=1000", "--burst=100", "--interval=0.25", "--warm-up=0.5", "--seconds=2"),
        entries=_entries(CHAT, CENTRIFUGE, CENTRIFUGE_TUNED),
        goals=(Goal(1 / 4, CENTRIFUGE.name), Goal(1 / 4, CENTRIFUGE_TUNED.name)),
    ),
    Workload(
        name="clients-5000",
        title="Fan-out to 5,000 clients",
        text="One message every 250 ms to 5,000 clients, and every 50 ms to 1,000.",
        metric=CPU_PER_DELIVERY,
        load=("--warm-up=0.5", "--seconds=2"),
        entries=tuple(
            Entry(contender, (f"--clients={clients}", f"--interval={interval}"), f" ({clients:,})")
            for contender in (CHAT, SEND_LOOP)
            for clients, interval in ((1000, 0.05), (5000, 0.25))
        ),
        goals=(Goal(1.3, "chat (1,000)", "chat (5,000)"),),
    ),
    Workload(
        name="inbound",
        title="Inbound, 1,000 senders",
        text=(
            "1,000 clients, each alone in a room of its own, together say 8,000 messages a second,"
            " evenly. Each gets its own messages back, which is the least that a room does."
        ),
        metric=CPU_PER_MESSAGE,
        load=(
            "--clients=1000",
            "--senders=1000",
            "--rooms=1000",
            "--rate=8000",
            "--warm-up=0.5",
            "--seconds=2",
        ),
        entries=_entries(CHAT, SEND_LOOP, WEBSOCKETS, NODE_WS, CENTRIFUGE, TORNADO),
        goals=(Goal(0.5, TORNADO.name),),
        quick=("--clients=50", "--senders=50", "--rooms=50"),
    ),
    Workload(
        name="idle",
        title="Memory of 10,000 idle clients",
        text=(
            "10,000 clients have joined one room and say nothing. Resident memory of the server,"
            " less that before the first came."
        ),
        metric=RSS_PER_CLIENT,
        load=("--clients=10000", "--burst=0", "--warm-up=0", "--seconds=0.1"),
        entries=_entries(CHAT, WEBSOCKETS, NODE_WS, CENTRIFUGE, TORNADO),
        goals=(Goal(4.0),),
        settle=True,
    ),
    Workload(
        name="relay",
        title="Whole relay, as fast as it goes",
        text=(
            "Two replicas on the servers' core, Kafka (one broker) and the load on the other."
            " 500 clients at each, all in one room; 100 of them have one message under way at any"
            " time: who hears its own says the next."
        ),
        metric=DELIVERIES,
        load=("--clients=1000", "--senders=100", "--window=1", "--warm-up=2", "--seconds=3"),
        entries=_entries(CHAT_ON_KAFKA, NODE_KAFKA),
        goals=(Goal(2, NODE_KAFKA.name, more=True),),
        kafka=True,
        replicas=2,
        quick=("--clients=50", "--senders=10"),
    ),
    Workload(
        name="relay-latency",
        title="Whole relay, at 60 % of a core",
        text=(
            "The same, with messages said evenly at the rate at which the two replicas together"
            " take 60 % of their core; the load finds it for each."
        ),
        metric=P99,
        load=("--clients=1000", "--senders=100", "--share=0.6", "--warm-up=5", "--seconds=4"),
        entries=_entries(CHAT_ON_KAFKA, NODE_KAFKA),
        goals=(Goal(1, NODE_KAFKA.name), Goal(50)),
        kafka=True,
        replicas=2,
        quick=("--clients=50", "--senders=10"),
    ),
)
