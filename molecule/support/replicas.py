"""Connects clients to different replicas, through Traefik."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chat.client import Chat, connect

# Connections until one is on another replica. Without a cookie, Traefik uses them round robin.
MOST_TRIES = 20


@asynccontextmanager
async def connect_elsewhere(
    url: str, user: str, *replicas: str, key: str | None = None
) -> AsyncIterator[Chat]:
    """A connection to a replica that is not in `replicas`."""
    for _ in range(MOST_TRIES):
        async with connect(url, user, key=key) as chat:
            if chat.replica not in replicas:
                yield chat
                return
    raise AssertionError(f"all {MOST_TRIES} connections of {user} were to one of {replicas}")
