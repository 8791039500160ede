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

        self.ready = Gauge("chat_ready", "1 while new clients may be sent here.", registry=registry)
        self.clients = Gauge("chat_clients", "Connected clients.", registry=registry)
        self.rooms = Gauge("chat_rooms", "Rooms with members or history.", registry=registry)
        self.places = Gauge(
            "chat_places",
            "Clients here, and people elsewhere, counted once for each room they are in.",
            ["where"],
            registry=registry,
        )
        self.messages = Tally(
            "chat_messages", "Messages the log delivered, repeats left out.", registry
        )
        self.repeats = Tally(
            "chat_repeats",
            "Messages the log held already, and nobody was shown.",
            registry,
        )
        self.deliveries = Tally(
            "chat_deliveries", "Messages shown to a client, counted per client.", registry
        )
        self.round_trip = Histogram(
            "chat_round_trip_seconds",
            "From a client's send until the log delivered the message.",
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
            "chat_pending_connections", "Connections that are no WebSocket.", registry=registry
        )
        self.refused_connections = Counter(
            "chat_refused_connections",
            "Connections that were closed or refused because there were too many.",
            ["reason"],
            registry=registry,
        )
        self.over_budget = Tally(
            "chat_over_budget",
            "Times a client was not read for a while because it sent too much.",
            registry,
        )
        self.drops = Tally(
            "chat_drops",
            "Frames of presence and typing left out because their client read slowly.",
            registry,
        )
        self.outbox_bytes = Gauge(
            "chat_outbox_bytes", "What waits for clients to read it.", registry=registry
        )
        self.loop_lag = Histogram(
            "chat_loop_lag_seconds",
            "How late the event loop did what was due.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=registry,
        )
        self.relay_up = Gauge("chat_relay_up", "1 while the log takes messages.", registry=registry)
        self.relay_caught_up = Gauge(
            "chat_relay_caught_up", "1 once the log's history is read.", registry=registry
        )
        self.relay_lag = Gauge(
            "chat_relay_lag_records",
            "Records that the log holds and this replica has not read.",
            ["partition"],
            registry=registry,
        )
        self.foreign_records = Tally(
            "chat_foreign_records", "Records in the log that no chat wrote.", registry
        )
        self.unknown_records = Tally(
            "chat_unknown_records", "Records in the log that a later release wrote.", registry
        )
        self.replicas = Gauge(
            "chat_replicas", "Replicas that this one hears, itself included.", registry=registry
        )
        self.foreign_signals = Tally(
            "chat_foreign_signals", "Signals between replicas that no chat sent.", registry
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)
