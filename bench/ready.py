"""The time from a replica's start until it is ready, with a history in Kafka.

A broker is started and filled with messages, spread over rooms and partitions. Then replicas are
started one after the other, each in its own process. Each is timed from its start until it has read
all messages. This includes starting Python and importing the chat.

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
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaProducer

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kafka_broker import KafkaBroker, free_port, unpack  # noqa: E402

from chat.relay.base import Record, partition_of  # noqa: E402
from chat.relay.kafka.record import encode  # noqa: E402

PARTITIONS = 12
ROOMS = 200


def fill(broker: KafkaBroker, messages: int, text_bytes: int = 106, linger_ms: int = 20) -> None:
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
        settings = {"message.timestamp.type": "LogAppendTime"}
        topic = {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": settings}
        admin.create_topics({"chat": topic, "empty": topic, "chat-signals": topic})
        admin.wait_for_topics(["chat", "empty", "chat-signals"])
    text = ("What a message says is about as long as this one is. " * (text_bytes // 50 + 1))[
        :text_bytes
    ]
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=linger_ms)
    for number in range(messages):
        room = f"room-{number % ROOMS}"
        record = Record(room, f"user-{number % 1000}", text, str(number), f"{number % 1000:032x}")
        sent = producer.send(
            "chat",
            key=room.encode(),
            value=encode(record),
            partition=partition_of(room, PARTITIONS),
        )
        if linger_ms == 0 and number % 8 == 0:
            sent.get(10)
    producer.flush()
    producer.close()


class Run(NamedTuple):
    """Seconds until a replica was ready; its peak memory until then (MiB); its processor time in
    seconds until it had drained.
    """

    took: float
    computed: float
    memory: float


def start(broker: KafkaBroker, tree: Path, topic: str) -> Run:
    port = free_port()
    environment = os.environ | {
        "KAFKA_ENABLED": "true",
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "CHAT_ADDRESS": "127.0.0.1",
        "CHAT_PORT": "0",
        "CHAT_INTERNAL_PORT": str(port),
        "CHAT_LOG_LEVEL": "error",
        "CHAT_DRAIN_DELAY_SECONDS": "0",
    }
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "chat"], cwd=tree, env=environment)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except OSError:
            time.sleep(0.01)
        else:
            break
    took = time.monotonic() - began
    status = Path(f"/proc/{process.pid}/status").read_text()
    (most,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    process.terminate()
    _, _, usage = os.wait4(process.pid, 0)
    return Run(took, usage.ru_utime + usage.ru_stime, int(most) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--messages", type=int, default=100_000, help="messages in the topic (100000)"
    )
    parser.add_argument("--text-bytes", type=int, default=106, help="length of each text (106)")
    parser.add_argument("--linger", type=int, default=20, help="linger of the producer, in ms (20)")
    parser.add_argument("--rounds", type=int, default=5, help="replicas to start (5)")
    parser.add_argument("--against", type=Path, help="another checkout, to compare with")
    options = parser.parse_args()
    trees = [ROOT, *([options.against] if options.against else [])]
    runs: dict[tuple[Path, str], list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        broker = KafkaBroker(unpack(Path(folder)), Path(folder))
        try:
            broker.start()
            fill(broker, options.messages, options.text_bytes, options.linger)
            for _ in range(options.rounds):
                for tree in trees:
                    for topic in ("chat", "empty"):
                        runs.setdefault((tree, topic), []).append(start(broker, tree, topic))
        finally:
            broker.close()
    for tree in trees:
        full, empty = runs[tree, "chat"], runs[tree, "empty"]
        taken = [run.took for run in full]
        computed = statistics.median(run.computed for run in full)
        each = (computed - statistics.median(run.computed for run in empty)) / options.messages
        print(
            f"{tree.resolve().name}: ready with {options.messages} messages after"
            f" {statistics.median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f} s);"
            f" the replica computed for {computed:.2f} s, {each * 1e6:.1f} µs a message, and took"
            f" at most {max(run.memory for run in full):.0f} MiB of memory"
        )


if __name__ == "__main__":
    main()
