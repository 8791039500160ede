"""The log in Kafka: one topic, shared by all replicas that name it.

`relay` is the border to the event loop. Behind it, each with its thread: `watcher` (which topic is
there), `reader` (what it delivers), `readback` (what it held), and kafka-python's own behind
`producer`. `record` is what a record's bytes mean, without I/O; `client` is what kafka-python is
told by all of them.
"""

from chat.relay.kafka.relay import KafkaRelay

__all__ = ["KafkaRelay"]
