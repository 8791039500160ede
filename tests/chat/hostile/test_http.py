"""Nobody keeps others from reading over HTTP: not who asks for what is not there, not who hangs up,
not who asks too often.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from conftest import Replica, until
from test_api import said
from test_server import get

from chat.protocol import Position
from chat.relay.base import Entry

PATH = "/api/rooms/lobby/messages"


async def test_a_position_far_ahead_is_refused_at_once(replica: Replica) -> None:
    server = await replica(CHAT_API_REQUESTS="8")
    last = Position.parse((await said(server, 1))[0]["id"])
    assert last is not None
    ahead = f"{PATH}?after={last._replace(offset=999_999_999)}"
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(get(server.port, ahead) for _ in range(4)))
    assert {(answer.code, answer.headers["Retry-After"]) for answer in answers} == {(503, "1")}
    assert "has not read so far" in json.loads(answers[0].body)["error"]
    assert not server._turns.taken
    assert (await get(server.port, PATH)).code == 200


async def test_the_work_for_a_client_ends_when_it_hangs_up(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica(CHAT_WINDOW="5", CHAT_API_REQUESTS="2")
    await said(server, 30)

    async def never(partition: int, after: int, upto: int) -> Sequence[Entry]:
        await asyncio.Event().wait()
        raise AssertionError(partition, after, upto)

    monkeypatch.setattr(server._hub._history._archive, "_read", never)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await until(lambda: server._turns.taken == 1)
    assert (await get(server.port, PATH)).code == 429, "the address has its half"
    writer.close()
    await until(lambda: not server._turns.taken)


async def test_who_asks_too_often_is_told_so_and_others_are_answered(replica: Replica) -> None:
    server = await replica(CHAT_API_RATE="1", CHAT_TRUSTED_PROXIES="127.0.0.1/32")
    one, other = ({"X-Forwarded-For": f"192.0.2.{number}"} for number in (1, 2))
    codes = [(await get(server.port, PATH, **one)).code for _ in range(7)]
    assert codes[:5] == [200] * 5
    assert codes[6] == 429
    assert (await get(server.port, PATH, **other)).code == 200
