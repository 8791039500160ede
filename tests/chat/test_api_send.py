"""Messages sent over HTTP: by who is known, once, under the same rules as over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import conftest
import pytest
from chat_client import ChatClient
from conftest import Replica, until
from provider import Provider
from tornado.httpclient import AsyncHTTPClient
from tornado.simple_httpclient import HTTPStreamClosedError

from chat import rights
from chat.protocol import Ack
from chat.relay.base import Record, UnavailableError
from chat.relay.memory import MemoryLog, MemoryRelay
from chat.room import Person, frame_of
from chat.server import Server
from chat.waiting import Waiting

ROOMS = [
    {"rooms": "news", "write": ["press"]},
    {"rooms": "staff", "read": ["staff"]},
    {"rooms": "*"},
]


async def send(
    server: Server, body: Any, room: str = "lobby", **headers: str
) -> tuple[int, dict[str, Any]]:
    answer = await AsyncHTTPClient().fetch(
        f"http://127.0.0.1:{server.port}/api/rooms/{room}/messages",
        method="POST",
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers=headers,
        raise_error=False,
    )
    return answer.code, json.loads(answer.body)


@pytest.fixture
async def server(replica: Replica, provider: Provider) -> Server:
    return await replica(provider.environment(groups_claim="groups"), CHAT_ROOMS=json.dumps(ROOMS))


async def test_what_is_sent_is_shown_once_however_often_it_is_sent(
    server: Server, provider: Provider
) -> None:
    async with ChatClient(server.port, additional_headers=provider.headers("bob")) as bob:
        await bob.join("lobby")
        deploy = {"text": "Deployed \u200b1.2", "cid": "deploy-1.2"}
        first, *others = await asyncio.gather(
            *(send(server, deploy, **provider.headers("ci")) for _ in range(3))
        )
        message = await bob.hear("message")
        assert first == (200, {"room": "lobby", "id": message["id"], "cid": "deploy-1.2"})
        assert others == [first, first]
        assert (message["user"], message["text"]) == ("ci", deploy["text"])
        assert await send(server, deploy, **provider.headers("ci")) == first
        code, answer = await send(server, deploy | {"text": "Other"}, **provider.headers("ci"))
        assert (code, "cid" in answer["error"]) == (409, True)
        await bob.send("lobby", "seen")
        assert (await bob.hear("message"))["text"] == "seen"
        # Whoever sends so is in no room.
        assert not [one for one in bob.inbox if "ci" in one.get("joined", [])]


@pytest.mark.parametrize(
    ("body", "room", "status", "said"),
    [
        (b"", "lobby", 400, 'Send {"text": "...", "cid": "..."} in JSON'),
        (b"\xff{}", "lobby", 400, "in JSON"),
        (b"[" * 5000, "lobby", 400, "in JSON"),
        ({"text": "no cid"}, "lobby", 400, "missing required field `cid`"),
        ({"text": "", "cid": "1"}, "lobby", 400, ""),
        ({"text": "x", "cid": ""}, "lobby", 400, "cid"),
        ({"text": "x" * 9000, "cid": "1"}, "lobby", 413, ""),
        ({"text": "x", "cid": "1"}, "news", 403, "You may read news, but not write in it."),
        ({"text": "x", "cid": "1"}, "staff", 400, "There is no such room"),
        ({"text": "x", "cid": "1"}, "no!room", 400, "There is no such room"),
    ],
)
async def test_what_may_not_be_is_refused_and_not_sent(
    server: Server, provider: Provider, body: Any, room: str, status: int, said: str
) -> None:
    code, answer = await send(server, body, room, **provider.headers())
    assert (code, said in answer["error"]) == (status, True), answer
    async with ChatClient(server.port, additional_headers=provider.headers("bob")) as bob:
        assert (await bob.join("lobby"))["messages"] == []


async def test_the_rules_let_those_of_a_group_write(server: Server, provider: Provider) -> None:
    for room, group in (("news", "press"), ("staff", "staff")):
        code, answer = await send(
            server, {"text": "x", "cid": "1"}, room, **provider.headers(groups=[group])
        )
        assert code == 200, answer


async def test_nobody_sends_under_the_name_of_somebody_who_is_there(
    server: Server, provider: Provider
) -> None:
    async with ChatClient(server.port, additional_headers=provider.headers("ada")) as ada:
        await ada.join("lobby")
        other = provider.headers("ada", sub="another one")
        code, answer = await send(server, {"text": "x", "cid": "1"}, **other)
        assert code == 409
        assert "ada" in answer["error"]
        # The same person may, while they are there.
        assert (await send(server, {"text": "x", "cid": "1"}, **provider.headers()))[0] == 200


async def test_a_retry_of_what_was_sent_is_the_same_message_whoever_has_the_name_meanwhile(
    server: Server, provider: Provider
) -> None:
    mine, other = provider.headers("ada"), provider.headers("ada", sub="another one")
    first = await send(server, {"text": "x", "cid": "1"}, **mine)
    assert first[0] == 200
    async with ChatClient(server.port, additional_headers=other) as ada:
        await ada.join("lobby")
        assert await send(server, {"text": "x", "cid": "1"}, **mine) == first
        assert (await send(server, {"text": "other", "cid": "1"}, **mine))[0] == 409
        code, answer = await send(server, {"text": "x", "cid": "2"}, **mine)
        assert (code, "ada" in answer["error"]) == (409, True)


async def test_a_retry_while_the_first_one_is_on_its_way_is_the_same_message(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Record] = []
    held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    append = server.relay.append
    monkeypatch.setattr(server.relay, "append", lambda record: taken.append(record) or held)
    mine, other = provider.headers("ada"), provider.headers("ada", sub="another one")
    sending = [asyncio.create_task(send(server, {"text": "x", "cid": "1"}, **mine))]
    await until(lambda: bool(taken))
    async with ChatClient(server.port, additional_headers=other) as ada:
        await ada.join("lobby")
        sending.append(asyncio.create_task(send(server, {"text": "x", "cid": "1"}, **mine)))
        (pending,) = server._hub._acks._pending.values()
        await until(lambda: sending[1].done() or len(pending.senders) == 2)
        append(*taken)
        held.set_result(None)
        first, again = await asyncio.gather(*sending)
        assert first == again
        assert first[0] == 200


async def test_a_retry_of_what_was_sent_is_the_same_message_with_or_without_the_right_to_write(
    server: Server, provider: Provider
) -> None:
    press = provider.headers(groups=["press"])
    first = await send(server, {"text": "x", "cid": "1"}, "news", **press)
    assert first[0] == 200
    assert await send(server, {"text": "x", "cid": "1"}, "news", **provider.headers()) == first
    assert (await send(server, {"text": "x", "cid": "2"}, "news", **provider.headers()))[0] == 403
    async with ChatClient(server.port, additional_headers=provider.headers()) as ada:
        await ada.join("news")
        await ada.say(type="send", room="news", text="x", cid="1")
        assert (await ada.hear("ack", "error")).get("id") == first[1]["id"]
        error = await ada.refused(type="send", room="news", text="x", cid="2")
        assert error["code"] == "read_only"


async def test_pages_of_other_sites_send_nothing_in_the_name_of_who_looks_at_them(
    server: Server, provider: Provider
) -> None:
    """A browser sends the cookie, and the proxy makes a token of it: both are there."""
    signed_in = provider.headers() | {"Cookie": "_oauth2_proxy=x", "Content-Type": "text/plain"}
    message = {"text": "x", "cid": "1"}
    for page in (
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        code, answer = await send(server, message, **signed_in, **page)
        assert (code, "not allowed" in answer["error"]) == (403, True), page
    assert (await send(server, message, Cookie="_oauth2_proxy=x"))[0] == 401
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert (await send(server, message, **signed_in, **own))[0] == 200


async def test_where_nobody_signs_in_nobody_sends(replica: Replica) -> None:
    code, answer = await send(await replica(), {"text": "x", "cid": "1"})
    assert (code, "sites with sign-in" in answer["error"]) == (403, True)


async def test_who_sends_too_fast_is_told_so_from_wherever_they_send(
    replica: Replica, provider: Provider
) -> None:
    limits = {"CHAT_RATE": "1", "CHAT_BURST": "2", "CHAT_TRUSTED_PROXIES": "127.0.0.0/8"}
    server = await replica(provider.environment(), limits)

    async def code(user: str, address: str, cid: str) -> int:
        headers = provider.headers(user) | {"X-Forwarded-For": address}
        status, answer = await send(server, {"text": "x", "cid": cid}, **headers)
        assert status == 200 or "at most 1 messages per second" in answer["error"]
        return status

    codes = [await code("ci", f"192.0.2.{number}", str(number)) for number in range(4)]
    assert codes[:2] == [200, 200]
    assert 429 in codes[2:]
    assert await code("bob", "192.0.2.0", "1") == 200


async def test_all_of_an_address_share_its_rate_with_its_sockets(
    replica: Replica, provider: Provider
) -> None:
    limits = {"CHAT_ADDRESS_RATE": "1", "CHAT_ADDRESS_BURST": "4"}
    server = await replica(provider.environment(), limits)
    async with ChatClient(server.port, additional_headers=provider.headers("bob")) as bob:
        await bob.join("lobby")  # After hello.
        codes = [
            await send(server, {"text": "x", "cid": "1"}, **provider.headers(f"ci-{number}"))
            for number in range(4)
        ]
    assert codes[0][0] == 200
    assert (codes[3][0], "your address" in codes[3][1]["error"]) == (429, True)


async def test_while_the_log_is_away_a_program_is_told_to_retry_and_it_is_sent_once(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Record) -> asyncio.Future[None]:
        raise UnavailableError("Kafka cannot be reached: try again.")

    append = server.relay.append

    def lost(record: Record) -> asyncio.Future[None]:
        """The log takes it, and the answer is lost on the way."""
        append(record)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.set_exception(UnavailableError("Kafka did not take the message: no answer."))
        return answer

    deploy = {"text": "Deployed", "cid": "deploy"}
    async with ChatClient(server.port, additional_headers=provider.headers("bob")) as bob:
        await bob.join("lobby")
        for trouble, why in ((away, "cannot be reached"), (lost, "did not take")):
            monkeypatch.setattr(server.relay, "append", trouble)
            code, answer = await send(server, deploy, **provider.headers("ci"))
            assert (code, why in answer["error"]) == (503, True)
        monkeypatch.undo()
        code, answer = await send(server, deploy, **provider.headers("ci"))
        assert (code, answer["id"]) == (200, (await bob.hear("message"))["id"])
        await bob.send("lobby", "seen")
        assert (await bob.hear("message"))["text"] == "seen", "it came once"


async def test_an_answer_to_who_does_not_wait_any_more_is_dropped() -> None:
    waiting = Waiting(Person.without_key("ci"), rights.ALL, "192.0.2.1")
    waiting.id.cancel()
    waiting.push(frame_of(Ack("1", "log:0:1")))


async def test_a_retry_on_another_replica_is_the_same_message(
    replica: Replica, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    monkeypatch.setattr(conftest, "relay_for", lambda _: MemoryRelay(log))
    one, other = [await replica(provider.environment()) for _ in range(2)]
    first = await send(one, {"text": "x", "cid": "1"}, **provider.headers())
    assert first[0] == 200
    assert await send(other, {"text": "x", "cid": "1"}, **provider.headers()) == first
    async with ChatClient(one.port, additional_headers=provider.headers("bob")) as bob:
        assert len((await bob.join("lobby"))["messages"]) == 1


async def test_a_restart_answers_what_is_on_its_way_as_long_as_it_may_wait(
    replica: Replica, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica(provider.environment(), CHAT_DRAIN_SECONDS="5")
    taken: list[Record] = []
    held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    append = server.relay.append
    monkeypatch.setattr(server.relay, "append", lambda record: taken.append(record) or held)
    sending = asyncio.create_task(send(server, {"text": "x", "cid": "1"}, **provider.headers()))
    await until(lambda: bool(taken))
    draining = asyncio.create_task(server.drain())
    await until(lambda: not server._public_listener._sockets or sending.done())
    append(*taken)
    held.set_result(None)
    assert (await sending)[0] == 200
    await draining


async def test_a_restart_does_not_wait_for_a_log_that_does_not_answer(
    replica: Replica,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = await replica(provider.environment(), CHAT_DRAIN_SECONDS="0.5")
    taken: list[Record] = []
    held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(server.relay, "append", lambda record: taken.append(record) or held)
    sending = asyncio.create_task(send(server, {"text": "x", "cid": "1"}, **provider.headers()))
    await until(lambda: bool(taken))
    async with asyncio.timeout(5):
        await server.drain()
    assert "requests that send and get no answer: 1" in caplog.text
    with pytest.raises(HTTPStreamClosedError):
        await sending
