"""Who talks in one room does not make everybody else's clients be told so, and nobody's position
gets too old by it.
"""

from __future__ import annotations

import asyncio

import pytest
from test_hub import EPOCH, PARTITION, PARTITIONS, PlayedRelay, Uncorked, feed, said
from test_hub import Listening as Member

from chat.hub import Hub
from chat.metrics import Metrics
from chat.relay.base import partition_of

WINDOW = 100
LOUD, *QUIET = [
    name
    for name in (f"room-{number}" for number in range(1000))
    if partition_of(name, PARTITIONS) == PARTITION
][:21]


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr("chat.positions.LOOK_SECONDS", 0.001)
    made = Hub(
        PlayedRelay(),
        Uncorked(),
        Metrics(),
        history=100,
        recent=10,
        window=WINDOW,
        page=10,
        page_bytes=1 << 20,
        scan=0,
        position_seconds=600,
        heartbeat=5,
        members_shown=3,
        typing_seconds=6,
        name_hold=0,
    )
    made.reset(EPOCH, [-1] * PARTITIONS)
    await made.start()
    return made


async def test_members_are_told_when_half_a_window_lies_between_and_can_always_come_back(
    hub: Hub,
) -> None:
    members = [Member() for _ in range(5)]
    for member in members:
        for room in QUIET:
            await hub.join(member, room, None)
    last = {room: str(members[0].of("joined")[at]["position"]) for at, room in enumerate(QUIET)}
    for offset in range(10 * WINDOW):
        feed(hub, [said(offset, str(offset), LOUD)], PARTITION)
        # As long as it is looked once in a while.
        if offset % 10 == 0:
            told = len(members[0].of("position"))
            await asyncio.sleep(0.003)
            for frame in members[0].of("position")[told:]:
                last[str(frame["room"])] = str(frame["position"])
        if offset % 97 == 0:
            for room, position in last.items():
                back = Member()
                await hub.join(back, room, position)
                (answer,) = back.of("joined")
                assert answer["recovered"], f"{room} from {position} at {offset}"
                hub.leave(back, room)
    per_room = len(members[0].of("position")) / len(QUIET)
    assert 10 <= per_room <= 20, "once for half a window"
    await hub.stop(0)


async def test_a_room_whose_members_talk_is_told_nothing(hub: Hub) -> None:
    member = Member()
    await hub.join(member, LOUD, None)
    for offset in range(3 * WINDOW):
        feed(hub, [said(offset, str(offset), LOUD)], PARTITION)
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    assert len(member.of("message")) == 3 * WINDOW
    assert not member.of("position")
    await hub.stop(0)


async def test_of_all_its_rooms_a_client_is_told_in_one_turn(hub: Hub) -> None:
    member = Member()
    turns: list[int] = []
    turn = 0

    def push(frames: bytes) -> None:
        if b'"position"' in frames and b'"joined"' not in frames:
            turns.append(turn)

    for room in QUIET:
        await hub.join(member, room, None)
    member.push = push  # type: ignore[method-assign]
    feed(hub, [said(offset, str(offset), LOUD) for offset in range(2 * WINDOW)], PARTITION)
    while len(turns) < len(QUIET):
        turn += 1
        await asyncio.sleep(0)
    assert len(set(turns)) == 1
    await hub.stop(0)
