"""The log in Kafka: one topic, shared by all replicas that name it.

`relay` is the interface to the event loop. The other modules work in their own threads: `watcher`
(checks the topics), `reader` (delivers new records), `readback` (reads old records) and
kafka-python's threads behind `producer`. `record` encodes and decodes records, without I/O.
`client` has the kafka-python options that all of them share. `register` keeps a topic of its own.
"""

from chat.relay.kafka.register import KafkaRegister
from chat.relay.kafka.relay import KafkaRelay

__all__ = ["KafkaRegister", "KafkaRelay"]
