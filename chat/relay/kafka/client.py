"""What kafka-python is told by all who use it, and what it must be kept from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

# Kafka answers a healthy client within milliseconds; past this it is as good as away.
ANSWER_MS = 2000
POLL_MS = 200
POLL_RECORDS = 2000


class Topic(NamedTuple):
    """Which log it is: another id, or another number of partitions, is another log."""

    epoch: str
    partitions: int

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        return cls(str(described["topic_id"]), len(described["partitions"]))

    def named(self, name: str) -> list[TopicPartition]:
        return [TopicPartition(name, number) for number in range(self.partitions)]


def new_consumer(connect: Mapping[str, Any], **more: Any) -> KafkaConsumer:
    consumer = KafkaConsumer(
        **connect,
        **more,
        bootstrap_timeout_ms=ANSWER_MS,
        group_id=None,
        enable_auto_commit=False,
        allow_auto_create_topics=False,
        # Never skip: an offset that is not there any more ends `poll` with an error.
        auto_offset_reset="none",
        metrics_enabled=False,
    )
    _drain_before_fetching(consumer)
    return consumer


def _drain_before_fetching(consumer: KafkaConsumer) -> None:
    """Have every fetch ask for all partitions (kafka-python 3.0.12).

    `poll` takes what has come, and asks for more if that was nothing. What comes in between makes
    it ask for all partitions *but those*, of which it then hears nothing until the broker has no
    more reason to wait: up to `fetch_max_wait_ms`, half a second, or somebody else's message. The
    thread that receives is also the one that asks, so there it is certain what has come.
    """
    fetcher = consumer._fetcher
    fetch = fetcher._send_fetches_async

    async def fetch_if_drained() -> Sequence[Any]:
        # With something to take, `poll` does not wait, and asks again when it has taken it.
        return [] if fetcher._completed_fetches else await fetch()

    fetcher._send_fetches_async = fetch_if_drained


def end(producer: KafkaProducer, seconds: float) -> None:
    """Have the producer flush for so many seconds, and end it."""
    try:
        producer.close(timeout=seconds)
    except KafkaError:
        # `close` gives up when it cannot flush, and leaves its thread running.
        producer._sender.force_close()


def named(error: Exception) -> str:
    """An error in a few words: kafka-python's texts may run over many lines."""
    return type(error).__name__.removesuffix("Error")
