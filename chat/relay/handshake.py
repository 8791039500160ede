"""A deadline for TLS handshakes of kafka-python (3.0.12), which has none.

A broker that hangs still takes connections, because its kernel does. kafka-python then waits for
the handshake until the broker goes on, and each request for it waits too, also when other brokers
have led for long. The Ansible modules use this file, too: `plugins/module_utils/kafka_handshake.py`
is a link to it. So it imports nothing of the chat.
"""

from __future__ import annotations

import ssl
import time

import kafka.net.manager
from kafka.net.transport import KafkaSSLTransport

# A broker on a busy machine answers within two or three.
SECONDS = 5.0


class Transport(KafkaSSLTransport):  # type: ignore[misc]  # It carries no types.
    """A connection with TLS."""

    async def handshake(self) -> None:
        """Raises `KafkaTimeoutError` when `SECONDS` have passed."""
        timeout_at = time.monotonic() + SECONDS
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, timeout_at)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, timeout_at)
            else:
                return


def limit_handshakes() -> None:
    """Give all clients of this process the deadline."""
    kafka.net.manager.KafkaSSLTransport = Transport
