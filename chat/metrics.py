"""All metrics of the service, for Prometheus. Each server has its own registry, so that a process
may run several servers.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

# The start times of counters are useless without OpenMetrics, and would double the number of lines.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Tally(Collector):
    """A counter whose `value` is set directly. For values counted elsewhere, and for values counted
    per message, where a lock would cost more than the counting.
    """

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self.value = 0.0
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(self._name, self._documentation, self.value)


class Metrics:
    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        # The process's memory, processor time and open files, under Prometheus' standard names.
        ProcessCollector(registry=registry)

        self.ready = Gauge(
            "chat_ready", "1 while this replica accepts new clients.", registry=registry
        )
        self.clients = Gauge("chat_clients", "Connected clients.", registry=registry)
        self.rooms = Gauge("chat_rooms", "Rooms with members or history.", registry=registry)
        self.places = Gauge(
            "chat_places",
            "Clients here, and people on other replicas, counted once per room.",
            ["where"],
            registry=registry,
        )
        self.messages = Tally(
            "chat_messages", "Messages delivered by the log, without repeats.", registry
        )
        self.repeats = Tally(
            "chat_repeats",
            "Repeated messages, which are not shown.",
            registry,
        )
        self.deliveries = Tally(
            "chat_deliveries", "Messages sent to clients, counted per client.", registry
        )
        self.round_trip = Histogram(
            "chat_round_trip_seconds",
            "Time from a client's send until the log delivers the message.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=registry,
        )
        self.resumes = Counter(
            "chat_resumes", "Joins with a position.", ["recovered"], registry=registry
        )
        self.refusals = Counter(
            "chat_refusals", "Frames answered with an error.", ["code"], registry=registry
        )
        self.closes = Counter(
            "chat_closes", "Connections the server closed.", ["code"], registry=registry
        )
        self.pending = Gauge(
            "chat_pending_connections",
            "Connections that are not WebSockets yet.",
            registry=registry,
        )
        self.refused_connections = Counter(
            "chat_refused_connections",
            "Connections closed or refused because of a limit.",
            ["reason"],
            registry=registry,
        )
        self.over_budget = Tally(
            "chat_over_budget",
            "Times that reading paused because a client sent too much.",
            registry,
        )
        self.drops = Tally(
            "chat_drops",
            "Presence and typing frames dropped because a client reads too slowly.",
            registry,
        )
        self.outbox_bytes = Gauge(
            "chat_outbox_bytes", "Bytes that wait for clients to read them.", registry=registry
        )
        self.loop_lag = Histogram(
            "chat_loop_lag_seconds",
            "How late the event loop runs its timers.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=registry,
        )
        self.relay_up = Gauge(
            "chat_relay_up", "1 while the log accepts messages.", registry=registry
        )
        self.relay_caught_up = Gauge(
            "chat_relay_caught_up", "1 once the log's history has been read.", registry=registry
        )
        self.relay_lag = Gauge(
            "chat_relay_lag_records",
            "Records in the log that this replica has not read yet.",
            ["partition"],
            registry=registry,
        )
        self.foreign_records = Tally(
            "chat_foreign_records", "Records in the log that no chat wrote.", registry
        )
        self.unknown_records = Tally(
            "chat_unknown_records", "Records in the log that a later release wrote.", registry
        )
        self.revocations = Gauge(
            "chat_revocations", "Persons and sessions with revoked tokens.", registry=registry
        )
        self.foreign_revocations = Tally(
            "chat_foreign_revocations",
            "Revocations of tokens that were skipped: no chat wrote them, or a later release.",
            registry,
        )
        self.sanctions = Gauge(
            "chat_sanctions", "People whom moderators have muted or banned.", registry=registry
        )
        self.foreign_sanctions = Tally(
            "chat_foreign_sanctions",
            "Sanctions that were skipped: no chat wrote them, or a later release.",
            registry,
        )
        self.private_rooms = Gauge(
            "chat_private_rooms",
            "Private rooms, without direct ones, with those that ended within a day.",
            registry=registry,
        )
        self.direct_rooms = Gauge(
            "chat_direct_rooms",
            "Direct rooms, with those that ended within a day, and blocks without a room.",
            registry=registry,
        )
        self.blocks = Gauge(
            "chat_blocks",
            "People without a direct room with somebody who blocks them.",
            registry=registry,
        )
        self.foreign_members = Tally(
            "chat_foreign_members",
            "Records of private rooms that were skipped: no chat wrote them, or a later release.",
            registry,
        )
        self.revisions = Tally(
            "chat_revisions", "Messages deleted or edited, as read from the log.", registry
        )
        self.replicas = Gauge(
            "chat_replicas", "Live replicas, including this one.", registry=registry
        )
        self.foreign_signals = Tally(
            "chat_foreign_signals", "Signals between replicas that no chat sent.", registry
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)
