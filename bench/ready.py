"""From the start of a replica to its readiness, with a history in Kafka.

A broker is started and given the messages, spread over rooms and partitions; then replicas are
started one after the other, each as a process of its own, and each is timed from its start until it
has read all of them. What it takes to start Python and to import the chat is part of it.

    .venv/bin/python bench/ready.py --messages 100000
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from kafka import KafkaAdminClient, KafkaProducer

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kafka_broker import KafkaBroker, free_port, unpack  # noqa: E402

from chat.relay.base import Record, partition_of  # noqa: E402
from chat.relay.kafka.record import encode  # noqa: E402

PARTITIONS = 12
ROOMS = 200
TEXT = "What a message says is about as long as this one is. " * 2


def fill(broker: KafkaBroker, messages: int) -> None:
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
        settings = {"message.timestamp.type": "LogAppendTime"}
        topic = {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": settings}
        admin.create_topics({"chat": topic, "chat-signals": topic})
        admin.wait_for_topics(["chat", "chat-signals"])
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=20)
    for number in range(messages):
        room = f"room-{number % ROOMS}"
        producer.send(
            "chat",
            key=room.encode(),
            value=encode(Record(room, f"user-{number % 1000}", TEXT, str(number))),
            partition=partition_of(room, PARTITIONS),
        )
    producer.flush()
    producer.close()


def start(broker: KafkaBroker) -> tuple[float, float]:
    """Seconds until a replica is ready, and those it computed, draining included."""
    port = free_port()
    environment = os.environ | {
        "KAFKA_ENABLED": "true",
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "CHAT_ADDRESS": "127.0.0.1",
        "CHAT_PORT": "0",
        "CHAT_INTERNAL_PORT": str(port),
        "CHAT_LOG_LEVEL": "error",
    }
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "chat"], cwd=ROOT, env=environment)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except OSError:
            time.sleep(0.01)
        else:
            break
    took = time.monotonic() - began
    process.terminate()
    _, _, usage = os.wait4(process.pid, 0)
    return took, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000, help="in the topic (100000)")
    parser.add_argument("--rounds", type=int, default=5, help="replicas to start (5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        broker = KafkaBroker(unpack(Path(folder)), Path(folder))
        try:
            broker.start()
            fill(broker, options.messages)
            taken, computed = zip(*(start(broker) for _ in range(options.rounds)), strict=True)
        finally:
            broker.close()
    print(
        f"Ready with {options.messages} messages after {statistics.median(taken):.2f} s"
        f" ({min(taken):.2f} to {max(taken):.2f} s);"
        f" the replica computed for {statistics.median(computed):.2f} s"
    )


if __name__ == "__main__":
    main()
