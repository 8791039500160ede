"""The thread that checks every second whether the topics exist and which ones they are, because
Kafka may be down at the start or later. It also replaces producers that do not work.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from chat.relay.kafka.client import ANSWER_MS, Topic, named
from chat.relay.kafka.producer import Appender, Signaller

log = logging.getLogger("chat.kafka")

WATCH_SECONDS = 1.0
# Interval of reading the topic's settings, in seconds.
SETTINGS_SECONDS = 10.0
# `max.message.bytes` where nobody has said otherwise.
KAFKAS_MESSAGE_BYTES = 1_048_588
# `message.timestamp.type` with which the time of a record is when the log took it.
BROKERS_TIME = "LogAppendTime"


class Watcher:
    """`messages` and `signals`: the topics that were there a moment ago; None if there was none
    that can be used. `reachable`: whether Kafka answered then. Others read them from their threads.
    """

    def __init__(
        self,
        connect: Mapping[str, Any],
        topic: str,
        signal_topic: str,
        appender: Appender,
        signaller: Signaller,
    ) -> None:
        self._connect = connect
        self._topic = topic
        self._signal_topic = signal_topic
        self._appender = appender
        self._signaller = signaller
        self._loop: asyncio.AbstractEventLoop
        self.messages: Topic | None = None
        self.signals: Topic | None = None
        self.reachable = False
        # Of the topic's settings: which cannot work, and the largest batch it takes.
        self.trouble = ""
        self._record_bytes = KAFKAS_MESSAGE_BYTES
        self._settings_due = 0.0
        self._timestamp_type = BROKERS_TIME
        self._noted = (False, "")
        # The client reports a refused certificate or password as a failed connection.
        protocol = self._connect.get("security_protocol", "PLAINTEXT")
        self._hint = f"; it is asked by {protocol}: see to certificates and password"
        if protocol == "PLAINTEXT":
            self._hint = ""
        self._noted_signals = True

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def forget(self) -> None:
        """Check the topic of messages again before it is used: it may have been replaced."""
        self.messages = None

    # The watcher's thread.

    def run(self, stopping: threading.Event) -> None:
        admin: KafkaAdminClient | None = None
        while not stopping.is_set():
            try:
                if admin is None:
                    admin = KafkaAdminClient(
                        **self._connect,
                        request_timeout_ms=ANSWER_MS,
                        bootstrap_timeout_ms=ANSWER_MS,
                    )
                topic, signals = self._look(admin)
                # A producer counts its records per partition, and would continue to count in
                # another topic of the same name.
                if self._appender.worn_out or topic != self.messages:
                    self._read_settings(admin)
                    self._appender.renew(self._record_bytes)
                elif time.monotonic() >= self._settings_due:
                    self._read_settings(admin)
                if signals is not None:
                    self._signaller.open()
                self.messages, self.signals = topic, signals
                self._note_signals(signals is not None)
                self._note(True, f"topic {self._topic} has {topic.partitions} partitions")
            except UnknownTopicOrPartitionError:
                self._note(False, f"there is no topic {self._topic}: create it")
            except KafkaError as error:
                self._note(False, named(error) + self._hint)
            stopping.wait(WATCH_SECONDS)
        if admin is not None:
            admin.close()

    def _look(self, admin: KafkaAdminClient) -> tuple[Topic, Topic | None]:
        """Look up the current topics for messages and for signals.

        Raises `KafkaError` if there is none for messages that can be used.
        """
        names = [self._topic, self._signal_topic]
        try:
            described = admin.describe_topics(names)
        except (KafkaConnectionError, KafkaTimeoutError):
            # The broker that was asked has gone or hangs; the next attempt asks another one.
            described = admin.describe_topics(names)
        topics = {topic["name"]: topic for topic in described}
        messages, signals = (topics[name] for name in names)
        if messages["error_code"]:
            raise for_code(messages["error_code"])()
        # Signals must not hold up the messages: a partition that nobody leads would.
        usable = not signals["error_code"] and all(
            partition["leader_id"] >= 0 for partition in signals["partitions"]
        )
        return Topic.of(messages), Topic.of(signals) if usable else None

    def _read_settings(self, admin: KafkaAdminClient) -> None:
        """Read the topic's settings, as far as this client may know them."""
        self._settings_due = time.monotonic() + SETTINGS_SECONDS
        names = ["max.message.bytes", "cleanup.policy", "message.timestamp.type"]
        topic = ConfigResource(ConfigResourceType.TOPIC, self._topic, names)
        try:
            described = admin.describe_configs([topic], config_filter="all")
        except TopicAuthorizationFailedError:
            return
        settings = described["topic"][self._topic]
        if not settings.keys() >= set(names):
            # The topic has gone since: who asks for it next will say so.
            raise UnknownTopicOrPartitionError
        self._record_bytes = int(settings["max.message.bytes"]["value"])
        policy = settings["cleanup.policy"]["value"]
        trouble = ""
        if "compact" in policy:
            # Of a room's messages, which have its name as their key, one would be left.
            trouble = f"topic {self._topic} has cleanup.policy={policy}: set it to delete"
        if trouble != self.trouble:
            log.log(
                logging.ERROR if trouble else logging.INFO,
                "%s",
                trouble or f"topic {self._topic} has settings that can work",
            )
        self.trouble = trouble
        self._note_timestamp_type(settings["message.timestamp.type"]["value"])

    def _note_timestamp_type(self, found: str) -> None:
        if found != self._timestamp_type:
            has = f"topic {self._topic} has message.timestamp.type={found}"
            if found == BROKERS_TIME:
                log.info("%s", has)
            else:
                log.warning("%s: set it to %s, or producers set the time", has, BROKERS_TIME)
        self._timestamp_type = found

    def _note_signals(self, there: bool) -> None:
        if there != self._noted_signals:
            if there:
                log.info("topic %s is there: presence is on", self._signal_topic)
            else:
                log.warning(
                    "there is no usable topic %s: create it; until then nobody sees who is here",
                    self._signal_topic,
                )
        self._noted_signals = there

    def _note(self, reachable: bool, what: str) -> None:
        if (reachable, what) != self._noted:
            level = logging.INFO if reachable else logging.WARNING
            log.log(level, "Kafka is %s: %s", "there" if reachable else "away", what)
        self._noted = (reachable, what)
        self.reachable = reachable
        if not reachable:
            self._loop.call_soon_threadsafe(self._appender.give_all_up)
