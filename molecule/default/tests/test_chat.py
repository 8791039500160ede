"""The chat as clients reach it: through Traefik's port 443, on several replicas."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import pytest
import requests
from hosts import CA_FILE, address, group
from replicas import connect_elsewhere
from websockets.asyncio.client import connect as open_websocket

from chat.client import Chat, Message, Room, connect

EDGE = address(group("microk8s")[0])
URL = f"https://{EDGE}/"
# Bob connects several times as the same person.
KEY = uuid.uuid4().hex


@pytest.fixture
def room() -> str:
    return f"room-{uuid.uuid4()}"


@pytest.fixture
async def pair(room: str) -> AsyncIterator[tuple[Chat, Chat]]:
    """Ada and Bob in one room, on different replicas."""
    async with (
        connect(URL, "ada", key=KEY) as ada,
        connect_elsewhere(URL, "bob", ada.replica, key=KEY) as bob,
    ):
        for chat in (ada, bob):
            await chat.room(room).joined()
        yield ada, bob


async def messages(room: Room, count: int) -> list[Message]:
    """The next messages. Other events, such as gaps, fail the test."""
    async with asyncio.timeout(10):
        heard = [await anext(room) for _ in range(count)]
    assert all(isinstance(one, Message) for one in heard), heard
    return heard


def test_the_page_is_served() -> None:
    page = requests.get(URL, timeout=10, verify=str(CA_FILE))
    assert page.status_code == 200
    assert "text/html" in page.headers["Content-Type"]
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


def test_the_internal_port_is_not_reachable_through_the_edge() -> None:
    for path in ("metrics", "readyz", "livez"):
        answer = requests.get(URL + path, timeout=10, verify=str(CA_FILE))
        assert answer.status_code == 404


async def test_clients_on_different_replicas_get_all_messages_in_the_same_order(
    pair: tuple[Chat, Chat], room: str
) -> None:
    ada, bob = pair
    for number in range(20):
        await ada.send(room, f"ada {number}")
        await bob.send(room, f"bob {number}")
    assert await messages(ada.room(room), 40) == await messages(bob.room(room), 40)


async def test_the_handshake_sets_a_cookie_that_leads_back_to_the_same_replica() -> None:
    async def shake_hands(cookie: str = "", query: str = "") -> tuple[str, str | None]:
        """Return the replica that answers, and the cookie that it sets."""
        headers = {"Cookie": cookie} if cookie else {}
        async with (
            asyncio.timeout(20),
            open_websocket(f"wss://{EDGE}/ws{query}", additional_headers=headers) as socket,
        ):
            await socket.send(json.dumps({"type": "hello", "user": "ada"}))
            assert socket.response is not None
            welcome = json.loads(await socket.recv())
            return welcome["replica"], socket.response.headers.get("Set-Cookie")

    first, set_cookie = await shake_hands()
    assert set_cookie is not None
    assert "httponly" in set_cookie.lower()
    assert "secure" in set_cookie.lower()
    (morsel,) = SimpleCookie(set_cookie).values()
    for _ in range(6):
        again, _ = await shake_hands(f"{morsel.key}={morsel.value}")
        assert again == first

    # A page that reconnects gets any replica, because its own may be dead.
    met = [await shake_hands(f"{morsel.key}={morsel.value}", "?again=1") for _ in range(6)]
    assert len({replica for replica, _ in met}) > 1


async def test_a_client_gets_missed_messages_from_another_replica(room: str) -> None:
    async with connect(URL, "ada") as ada:
        async with connect(URL, "bob", key=KEY) as bob:
            since, here = await bob.send(room, "heard"), bob.replica
        missed = [f"missed {number}" for number in range(5)]
        for text in missed:
            await ada.send(room, text)
        async with connect_elsewhere(URL, "bob", here, key=KEY) as elsewhere:
            heard = await messages(elsewhere.room(room, since=since), 5)
            assert [message.text for message in heard] == missed


async def test_a_repeated_send_is_acknowledged_and_shown_once(
    pair: tuple[Chat, Chat], room: str
) -> None:
    ada, bob = pair
    first = await ada.send(room, "once", cid="the same")
    async with connect_elsewhere(URL, "ada", ada.replica, key=KEY) as retrying:
        assert await retrying.send(room, "once", cid="the same") == first
    await ada.send(room, "end")
    assert [message.text for message in await messages(bob.room(room), 2)] == ["once", "end"]
