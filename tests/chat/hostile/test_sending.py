"""Bodies of requests: nothing of them is read for strangers, none is too large, and whatever they
are, the client gets an answer that says what was wrong.
"""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from chat_client import ChatClient
from conftest import Replica, until
from provider import Provider
from test_http import answers_of

from chat.auth.backchannel import BackchannelHandler
from chat.auth.bearer import Refusal
from chat.listener import MOST_DISCARDED
from chat.relay.base import Record
from chat.sending import SendHandler
from chat.server import Server

PATH = "/api/rooms/lobby/messages"
FRAME_BYTES = 32_768


@pytest.fixture
async def server(replica: Replica, provider: Provider) -> Server:
    return await replica(provider.environment(), CHAT_FRAME_BYTES=str(FRAME_BYTES))


async def post(
    server: Server, body: bytes, path: str = PATH, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """The status, headers and body of the answer. What cannot be sent any more is not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    headers = {"Host": "localhost"} | headers
    if "Transfer-Encoding" not in headers:
        headers.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())
    writer.write(body)
    try:
        async with asyncio.timeout(10):
            start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            got = dict(line.split(": ", 1) for line in lines)
            answer = await reader.readexactly(int(got["Content-Length"]))
            if got.get("Connection") == "close":
                # There is one answer, and no other behind it, which might be taken for that of the
                # next request.
                rest = await reader.read()
                assert rest == b"", rest
    finally:
        writer.close()
    is_json = got["Content-Type"] == "application/json"
    return int(start.split()[1]), got, json.loads(answer) if is_json else answer.decode()


@pytest.mark.parametrize("token", [None, "Bearer forged", "Basic YTpi"])
async def test_strangers_are_answered_before_anything_of_a_body_is_read(
    server: Server, token: str | None
) -> None:
    headers = {"Authorization": token} if token else {}
    # It never comes.
    status, got, answer = await post(server, b"", **headers, **{"Content-Length": "20000"})
    assert (status, got["Connection"]) == (401, "close")
    assert got["Www-Authenticate"].startswith("Bearer")
    assert answer["error"]
    # It comes, and does not cost the answer.
    status, _, _ = await post(server, b"x" * 60_000, **headers)
    assert status == 401


@pytest.mark.parametrize("size", [FRAME_BYTES + 1, FRAME_BYTES + MOST_DISCARDED - 10_000])
async def test_a_body_that_is_too_large_is_refused_with_the_limit(
    server: Server, provider: Provider, size: int
) -> None:
    status, _, answer = await post(server, b"x" * size, **provider.headers())
    assert (status, f"CHAT_FRAME_BYTES={FRAME_BYTES}" in answer["error"]) == (413, True)


async def test_who_sends_without_end_is_refused_with_the_limit_and_cut(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = 0
    receive = SendHandler.data_received

    def count(handler: SendHandler, chunk: bytes) -> None:
        nonlocal got
        got += len(chunk)
        receive(handler, chunk)

    monkeypatch.setattr(SendHandler, "data_received", count)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n"
    head += f"Authorization: {provider.headers()['Authorization']}\r\n\r\n"
    writer.write(head.encode())
    sent = 0
    while sent <= FRAME_BYTES + MOST_DISCARDED:
        writer.write(b"x" * 1024)
        sent += 1024
        # One after the other: what the server has not read when it hangs up costs the answer.
        await until(lambda: got == sent)  # noqa: B023 - it is called at once
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert b" 413 " in answer
    assert f"CHAT_FRAME_BYTES={FRAME_BYTES}".encode() in answer
    writer.close()


@pytest.mark.parametrize("path", [PATH, "/api/backchannel-logout"])
async def test_a_body_in_chunks_is_refused_before_any_of_them_is_read(
    server: Server, provider: Provider, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    for handler in (SendHandler, BackchannelHandler):
        monkeypatch.setattr(handler, "data_received", lambda _, chunk: read.append(chunk))
    chunks = b"1\r\nx\r\n" * 8_000 + b"0\r\n\r\n"
    chunked = provider.headers() | {"Transfer-Encoding": "chunked"}
    status, got, why = await post(server, chunks, path, **chunked)
    assert (status, "Content-Length" in why, read) == (411, True, [])
    assert got["Connection"] == "close"


async def test_a_program_sends_one_after_the_other_on_one_connection(
    server: Server, provider: Provider
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    token = provider.headers()["Authorization"]
    bodies = [json.dumps({"text": f"{number}", "cid": f"{number}"}) for number in range(3)]
    for body in (*bodies, "junk", bodies[0]):
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
    codes = []
    async with asyncio.timeout(10):
        for _ in range(5):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            codes.append(int(head.split()[1]))
            await reader.readexactly(int(head.split("Content-Length: ")[1].split()[0]))
    assert codes == [200, 200, 200, 400, 200]
    writer.close()


async def test_a_path_that_cannot_be_read_is_no_room(server: Server, provider: Provider) -> None:
    body = b'{"text": "x", "cid": "1"}'
    status, _, answer = await post(server, body, "/api/rooms/%ff/messages", **provider.headers())
    assert (status, "no such room" in answer["error"]) == (400, True)
    assert (await post(server, body, "/api/rooms/%ff/messages"))[0] == 401


async def test_who_hangs_up_has_sent_what_arrived_and_nothing_else(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    append = server.relay.append
    monkeypatch.setattr(server.relay, "append", lambda record: append(record) and held)
    body = b'{"text": "x", "cid": "1"}'
    async with ChatClient(server.port, additional_headers=provider.headers("bob")) as bob:
        await bob.join("lobby")
        # In the middle of the body, and before the answer.
        for part in (body[:10], body):
            writer = await start(server, provider, body)
            writer.write(part)
            await writer.drain()
            writer.close()
        assert (await bob.hear("message"))["text"] == "x"
        await until(lambda: not server._public_listener.pending)
        await bob.send("lobby", "seen")
        assert (await bob.hear("message"))["text"] == "seen"


async def start(server: Server, provider: Provider, body: bytes) -> asyncio.StreamWriter:
    """Send the head of a request for this body."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    token = provider.headers()["Authorization"]
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    return writer


async def test_nothing_is_kept_for_who_waits_no_more_for_a_slow_log(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    taken: list[Record] = []
    monkeypatch.setattr(server.relay, "append", lambda record: taken.append(record) or held)
    body = b'{"text": "x", "cid": "1"}'
    writer = await start(server, provider, body)
    writer.write(body)
    await until(lambda: bool(taken))
    assert len(handlers()) == 1
    writer.close()
    await until(lambda: not handlers())


async def test_nothing_is_kept_for_who_hangs_up_while_the_token_is_verified(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    taken: list[Record] = []
    monkeypatch.setattr(server.relay, "append", lambda record: taken.append(record) or held)
    authenticate = SendHandler.authenticate
    verified = asyncio.Event()
    gone = asyncio.Event()

    async def slowly(handler: SendHandler) -> Refusal | None:
        if handler._whole:
            await verified.wait()
        return await authenticate(handler)

    def tell(handler: SendHandler) -> None:
        close(handler)
        gone.set()

    close = SendHandler.on_connection_close
    monkeypatch.setattr(SendHandler, "authenticate", slowly)
    monkeypatch.setattr(SendHandler, "on_connection_close", tell)
    body = b'{"text": "x", "cid": "1"}'
    writer = await start(server, provider, body)
    writer.write(body)
    await until(lambda: any(one._whole for one in handlers()))
    writer.close()
    await gone.wait()
    verified.set()
    await until(lambda: bool(taken))
    await until(lambda: not handlers())


def handlers() -> list[SendHandler]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, SendHandler)]


async def test_who_signs_out_between_head_and_body_has_sent_nothing(
    server: Server, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is taken, and only then the token is revoked."""
    body = b'{"text": "x", "cid": "1"}'
    answered = answers_of(server, monkeypatch)
    known = asyncio.Event()
    require = SendHandler._require_identity

    async def tell(handler: SendHandler) -> None:
        await require(handler)
        known.set()

    monkeypatch.setattr(SendHandler, "_require_identity", tell)
    writer = await start(server, provider, body)
    await known.wait()
    assert server._revocations is not None
    monkeypatch.setattr(server._revocations, "cover", lambda _: True)
    writer.write(body)
    await until(lambda: bool(answered))
    assert answered == [401]
    writer.close()


@pytest.mark.parametrize("known", [False, True])
async def test_each_request_is_charged_to_its_address(
    replica: Replica, provider: Provider, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    monkeypatch.setattr("chat.server.REQUEST_BURST", 20)
    monkeypatch.setattr("chat.server.REQUEST_RATE", 0.001)
    server = await replica(provider.environment())
    answered = answers_of(server, monkeypatch)
    headers = provider.headers() if known else {}
    for _ in range(20):
        await post(server, b"junk", **headers)
    assert answered == [400 if known else 401] * 20
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await post(server, b"junk", **headers)
    assert len(answered) == 20
