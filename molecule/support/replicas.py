"""Clients on replicas of one's choice, through the edge."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chat.client import Chat, connect

# Connections until one is on another replica: without a cookie, the edge alternates.
MOST_TRIES = 20


@asynccontextmanager
async def connect_elsewhere(
    url: str, user: str, *replicas: str, key: str | None = None
) -> AsyncIterator[Chat]:
    """A connection that none of `replicas` serves."""
    for _ in range(MOST_TRIES):
        async with connect(url, user, key=key) as chat:
            if chat.replica not in replicas:
                yield chat
                return
    raise AssertionError(f"in {MOST_TRIES} connections {user} was always on one of {replicas}")
