from __future__ import annotations

import asyncio
import sys

from conftest import until
from hypothesis import given
from hypothesis import strategies as st

from chat.websocket.wheel import SLOTS, TICK_SECONDS, Wheel


class Deadline:
    def __init__(self) -> None:
        self.due: int | None = None
        self.called: list[int] = []
        self.turn = 0

    def on_deadline(self) -> None:
        self.called.append(self.turn)


@given(st.lists(st.integers(0, 3 * SLOTS), min_size=1, max_size=20))
def test_a_deadline_comes_once_and_neither_early_nor_more_than_a_tick_late(
    ticks: list[int],
) -> None:
    wheel = Wheel(on_lag=lambda _: None)
    deadlines = [Deadline() for _ in ticks]
    for deadline, after in zip(deadlines, ticks, strict=True):
        wheel.schedule(deadline, after * TICK_SECONDS)
    for turn in range(3 * SLOTS + 2):
        for deadline in deadlines:
            deadline.turn = turn
        wheel.turn(1)
    for deadline, after in zip(deadlines, ticks, strict=True):
        assert deadline.called in ([after], [after + 1])


def test_a_new_deadline_replaces_the_old_one_and_a_cancelled_one_never_comes() -> None:
    wheel = Wheel(on_lag=lambda _: None)
    moved, cancelled = Deadline(), Deadline()
    for deadline in (moved, cancelled):
        wheel.schedule(deadline, 0)
        wheel.schedule(deadline, 1)
    wheel.cancel(cancelled)
    for _ in range(2 * SLOTS):
        wheel.turn(1)
    assert (len(moved.called), len(cancelled.called)) == (1, 0)


def test_deadlines_that_are_over_take_no_memory() -> None:
    wheel = Wheel(on_lag=lambda _: None)

    def size() -> int:
        return sum(map(sys.getsizeof, wheel._slots))

    before = size()
    for number in range(100 * SLOTS):
        wheel.schedule(Deadline(), number % SLOTS * TICK_SECONDS)
    assert size() > before
    wheel.turn(SLOTS + 1)
    assert size() == before


async def test_who_answers_after_this_process_stood_still_is_not_late() -> None:
    """After a pause, the ping and its deadline must not both be handled before anything is read."""
    wheel = Wheel(on_lag=lambda _: None)
    pinged, answered = Deadline(), Deadline()
    wheel.schedule(pinged, 0.2)
    wheel.schedule(answered, 5)
    wheel._tick(asyncio.get_running_loop().time() - 60)
    assert (len(pinged.called), len(answered.called)) == (1, 0)
    wheel.stop()


async def test_it_keeps_time_and_tells_how_late_it_is() -> None:
    lags: list[float] = []
    wheel = Wheel(on_lag=lags.append)
    wheel.start()
    deadline = Deadline()
    start = asyncio.get_running_loop().time()
    wheel.schedule(deadline, 0.3)
    await until(lambda: deadline.called)
    assert asyncio.get_running_loop().time() - start >= 0.3
    wheel.stop()
    assert lags
    assert min(lags) >= 0
