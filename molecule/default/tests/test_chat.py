"""The chat as people meet it: through Traefik's port 80, on more than one replica."""

import uuid
from collections.abc import Iterator

import pytest
import requests
from chat_client import Chat, on_different_replicas
from hosts import address, group

EDGE = address(group("microk8s")[0])


@pytest.fixture
def room() -> str:
    return f"room-{uuid.uuid4()}"


@pytest.fixture
def pair(room: str) -> Iterator[tuple[Chat, Chat]]:
    """Ada and Bob in one room, on different replicas."""
    ada, bob = on_different_replicas(EDGE, "ada", "bob")
    with ada, bob:
        ada.join(room)
        bob.join(room)
        yield ada, bob


def test_the_page_is_served() -> None:
    page = requests.get(f"http://{EDGE}/", timeout=10)
    assert page.status_code == 200
    assert "text/html" in page.headers["Content-Type"]
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


def test_the_internal_port_is_not_reachable_through_the_edge() -> None:
    for path in ("/metrics", "/readyz", "/livez"):
        assert requests.get(f"http://{EDGE}{path}", timeout=10).status_code == 404


def test_people_on_different_replicas_hear_each_other_in_one_order(
    pair: tuple[Chat, Chat], room: str
) -> None:
    ada, bob = pair
    for number in range(20):
        ada.send(room, f"ada {number}")
        bob.send(room, f"bob {number}")
    ada.read_until(room, "bob 19")
    bob.read_until(room, "bob 19")
    assert len(ada.texts(room)) == 40
    assert ada.messages[room] == bob.messages[room]


def test_the_handshake_sets_a_cookie_that_leads_back_to_the_same_replica() -> None:
    with Chat(EDGE, "ada") as first:
        assert first.set_cookie is not None
        assert "httponly" in first.set_cookie.lower()
        for _ in range(6):
            with Chat(EDGE, "ada", cookie=first.cookie) as again:
                assert again.replica == first.replica


def test_another_replica_knows_what_a_client_missed(pair: tuple[Chat, Chat], room: str) -> None:
    ada, bob = pair
    since = ada.send(room, "heard")
    bob.read_until(room, "heard")
    bob.close()
    missed = [f"missed {number}" for number in range(5)]
    for text in missed:
        ada.send(room, text)
    with Chat(EDGE, "bob", cookie=ada.cookie) as elsewhere:
        assert elsewhere.replica != bob.replica
        joined = elsewhere.join(room, since=since)
    assert joined["recovered"] is True
    assert [message["text"] for message in joined["messages"]] == missed


def test_a_repeated_send_is_acknowledged_and_shown_once(pair: tuple[Chat, Chat], room: str) -> None:
    ada, bob = pair
    cid = str(uuid.uuid4())
    first = ada.send(room, "once", cid=cid)
    with Chat(EDGE, "ada", cookie=bob.cookie) as retrying:
        retrying.join(room)
        assert retrying.send(room, "once", cid=cid) == first
    ada.send(room, "end")
    bob.read_until(room, "end")
    assert bob.texts(room) == ["once", "end"]
