"""The metrics of the webhooks, for Prometheus. Each is by the webhook's name."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        name = ["webhook"]
        self._connected = Gauge(
            "chat_webhook_connected",
            "1 while the webhook is connected to the chat.",
            name,
            registry=registry,
        )
        self.delivered = Counter(
            "chat_webhook_delivered", "Events that the receiver took.", name, registry=registry
        )
        self.failures = Counter(
            "chat_webhook_failures", "Attempts that failed.", name, registry=registry
        )
        self.given_up = Counter(
            "chat_webhook_given_up",
            "Events that the receiver did not take in time, and never gets.",
            name,
            registry=registry,
        )
        self.gaps = Counter(
            "chat_webhook_gaps",
            "How often the chat's log had lost events before the webhook read them, or may have.",
            name,
            registry=registry,
        )
        self.gone = Gauge(
            "chat_webhook_gone", "1 if the receiver wants nothing more.", name, registry=registry
        )
        self._waiting = Gauge(
            "chat_webhook_waiting_seconds",
            "Age of the event that waits for its receiver; 0 if none does.",
            name,
            registry=registry,
        )

    def watch(
        self, webhook: str, connected: Callable[[], bool], since: Callable[[], float]
    ) -> None:
        """Show all metrics of a webhook from now on. `since`: when the event happened that waits;
        0: none.
        """
        for metric in (self.delivered, self.failures, self.given_up, self.gaps, self.gone):
            metric.labels(webhook)
        self._connected.labels(webhook).set_function(connected)
        waiting = self._waiting.labels(webhook)
        waiting.set_function(lambda: max(0.0, time.time() - at) if (at := since()) else 0.0)
