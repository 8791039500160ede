"""What the service counts, for Prometheus. One registry per server, so that a process may hold
several.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.clients = Gauge("chat_clients", "Connected clients.", registry=registry)
        self.rooms = Gauge("chat_rooms", "Rooms with members or history.", registry=registry)
        self.messages = Counter(
            "chat_messages", "Messages the log delivered, repeats left out.", registry=registry
        )
        self.repeats = Counter(
            "chat_repeats",
            "Messages the log held already, and nobody was shown.",
            registry=registry,
        )
        self.deliveries = Counter(
            "chat_deliveries", "Messages shown to a client, counted per client.", registry=registry
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
        self.round_trip = Histogram(
            "chat_round_trip_seconds",
            "From a client's send until the log delivered the message.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=registry,
        )
        self.relay_up = Gauge("chat_relay_up", "1 while the log takes messages.", registry=registry)
        self.relay_caught_up = Gauge(
            "chat_relay_caught_up", "1 once the log's history is read.", registry=registry
        )
        self.foreign_records = Gauge(
            "chat_foreign_records", "Records in the log that no chat wrote.", registry=registry
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)
