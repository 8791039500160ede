"""A stand-in for Traefik between browsers and replicas: one address that leads to a running
replica.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from conftest import Process


@dataclass
class Way:
    """A WebSocket that was forwarded: to which replica, from when to when (`time.time`)."""

    replica: str
    begin: float
    end: float = float("inf")


class Edge:
    """Forwards each connection to the first replica that accepts it."""

    def __init__(self, **replicas: Process) -> None:
        self._replicas = replicas
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        # WebSocket data from this replica is dropped.
        self.mute = ""
        self.ways: list[Way] = []
        # What becomes of a connection's first request.
        self.change: Callable[[bytes], bytes] = lambda request: request

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Only this wakes up a thread that is blocked in `accept`.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            first = self.change(client.recv(65536))
            reached = next(self._reach(), None)
            if not first or not reached:
                return
            name, service = reached
            way = Way(name, time.time()) if first.startswith((b"GET /ws ", b"GET /ws?")) else None
            if way:
                self.ways.append(way)
            with service:
                service.sendall(first)
                threading.Thread(target=_pump, args=(client, service), daemon=True).start()
                for data in _read(service):
                    if not (way and name == self.mute):
                        client.sendall(data)
                if way:
                    way.end = time.time()
                client.shutdown(socket.SHUT_RDWR)

    def _reach(self) -> Iterator[tuple[str, socket.socket]]:
        for name, replica in self._replicas.items():
            with contextlib.suppress(ConnectionRefusedError):
                yield name, socket.create_connection(("127.0.0.1", replica.port))


def _read(one: socket.socket) -> Iterator[bytes]:
    """Yield the data of a socket until it ends, even by an error."""
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            yield data


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for data in _read(one):
            other.sendall(data)
        other.shutdown(socket.SHUT_RDWR)
