"""What is between browsers and replicas, as Traefik is: one address, and a replica that runs."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from conftest import Process


@dataclass
class Way:
    """A WebSocket that was passed on: to which replica, from when to when (`time.time`)."""

    replica: str
    begin: float
    end: float = float("inf")


class Edge:
    """Each connection goes to the first of the replicas that accepts it."""

    def __init__(self, **replicas: Process) -> None:
        self._replicas = replicas
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        # What this replica says on WebSockets is lost on the way.
        self.mute = ""
        self.ways: list[Way] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Only this wakes a thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            first = client.recv(65536)
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
    """What it says, until it has ended, in whatever way."""
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            yield data


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for data in _read(one):
            other.sendall(data)
        other.shutdown(socket.SHUT_RDWR)
