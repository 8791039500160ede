"""A broker that takes connections and then hangs does not hold up a client with TLS."""

import socket

import pytest
from kafka.errors import KafkaTimeoutError
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from chat.relay import handshake


@pytest.mark.timeout(20)
def test_a_handshake_that_nobody_answers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "SECONDS", 0.2)
    handshake.limit_handshakes()
    # The kernel takes the connections, and nobody else does.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = KafkaConnectionManager(
            NetworkSelector(),
            bootstrap_servers=f"127.0.0.1:{silent.getsockname()[1]}",
            security_protocol="SSL",
        )
        with pytest.raises(KafkaTimeoutError):
            client.bootstrap(timeout_ms=1_000)
