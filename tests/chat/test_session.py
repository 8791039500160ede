from __future__ import annotations

import asyncio

import pytest

from chat.session import Outbox, TokenBucket


class Wire:
    """A connection that takes what is written when the test says so."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.pending: asyncio.Future[None] | None = None
        self.slow = False

    def write(self, frames: bytes) -> asyncio.Future[None]:
        self.written.append(frames)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.slow:
            self.pending = done
        else:
            done.set_result(None)
        return done

    def take(self) -> None:
        assert self.pending is not None
        self.pending.set_result(None)


def test_a_bucket_allows_a_burst_and_then_its_rate() -> None:
    now = 0.0
    bucket = TokenBucket(2, 3, clock=lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    now = 100.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


async def test_what_is_pushed_in_one_turn_is_written_at_once() -> None:
    wire = Wire()
    outbox = Outbox(wire.write, 100, on_overflow=lambda: None)
    for frame in (b"a", b"b", b"c"):
        outbox.push(frame)
    await asyncio.sleep(0)
    assert wire.written == [b"abc"]


async def test_while_a_client_is_slow_frames_wait_and_go_together() -> None:
    wire = Wire()
    wire.slow = True
    outbox = Outbox(wire.write, 100, on_overflow=lambda: None)
    outbox.push(b"first")
    await asyncio.sleep(0)
    outbox.push(b"second")
    await asyncio.sleep(0)
    outbox.push(b"third")
    await asyncio.sleep(0)
    assert wire.written == [b"first"]
    wire.take()
    await asyncio.sleep(0)
    assert wire.written == [b"first", b"secondthird"]


async def test_a_client_that_takes_nothing_overflows_once_the_limit_waits() -> None:
    wire = Wire()
    wire.slow = True
    overflows = []
    outbox = Outbox(wire.write, 10, on_overflow=lambda: overflows.append(1))
    # One answer may be larger than the limit.
    outbox.push(b"x" * 50)
    assert not overflows
    await asyncio.sleep(0)
    outbox.push(b"y")
    assert overflows


@pytest.mark.parametrize("slow", [False, True])
async def test_reading_from_a_client_waits_until_it_has_read(slow: bool) -> None:
    wire = Wire()
    wire.slow = slow
    outbox = Outbox(wire.write, 100, on_overflow=lambda: None)
    assert outbox.drained() is None
    outbox.push(b"x" * 51)
    drained = outbox.drained()
    assert drained is not None
    await asyncio.sleep(0)
    if slow:
        wire.take()
    await asyncio.wait_for(drained, 1)
    assert outbox.drained() is None


async def test_closing_writes_what_waits_or_drops_it() -> None:
    for flush, written in ((True, [b"last words"]), (False, [])):
        wire = Wire()
        outbox = Outbox(wire.write, 100, on_overflow=lambda: None)
        outbox.push(b"last words")
        outbox.close(flush=flush)
        outbox.push(b"too late")
        await asyncio.sleep(0)
        assert wire.written == written


async def test_closing_ends_the_wait_for_a_slow_reader() -> None:
    wire = Wire()
    wire.slow = True
    outbox = Outbox(wire.write, 10, on_overflow=lambda: None)
    outbox.push(b"x" * 10)
    await asyncio.sleep(0)
    drained = outbox.drained()
    assert drained is not None
    outbox.close(flush=False)
    await asyncio.wait_for(drained, 1)
