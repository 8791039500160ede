"""The thread that checks every second whether the topics exist and which ones they are, because
Kafka may be down at the start or later. It also replaces producers that do not work, and finds out
why Kafka refuses this client.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
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
from chat.relay.refusal import explain, missing_rights
from chat.relay.security import PLAINTEXT, Security

log = logging.getLogger("chat.kafka")

WATCH_SECONDS = 1.0
# Interval of reading the topic's settings, in seconds.
SETTINGS_SECONDS = 10.0
# Interval of asking why brokers refuse this client, in seconds.
EXPLAIN_SECONDS = 10.0
# Operations that a topic must allow to be usable.
RIGHTS = ("READ", "WRITE")
SETTINGS_RIGHT = "DESCRIBE_CONFIGS"
# Kafka's default of `max.message.bytes`.
KAFKAS_MESSAGE_BYTES = 1_048_588
# The `message.timestamp.type` with which the broker sets a record's time when it stores the record.
BROKERS_TIME = "LogAppendTime"


class _RightsError(Exception):
    """This client lacks rights on the topic; the text names them."""


class Inquiry(threading.Thread):
    """Asks brokers why they refuse this client. It has its own thread, because a broker may
    hang.
    """

    def __init__(self, servers: Sequence[str], security: Security) -> None:
        super().__init__(name="kafka-inquiry", daemon=True)
        self._servers = servers
        self._security = security
        self.began = time.monotonic()
        self.answer = ""

    def run(self) -> None:
        self.answer = explain(self._servers, self._security, ANSWER_MS / 1000)


class Watcher:
    """`messages` and `signals`: the topics that existed at the last check; None if there was no
    usable one. `reachable`: whether Kafka answered that check. `away`: why it did not. Other
    threads read these attributes.
    """

    def __init__(
        self,
        connect: Mapping[str, Any],
        topic: str,
        signal_topic: str,
        appender: Appender,
        signaller: Signaller,
        security: Security = PLAINTEXT,
    ) -> None:
        self._connect = connect
        self._topic = topic
        self._signal_topic = signal_topic
        self._appender = appender
        self._signaller = signaller
        self._security = security
        self._loop: asyncio.AbstractEventLoop
        self.messages: Topic | None = None
        self.signals: Topic | None = None
        self.reachable = False
        self.away = ""
        # The last inquiry since Kafka became unreachable, and its answer so far.
        self._inquiry: Inquiry | None = None
        self._refusal = ""
        # From the topic's settings: what prevents the chat from working, and the largest batch
        # allowed.
        self.trouble = ""
        self._record_bytes = KAFKAS_MESSAGE_BYTES
        self._settings_due = 0.0
        self._timestamp_type = BROKERS_TIME
        self._may_read_settings = True
        self._noted = (False, "")
        self._noted_signals = True

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def forget(self) -> None:
        """Check the message topic again before it is used: it may have been replaced."""
        self.messages = None

    def forget_signals(self) -> None:
        """Use the topic for signals again only when all its partitions have a leader."""
        self.signals = None

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
                topic, signals, led = self._look(admin)
                # A producer numbers its records per partition, and would continue the numbers in a
                # new topic of the same name. A producer that existed while Kafka was unreachable
                # may have been told by a starting broker that the topic does not exist.
                if self._appender.worn_out or topic != self.messages or not self.reachable:
                    self._read_settings(admin)
                    self._appender.renew(self._record_bytes)
                elif time.monotonic() >= self._settings_due:
                    self._read_settings(admin)
                # Messages must not wait for signals. A reader that begins waits for the leader of
                # each partition, and one that goes on does not.
                if not led and signals != self.signals:
                    signals = None
                if signals is not None:
                    self._signaller.open()
                self.messages, self.signals = topic, signals
                self._note_signals(signals is not None)
                self._note(True, f"topic {self._topic} has {topic.partitions} partitions")
            except UnknownTopicOrPartitionError:
                self._note(False, f"there is no topic {self._topic}: create it")
            except _RightsError as missing:
                self._note(False, str(missing))
            except KafkaError as error:
                refusal = self._inquire()
                self._note(False, named(error) + (f": {refusal}" if refusal else ""))
            stopping.wait(WATCH_SECONDS)
        if admin is not None:
            admin.close()

    def _look(self, admin: KafkaAdminClient) -> tuple[Topic, Topic | None, bool]:
        """Look up the current topics for messages and for signals, and whether all partitions for
        signals have a leader.

        Raises `KafkaError` if there is no usable topic for messages.
        """
        names = [self._topic, self._signal_topic]
        try:
            described = admin.describe_topics(names)
        except (KafkaConnectionError, KafkaTimeoutError):
            # The broker is gone or hangs. The second attempt asks another one.
            described = admin.describe_topics(names)
        topics = {topic["name"]: topic for topic in described}
        messages, signals = (topics[name] for name in names)
        if messages["error_code"] == TopicAuthorizationFailedError.errno:
            raise _RightsError(self._grant("DESCRIBE"))
        if messages["error_code"]:
            raise for_code(messages["error_code"])()
        if missing := missing_rights(messages, RIGHTS):
            raise _RightsError(self._grant(*missing))
        self._note_settings_right(not missing_rights(messages, [SETTINGS_RIGHT]))
        usable = not signals["error_code"] and not missing_rights(signals, RIGHTS)
        led = all(partition["leader_id"] >= 0 for partition in signals["partitions"])
        return Topic.of(messages), Topic.of(signals) if usable else None, led

    def _inquire(self) -> str:
        """Why brokers refuse this client, as far as is known. Starts an inquiry when it is time."""
        inquiry = self._inquiry
        if inquiry is not None:
            if inquiry.is_alive():
                return self._refusal
            self._refusal = inquiry.answer
        if inquiry is None or time.monotonic() >= inquiry.began + EXPLAIN_SECONDS:
            self._inquiry = Inquiry(self._connect["bootstrap_servers"], self._security)
            self._inquiry.start()
        return self._refusal

    def _grant(self, *rights: str) -> str:
        return (
            f"{self._security.who} may not {', '.join(rights)} topic {self._topic}: grant it READ,"
            " WRITE and DESCRIBE_CONFIGS there"
        )

    def _read_settings(self, admin: KafkaAdminClient) -> None:
        """Read the topic's settings, if this client has the right."""
        self._settings_due = time.monotonic() + SETTINGS_SECONDS
        if not self._may_read_settings:
            return
        names = ["max.message.bytes", "cleanup.policy", "message.timestamp.type"]
        topic = ConfigResource(ConfigResourceType.TOPIC, self._topic, names)
        settings = admin.describe_configs([topic], config_filter="all")["topic"][self._topic]
        if not settings.keys() >= set(names):
            # The topic has been deleted meanwhile. The next check reports that.
            raise UnknownTopicOrPartitionError
        self._record_bytes = int(settings["max.message.bytes"]["value"])
        policy = settings["cleanup.policy"]["value"]
        trouble = ""
        if "compact" in policy:
            # The key is the room's name, so compaction would leave one message per room.
            trouble = f"topic {self._topic} has cleanup.policy={policy}: set it to delete"
        if trouble != self.trouble:
            log.log(
                logging.ERROR if trouble else logging.INFO,
                "%s",
                trouble or f"the settings of topic {self._topic} are valid now",
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

    def _note_settings_right(self, given: bool) -> None:
        if not given and self._may_read_settings:
            log.warning("%s; until then its settings are not checked", self._grant(SETTINGS_RIGHT))
        self._may_read_settings = given

    def _note_signals(self, there: bool) -> None:
        if there != self._noted_signals:
            if there:
                log.info("topic %s exists: presence works", self._signal_topic)
            else:
                log.warning(
                    "topic %s is missing or unusable: create it, and grant READ and WRITE on it;"
                    " until then there is no presence and no typing",
                    self._signal_topic,
                )
        self._noted_signals = there

    def _note(self, reachable: bool, what: str) -> None:
        if (reachable, what) != self._noted:
            level = logging.INFO if reachable else logging.WARNING
            log.log(level, "Kafka is %s: %s", "there" if reachable else "away", what)
        self._noted = (reachable, what)
        self.reachable = reachable
        self.away = "" if reachable else what
        if reachable:
            self._inquiry, self._refusal = None, ""
        if not reachable:
            self._loop.call_soon_threadsafe(self._appender.give_all_up)
