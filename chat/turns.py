"""Schedules reads of the log: one at a time, addresses in turn, with a pause in between.

Reads take at most half of one thread's time, whatever clients request. Clients with many requests
wait for those with few.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection

from chat.relay.base import UnavailableError

# Maximum number of readers and waiters, in total and per address.
MOST_WAITING = 200
MOST_OF_ADDRESS = 100
MOST_REST = 1.0
# Number of addresses whose last turn is remembered. For others it is long ago.
MOST_KNOWN = 1000


class Turns:
    def __init__(self) -> None:
        # The addresses of each turn: the one that requested it, and those that wait for the same
        # read.
        self._waiting: dict[asyncio.Future[None], Collection[str]] = {}
        self._of_address: Counter[str] = Counter()
        # Time of each address's last turn, the latest one last.
        self._last: dict[str, float] = {}
        self._taken = False
        self._rested = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until nobody has a turn or waits for one."""
        await self._idle.wait()

    @contextlib.asynccontextmanager
    async def of(self, address: str, waiting: Collection[str] = ()) -> AsyncIterator[None]:
        """Wait for a turn of `address`, and take it. Raises `UnavailableError` if too many wait.

        `waiting` are all addresses that wait for it, and may grow: it runs at the turn of any of
        them.
        """
        await self._take(address, waiting or (address,))
        try:
            await asyncio.sleep(self._rested - time.monotonic())
            began = time.monotonic()
            try:
                yield
            finally:
                now = time.monotonic()
                self._rested = now + min(now - began, MOST_REST)
        finally:
            self._give_on()

    async def _take(self, address: str, waiting: Collection[str]) -> None:
        if self._taken:
            # The current reader is one of them.
            most = len(self._waiting) + 1 >= MOST_WAITING
            if most or self._of_address[address] >= MOST_OF_ADDRESS:
                raise UnavailableError("Too many read the history: try again in a moment.")
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[turn] = waiting
            self._of_address[address] += 1
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_on()
                raise
            finally:
                self._waiting.pop(turn, None)
                self._of_address[address] -= 1
                if not self._of_address[address]:
                    del self._of_address[address]
        self._taken = True
        self._idle.clear()
        self._last.pop(address, None)
        self._last[address] = time.monotonic()
        if len(self._last) > MOST_KNOWN:
            del self._last[next(iter(self._last))]

    def _give_on(self) -> None:
        """Give the next turn to the address whose last turn was longest ago."""
        waiting = [turn for turn in self._waiting if not turn.done()]
        if not waiting:
            self._taken = False
            self._idle.set()
            return
        # Of equals, the first in the queue.
        turn = min(
            waiting, key=lambda one: min(self._last.get(at, 0.0) for at in self._waiting[one])
        )
        turn.set_result(None)
