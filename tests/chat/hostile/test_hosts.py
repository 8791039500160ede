"""Names that somebody else points here, and origins however they are written."""

from __future__ import annotations

import pytest
import websockets
from chat_client import ChatClient
from conftest import Replica
from test_server import get

from chat.origins import Sites, parse_host, parse_origin
from chat.server import Server

EVIL = {"Host": "evil.example", "Origin": "http://evil.example"}


@pytest.fixture(params=["chat.example.org", ""], ids=["hosts known", "from this machine"])
async def server(replica: Replica, request: pytest.FixtureRequest) -> Server:
    return await replica(CHAT_HOSTS=request.param)


@pytest.mark.parametrize("path", ["/", "/api/rooms/lobby/messages"])
async def test_a_host_that_is_not_ours_reads_nothing(server: Server, path: str) -> None:
    # A page's own requests have no Origin.
    for headers in (EVIL, {"Host": "evil.example"}):
        response = await get(server.port, path, **headers)
        assert response.code == 421
        assert "Access-Control-Allow-Origin" not in response.headers
        assert b"CHAT_HOSTS" in response.body


async def test_a_host_that_is_not_ours_gets_no_connection(server: Server) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(
            f"ws://evil.example:{server.port}/ws",
            host="127.0.0.1",
            origin=websockets.Origin(f"http://evil.example:{server.port}"),
        )
    assert refused.value.response.status_code == 421


@pytest.mark.parametrize(
    "host",
    [
        "CHAT.Example.ORG",
        "chat.example.org.",
        "chat.example.org:8080",
        "127.0.0.1",
        "[::1]:1",
        "10.1.2.3",
    ],
)
async def test_our_hosts_are_known_however_they_are_written(replica: Replica, host: str) -> None:
    server = await replica(CHAT_HOSTS="b\u00fccher.example, chat.example.org")
    response = await get(server.port, "/api/rooms/lobby/messages", Host=host)
    assert response.code == 200


async def test_case_5_an_origin_is_compared_by_the_rules_of_urls(replica: Replica) -> None:
    server = await replica(CHAT_ALLOWED_ORIGINS="https://Portal.Example.org")
    for origin in ("https://portal.example.org", "https://portal.example.org.:443"):
        async with ChatClient(server.port, origin=origin) as client:
            assert client.welcome


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        ("http://chat.example.org", "Chat.Example.org:80"),
        ("https://chat.example.org", "chat.example.org:443"),
        ("https://chat.example.org", "chat.example.org"),
        ("https://CHAT.example.org:443", "chat.example.org."),
        ("https://chat.example.org:8443", "chat.example.org:8443"),
        ("http://[::1]:8080", "[0:0::1]:8080"),
        ("https://xn--bcher-kva.example", "b\u00fccher.example"),
    ],
)
def test_a_page_of_the_same_origin_is_admitted(origin: str, authority: str) -> None:
    assert Sites([], [], []).admits(origin, None, authority)


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        ("http://chat.example.org", "chat.example.org:443"),
        ("https://chat.example.org", "chat.example.org:80"),
        ("https://chat.example.org.evil.example", "chat.example.org"),
        ("https://chat.example.org@evil.example", "chat.example.org"),
        ("null", "null"),
        ("file://", ""),
        ("https://chat.example.org/", "chat.example.org"),
    ],
)
def test_a_page_of_another_origin_is_not(origin: str, authority: str) -> None:
    assert not Sites([], ["https://friend.example"], []).admits(origin, None, authority)
    assert not Sites([], [], []).admits(origin, "cross-site", authority)


def test_allowed_origins_are_compared_in_the_same_way() -> None:
    sites = Sites([], ["https://B\u00fccher.example:443"], [])
    assert sites.admits("https://xn--bcher-kva.example", "cross-site", "chat.example.org")
    assert not sites.admits("http://xn--bcher-kva.example", "cross-site", "chat.example.org")


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "a b", "a/b", "chat.example.org:80", "fa\u00df.example", "[1.2.3.4]"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"'"):
        parse_host(text)


def test_a_name_that_is_longer_than_names_are_is_not_looked_at() -> None:
    """What IDNA costs grows with the square of it."""
    assert parse_host(".".join(["\u00e9"] * 100))
    with pytest.raises(ValueError, match="too long"):
        parse_host(".".join(["\u00e9"] * 8000))


@pytest.mark.parametrize("text", ["ftp://a", "https://", "https://a:99999", "https://a/b", "a"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"'"):
        parse_origin(text)
