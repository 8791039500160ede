"""Conversations with one replica, on both relays: the protocol as a client sees it."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from typing import Any

import pytest
import websockets
from chat_client import ChatClient
from conftest import ROOT, Replica
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from chat.relay.base import partition_of
from chat.server import Server

# A room in the lobby's partition, both with the memory relay's four partitions and the topic's
# three.
NEIGHBOUR = next(
    name
    for name in map(str, range(100))
    if partition_of(name, 3 * 4) == partition_of("lobby", 3 * 4)
)

# Files of the page that its document does not name, or only where people sign in: they are loaded
# when somebody needs them.
LATER = {
    "actions.js",
    "audit.js",
    "dialogs.js",
    "emoji.js",
    "members.js",
    "moderation.js",
    "private.js",
    "reports.js",
    "revisions.js",
    "sanctioned.js",
    "shortcuts.js",
    "sign_in.js",
}


@pytest.fixture
async def server(replica: Replica, log: dict[str, str]) -> Server:
    return await replica(log)


async def get(port: int, path: str, **headers: str) -> HTTPResponse:
    return await AsyncHTTPClient().fetch(
        f"http://127.0.0.1:{port}{path}", headers=headers, raise_error=False
    )


async def test_hello_is_answered_with_who_serves_and_what_is_allowed(
    replica: Replica, log: dict[str, str]
) -> None:
    server = await replica(log, CHAT_REPLICA="chat-7d9f", CHAT_RATE="20", CHAT_BURST="100")
    async with ChatClient(server.port, " Ada ") as ada:
        assert ada.welcome == {
            "type": "welcome",
            "protocol": 1,
            "user": "Ada",
            "replica": "chat-7d9f",
            "limits": {
                "frame_bytes": 32768,
                "text_bytes": 8192,
                "text_graphemes": 2000,
                "rooms": 50,
                "rate": 20,
                "burst": 100,
                "history": 100,
            },
            "author": ada.welcome["author"],
        }


async def test_everyone_in_the_room_gets_the_same_messages_in_the_same_order(
    server: Server,
) -> None:
    async with (
        ChatClient(server.port, "ada") as ada,
        ChatClient(server.port, "bob") as bob,
        ChatClient(server.port, "eve") as eve,
    ):
        for client in (ada, bob, eve):
            await client.join("lobby")
        await asyncio.gather(
            *(
                client.send("lobby", f"{name} {number}")
                for client, name in ((ada, "ada"), (bob, "bob"))
                for number in range(1)
            )
        )
        for client, name in ((ada, "ada"), (bob, "bob")):
            for number in range(1, 20):
                await client.say(
                    type="send", room="lobby", text=f"{name} {number}", cid=f"{number}"
                )
        orders = [await client.texts("lobby", 40) for client in (ada, bob, eve)]
        assert orders[0] == orders[1] == orders[2]
        assert [text for text in orders[0] if "ada" in text] == [f"ada {n}" for n in range(20)]


async def test_a_message_has_all_its_fields(server: Server) -> None:
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        ack = await ada.send("lobby", "two\nlines 👋", cid="c-1")
        message = await ada.hear("message")
        assert isinstance(message.pop("ts"), int)
        assert message == {
            "type": "message",
            "room": "lobby",
            "id": ack["id"],
            "user": "ada",
            "text": "two\nlines 👋",
            "cid": "c-1",
            "author": ada.welcome["author"],
        }
        assert ack == {"type": "ack", "cid": "c-1", "id": message["id"]}


async def test_rooms_are_apart(server: Server) -> None:
    async with ChatClient(server.port, "ada") as ada, ChatClient(server.port, "bob") as bob:
        await ada.join("lobby")
        await ada.join("kafka")
        await bob.join("kafka")
        await ada.send("lobby", "not for bob")
        await ada.send("kafka", "for bob")
        assert await bob.texts("kafka", 1) == ["for bob"]
        assert not [frame for frame in bob.inbox if frame["type"] == "message"]


async def test_who_left_hears_no_more_and_cannot_send(server: Server) -> None:
    async with ChatClient(server.port, "ada") as ada, ChatClient(server.port, "bob") as bob:
        await ada.join("lobby")
        await bob.join("lobby")
        await bob.say(type="leave", room="lobby")
        assert await bob.hear("left") == {"type": "left", "room": "lobby"}
        await ada.send("lobby", "gone?")
        error = await bob.refused(type="send", room="lobby", text="hello", cid="1")
        assert (error["code"], error["cid"]) == ("not_joined", "1")
        assert (await bob.refused(type="leave", room="lobby"))["code"] == "not_joined"
        assert not [frame for frame in bob.inbox if frame["type"] == "message"]


async def test_a_repeat_is_shown_once_and_acknowledged_with_the_first_id(server: Server) -> None:
    async with ChatClient(server.port, "ada") as ada, ChatClient(server.port, "ada") as again:
        await ada.join("lobby")
        await again.join("lobby")
        first = await ada.send("lobby", "hello", cid="c-1")
        assert await ada.send("lobby", "hello", cid="c-1") == first
        assert await again.send("lobby", "hello", cid="c-1") == first
        await again.send("lobby", "the end")
        assert await ada.texts("lobby", 2) == ["hello", "the end"]
        assert await again.texts("lobby", 2) == ["hello", "the end"]


async def test_who_comes_back_gets_what_was_missed_and_nothing_twice(server: Server) -> None:
    async with ChatClient(server.port, "bob") as bob:
        await bob.join("lobby")
        async with ChatClient(server.port, "ada") as ada:
            await ada.join("lobby")
            await bob.send("lobby", "seen")
            position = (await ada.hear("message"))["id"]
        await bob.send("lobby", "missed 1")
        await bob.send("lobby", "missed 2")
        async with ChatClient(server.port, "ada") as ada:
            joined = await ada.join("lobby", since=position)
            await bob.send("lobby", "live")
            assert joined["recovered"] is True
            assert [message["text"] for message in joined["messages"]] == ["missed 1", "missed 2"]
            assert await ada.texts("lobby", 1) == ["live"]


async def test_position_frames_tell_how_far_a_client_has_seen(server: Server) -> None:
    async with ChatClient(server.port, "ada") as ada, ChatClient(server.port, "bob") as bob:
        start = (await ada.join("lobby"))["position"]
        await bob.join(NEIGHBOUR)
        ack = await bob.send(NEIGHBOUR, "hello")
        assert await ada.hear("position", position=ack["id"]) == {
            "type": "position",
            "room": "lobby",
            "position": ack["id"],
        }
        assert ack["id"] != start
        again = await ada.join("lobby", since=ack["id"])
        assert (again["recovered"], again["messages"]) == (True, [])
        assert again["position"] == ack["id"]


async def test_newcomers_see_the_recent_messages(replica: Replica, log: dict[str, str]) -> None:
    server = await replica(log, CHAT_RECENT="3")
    async with ChatClient(server.port, "ada") as ada, ChatClient(server.port, "bob") as bob:
        assert (await ada.join("lobby"))["messages"] == []
        for number in range(5):
            await ada.send("lobby", f"text {number}")
        joined = await bob.join("lobby")
        live = [await ada.hear("message") for _ in range(5)]
        assert joined["messages"] == live[-3:]
        assert joined["recovered"] is False


REFUSED: list[tuple[str | dict[str, Any], str]] = [
    ("no JSON at all", "bad_frame"),
    ("[" * 20000, "bad_frame"),
    ("[]", "bad_frame"),
    ({"type": "dance"}, "bad_frame"),
    ({"type": "hello", "user": "again"}, "bad_frame"),
    ({"type": "join"}, "bad_frame"),
    ({"type": "join", "room": ["lobby"]}, "bad_frame"),
    ({"type": "join", "room": "no/room"}, "bad_room"),
    ({"type": "join", "room": "x" * 65}, "bad_room"),
    ({"type": "leave", "room": "elsewhere"}, "not_joined"),
    ({"type": "send", "room": "lobby", "text": "no cid"}, "bad_frame"),
    ({"type": "send", "room": "lobby", "text": 7, "cid": "1"}, "bad_frame"),
    ({"type": "send", "room": "elsewhere", "text": "x", "cid": "1"}, "not_joined"),
    ({"type": "send", "room": "", "text": "x", "cid": "1"}, "bad_room"),
    ({"type": "send", "room": "lobby", "text": "x", "cid": ""}, "bad_cid"),
    ({"type": "send", "room": "lobby", "text": "", "cid": "1"}, "bad_text"),
    ({"type": "send", "room": "lobby", "text": "\a", "cid": "1"}, "bad_text"),
    ({"type": "send", "room": "lobby", "text": "\u202e\u3164", "cid": "1"}, "bad_text"),
    ({"type": "send", "room": "lobby", "text": "x" * 2001, "cid": "1"}, "too_long"),
    ({"type": "send", "room": "lobby", "text": "é" * 5000, "cid": "1"}, "too_long"),
]


async def test_bad_frames_are_answered_and_disturb_nobody(server: Server) -> None:
    async with ChatClient(server.port, "ada") as ada, ChatClient(server.port, "mallory") as mallory:
        await ada.join("lobby")
        await mallory.join("lobby")
        for frame, code in REFUSED:
            await mallory.ws.send(frame if isinstance(frame, str) else json.dumps(frame))
            error = await mallory.hear("error")
            assert error["code"] == code, frame
            assert error["message"]
            cid = frame.get("cid") if isinstance(frame, dict) else None
            assert error.get("cid") == cid
        # Both connections continue.
        await mallory.send("lobby", "sorry")
        await ada.send("lobby", "never mind")
        assert await ada.texts("lobby", 2) == ["sorry", "never mind"]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "join", "room": "lobby"},
        {"type": "leave", "room": "lobby"},
        {"type": "send", "room": "lobby", "text": "x", "cid": "1"},
        {"type": "ban", "room": "*", "author": "0" * 32, "seconds": 1, "cid": "1"},
        {"type": "sanctions", "room": "*", "cid": "1"},
        {"type": "ping"},
    ],
)
async def test_hello_comes_first(server: Server, frame: dict[str, str]) -> None:
    async with ChatClient(server.port, user=None) as nobody:
        assert (await nobody.refused(**frame))["code"] == "hello_required"
        await nobody.say(type="hello", user="ada")
        assert (await nobody.hear("welcome"))["user"] == "ada"


@pytest.mark.parametrize("user", ["", "   ", "a\nb", "x" * 33, "\u202eadmin"])
async def test_a_name_that_is_none_is_refused_and_another_may_be_given(
    server: Server, user: str
) -> None:
    async with ChatClient(server.port, user=None) as nobody:
        assert (await nobody.refused(type="hello", user=user))["code"] == "bad_user"
        await nobody.say(type="hello", user="ada")
        await nobody.hear("welcome")


async def test_a_client_is_in_no_more_rooms_than_allowed(
    replica: Replica, log: dict[str, str]
) -> None:
    server = await replica(log, CHAT_ROOMS_PER_CLIENT="2")
    async with ChatClient(server.port) as ada:
        await ada.join("one")
        await ada.join("two")
        assert (await ada.refused(type="join", room="three"))["code"] == "too_many_rooms"
        # Joining a room again does not count twice, and leaving frees a place.
        await ada.join("two")
        await ada.say(type="leave", room="one")
        await ada.join("three")


async def test_who_is_too_fast_is_refused_for_a_while(
    replica: Replica, log: dict[str, str]
) -> None:
    server = await replica(log, CHAT_RATE="5", CHAT_BURST="10")
    async with ChatClient(server.port, "mallory") as mallory, ChatClient(server.port) as ada:
        await mallory.join("lobby")
        await ada.join("lobby")
        for number in range(30):
            await mallory.say(type="send", room="lobby", text="spam", cid=str(number))
        error = await mallory.hear("error")
        assert (error["code"], error["cid"].isdigit()) == ("rate_limited", True)
        assert (await ada.send("lobby", "calm"))["id"]
        mallory.inbox.clear()
        async with asyncio.timeout(10):
            while True:
                await mallory.say(type="send", room="lobby", text="slowly", cid="slowly")
                if (await mallory.hear("ack", "error", cid="slowly"))["type"] == "ack":
                    break
                await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "null", "http://localhost"]
)
async def test_pages_of_other_sites_are_refused_before_the_upgrade(
    replica: Replica, origin: str
) -> None:
    server = await replica()
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(
            f"ws://127.0.0.1:{server.port}/ws", origin=websockets.Origin(origin)
        )
    assert refused.value.response.status_code == 403


async def test_its_own_page_allowed_sites_and_programs_may_connect(replica: Replica) -> None:
    server = await replica(CHAT_ALLOWED_ORIGINS="https://friend.example")
    for origin in (None, f"http://127.0.0.1:{server.port}", "https://friend.example"):
        async with ChatClient(server.port, origin=origin) as client:
            assert client.welcome


async def test_the_page_may_load_nothing_from_elsewhere(replica: Replica) -> None:
    server = await replica()
    for path, kind in (
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/connection.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ):
        response = await get(server.port, path)
        assert response.code == 200
        assert response.headers["Content-Type"].startswith(kind)
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-cache"


async def test_the_page_is_small_on_the_way_and_comes_again_only_when_it_changed(
    replica: Replica,
) -> None:
    server = await replica()

    async def get(path: str, encoding: str, etag: str = "") -> HTTPResponse:
        return await AsyncHTTPClient().fetch(
            f"http://127.0.0.1:{server.port}{path}",
            headers={"Accept-Encoding": encoding, "If-None-Match": etag},
            decompress_response=False,
            raise_error=False,
        )

    total = 0
    files = {file.name for file in (ROOT / "chat" / "web").iterdir()}
    # The document is at /. Only systems on which the page is installed request the icon.
    files -= {"index.html", "icon.png", *LATER}
    for path in ("/", *(f"/{name}" for name in files)):
        plain, compressed = await get(path, "identity"), await get(path, "br, gzip")
        assert "Content-Encoding" not in plain.headers
        assert compressed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(compressed.body) == plain.body
        etag = compressed.headers["Etag"]
        assert etag != plain.headers["Etag"]
        assert (await get(path, "gzip", etag)).code == 304
        for refused in ("gzip;q=0", "br, gzip ; q=0.00, identity"):
            assert (await get(path, refused)).headers["Etag"] == plain.headers["Etag"]
        for wanted in ("gzip;q=0.5", "identity;q=0, gzip; q=1.0"):
            assert (await get(path, wanted)).headers["Etag"] == etag
        total += len(compressed.body)
    assert total <= 45_000


async def test_what_the_page_names_never_changes_and_is_kept(replica: Replica) -> None:
    server = await replica()
    page = (await get(server.port, "/")).body.decode()
    named = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(named) > 10
    for name in named:
        response = await get(server.port, f"/{name}")
        always = name not in ("manifest.webmanifest", "icon.png")
        expected = "max-age=31536000, immutable" if always else "no-cache"
        assert response.headers["Cache-Control"] == expected, name
    # During a rollout, a document of another replica asks for its files: it gets this replica's,
    # uncached.
    other = await get(server.port, "/0123456789ab/app.js")
    assert (other.code, other.headers["Cache-Control"]) == (200, "no-cache")
    assert other.body == (await get(server.port, "/app.js")).body


@pytest.mark.parametrize("path", ["/nope", "/app.py", "/../settings.py", "/metrics", "/readyz"])
async def test_the_public_port_has_the_page_and_nothing_else(replica: Replica, path: str) -> None:
    server = await replica()
    response = await get(server.port, path)
    assert response.code == 404
    assert b"Traceback" not in response.body


async def test_ws_without_an_upgrade_is_a_bad_request(replica: Replica) -> None:
    server = await replica()
    assert (await get(server.port, "/ws")).code == 400


async def test_health_and_metrics_are_on_a_port_of_their_own(server: Server) -> None:
    async with ChatClient(server.port) as ada:
        await ada.join("lobby")
        await ada.send("lobby", "hello")
        await ada.refused(type="dance")
        for path in ("/livez", "/readyz"):
            response = await get(server.internal_port, path)
            assert (response.code, response.body) == (200, b"ok\n")
        metrics = (await get(server.internal_port, "/metrics")).body.decode()
    for line in (
        "chat_clients 1.0",
        "chat_messages_total 1.0",
        "chat_deliveries_total 1.0",
        'chat_refusals_total{code="bad_frame"} 1.0',
        "chat_relay_up 1.0",
        "chat_relay_caught_up 1.0",
        "chat_round_trip_seconds_count 1.0",
    ):
        assert line in metrics.splitlines()


async def test_who_never_says_hello_is_sent_away(replica: Replica) -> None:
    server = await replica(CHAT_HELLO_SECONDS="0.1")
    async with ChatClient(server.port, user=None) as nobody:
        assert await nobody.closed() == (1008, "say hello in time")
    async with ChatClient(server.port) as ada:
        await asyncio.sleep(0.2)
        await ada.join("lobby")


async def test_who_does_not_read_is_sent_away_and_can_resume(replica: Replica) -> None:
    server = await replica(CHAT_OUTBOX_BYTES="65536", CHAT_TEXT_GRAPHEMES="8192")
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        # It reads only what fits into the buffers in between.
        async with ChatClient(server.port, "slow", max_queue=1) as slow:
            await slow.join("lobby")
            await slow.join("garden")
            sent = 0
            while b'chat_closes_total{code="1013"} 1.0' not in server.metrics_text():
                await ada.send("lobby", "x" * 8000, cid=str(sent))
                sent += 1
            code, reason = await slow.closed()
            assert code == 1013
            assert "last position" in reason
            seen = [frame for frame in slow.inbox if frame["type"] == "message"]
            # The last frames are the positions at which it was cut off.
            last = sorted(slow.inbox[-2:], key=lambda frame: frame["room"])
            assert [frame["room"] for frame in last] == ["garden", "lobby"]
            position = last[1]["position"]
        async with ChatClient(server.port, "slow") as slow:
            joined = await slow.join("lobby", since=position)
            assert joined["recovered"]
            cids = [int(frame["cid"]) for frame in (*seen, *joined["messages"])]
            assert cids == list(range(sent))


async def test_who_talks_without_listening_is_not_listened_to_for_a_while(
    replica: Replica,
) -> None:
    """The answers would pile up, so the server stops reading until the client reads."""
    server = await replica(CHAT_OUTBOX_BYTES="65536", CHAT_RATE="100000", CHAT_BURST="100000")
    total = 60_000
    async with ChatClient(server.port, max_queue=1) as rude:

        async def talk() -> None:
            for _ in range(total):
                await rude.ws.send('{"type":"?"}')

        talking = asyncio.create_task(talk())
        # Wait until nothing advances any more.
        before = -1
        while (now := refusals(server)) != before:
            before = now
            await asyncio.sleep(0.3)
        assert now < total
        for _ in range(total):
            assert b"bad_frame" in await rude.ws.recv(decode=False)
        await talking


def refusals(server: Server) -> int:
    counted = re.search(rb'chat_refusals_total{code="bad_frame"} (\d+)', server.metrics_text())
    return int(counted[1]) if counted else 0


async def test_a_restart_tells_clients_when_to_come_back(replica: Replica) -> None:
    server = await replica(CHAT_DRAIN_DELAY_SECONDS="0.3")
    async with ChatClient(server.port) as ada:
        await ada.join("lobby")
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0.05)
        # Clients stay connected until the edge sends nobody here any more.
        assert (await get(server.internal_port, "/readyz")).code == 503
        assert (await get(server.internal_port, "/livez")).code == 200
        await ada.send("lobby", "still here")
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"ws://127.0.0.1:{server.port}/ws")
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["Retry-After"]) > 0
        bye = await ada.hear("bye")
        assert bye["reason"] == "restart"
        assert 0 < bye["retry_after"] <= 1
        code, reason = await ada.closed()
        assert code == 1012
        assert reason.startswith("restart; retry_after=")
        await draining


async def sees(client: ChatClient, room: str, *users: str) -> None:
    """Wait until the client has this list of the room, kept as docs/protocol.md describes."""
    seen: set[str] = set()
    while seen != set(users):
        frame = await client.hear("presence", room=room)
        if "users" in frame:
            seen = set(frame["users"])
        seen = seen - set(frame.get("left", ())) | set(frame.get("joined", ()))
        assert len(seen) == frame["count"]


async def test_everyone_is_told_who_is_in_the_room_and_who_comes_and_goes(server: Server) -> None:
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        await sees(ada, "lobby", "ada")
        async with ChatClient(server.port, "bob") as bob:
            await bob.join("lobby")
            await sees(bob, "lobby", "ada", "bob")
            await bob.say(type="leave", room="lobby")
            assert (await ada.hear("presence", left=["bob"]))["count"] == 1
            await bob.join("lobby")
            assert (await ada.hear("presence", joined=["bob"]))["count"] == 2
        assert (await ada.hear("presence", left=["bob"]))["count"] == 1


async def test_typing_is_told_to_the_others_and_is_no_history(server: Server) -> None:
    async with ChatClient(server.port, "ada") as ada, ChatClient(server.port, "bob") as bob:
        await ada.join("lobby")
        await bob.join("lobby")
        for _ in range(3):
            await ada.say(type="typing", room="lobby")
        frame = {"type": "typing", "room": "lobby", "user": "ada", "seconds": 6}
        assert await bob.hear("typing") == frame
        await ada.send("lobby", "written")
        assert await bob.texts("lobby", 1) == ["written"]
        for client in (ada, bob):
            assert not [frame for frame in client.inbox if frame["type"] == "typing"]
        assert len((await bob.join("lobby"))["messages"]) == 1
        error = await ada.refused(type="typing", room="kafka")
        assert (error["code"], error["room"]) == ("not_joined", "kafka")


async def test_a_name_is_one_persons_in_a_room(server: Server) -> None:
    async with (
        ChatClient(server.port, "ada") as ada,
        ChatClient(server.port, "ada") as again,
        ChatClient(server.port, user=None) as mallory,
    ):
        await ada.join("lobby")
        await again.join("lobby")
        await mallory.say(type="hello", user="ADA")
        await mallory.hear("welcome")
        error = await mallory.refused(type="join", room="lobby")
        assert (error["code"], error["room"]) == ("name_taken", "lobby")
        error = await mallory.refused(type="send", room="lobby", text="I am Ada", cid="1")
        assert error["code"] == "not_joined"
        await mallory.join("kafka")


async def test_what_was_said_before_is_read_back_page_by_page(
    replica: Replica, log: dict[str, str]
) -> None:
    server = await replica(log, CHAT_WINDOW="10", CHAT_RECENT="3", CHAT_PAGE="7")
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        for number in range(40):
            await ada.send("lobby", f"text {number}")
        messages = (await ada.join("lobby"))["messages"]
        before = messages[0]["id"]
        while True:
            await ada.say(type="history", room="lobby", before=before, limit=100)
            page = await ada.hear("history", room="lobby", before=before)
            assert len(page["messages"]) <= 7
            messages = page["messages"] + messages
            before = page["position"]
            if not page["more"]:
                break
        assert messages == [await ada.hear("message") for _ in range(40)]
        error = await ada.refused(type="history", room="lobby", before="yesterday")
        assert (error["code"], error["room"]) == ("bad_position", "lobby")
        error = await ada.refused(type="history", room="kafka", before=before)
        assert error["code"] == "not_joined"


async def test_who_loses_a_name_to_another_replica_is_told_and_is_out(replica: Replica) -> None:
    server = await replica()
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        first = {
            "type": "snapshot",
            "v": 1,
            "replica": "0" * 32,
            "seq": 1,
            "people": {"lobby": {"Ada": ["f" * 16, 1]}},
        }
        server.relay.signal(json.dumps(first).encode())
        error = await ada.hear("error")
        assert (error["code"], error["room"]) == ("name_taken", "lobby")
        await ada.hear("left", room="lobby")
        error = await ada.refused(type="send", room="lobby", text="I am still here", cid="1")
        assert error["code"] == "not_joined"
