"""How clients are disconnected: evenly, and faster while other replicas accept them."""

from __future__ import annotations

import asyncio

import pytest

from chat.drain import Pace, send_away


def test_a_drain_goes_at_an_even_pace_and_never_at_more_than_twice_of_it() -> None:
    pace = Pace(100, 1)
    assert pace.batch(100, 0) == (10, 20)
    assert pace.batch(90, 0.1) == (10, 20)
    # Ahead of schedule, it may wait. After a pause of the process, it does not rush.
    assert pace.batch(60, 0.1) == (0, 20)
    assert pace.batch(100, 0.9) == (20, 20)
    assert pace.batch(5, 2) == (5, 5)


@pytest.mark.parametrize(("people", "first"), [(1000, 23), (20, 12)])
async def test_a_drain_is_quicker_while_few_are_away(people: int, first: int) -> None:
    """It waits until clients have arrived elsewhere, as long as there is time."""
    batches: list[int] = []

    class Client:
        def send_away(self, _reason: str, retry_after: float) -> None:
            nonlocal people
            assert 0 < retry_after <= 1
            people -= 1
            if not batches or batches[-1] == 0:
                batches.append(0)
                # Runs when the server yields to the event loop, which is after the batch.
                asyncio.get_running_loop().call_soon(batches.append, 0)
            batches[-1] += 1

    class Presence:
        @property
        def places(self) -> int:
            return people

    await send_away([Client() for _ in range(100)], Presence(), 1)
    sizes = [size for size in batches if size]
    assert sum(sizes) == 100
    assert sizes[0] == first
    assert max(sizes) <= 23
