"""Nobody keeps others from reading over HTTP: not who asks for what is not there, not who hangs up,
not who asks too often.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
from chat_client import ChatClient
from conftest import Process, Replica, until
from test_api import said
from test_floods import UPGRADE
from test_server import get

from chat.api import MessagesHandler
from chat.archive import Page
from chat.listener import FIRST_REQUESTS, HEAD_READS, PendingStream
from chat.protocol import Position
from chat.relay.base import Portion
from chat.server import PAGE, Server

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

    async def never(partition: int, after: int, upto: int) -> Portion:
        await asyncio.Event().wait()
        raise AssertionError(partition, after, upto)

    monkeypatch.setattr(server._hub._history._archive, "_read", never)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await until(lambda: server._turns.taken == 1)
    assert (await get(server.port, PATH)).code == 429, "the address has its half"
    writer.close()
    await until(lambda: not server._turns.taken)


async def test_requests_that_come_too_early_wait_in_the_kernel(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica(CHAT_API_REQUESTS="2")

    async def never(*_: object) -> Page:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(MessagesHandler, "_find", never)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 10_000)
    await until(lambda: server._turns.taken == 1)
    (stream,) = server._public_listener._pending
    assert stream._read_buffer_size <= 8192
    writer.close()


async def test_who_asks_too_often_is_told_so_and_others_are_answered(replica: Replica) -> None:
    server = await replica(CHAT_API_RATE="1", CHAT_TRUSTED_PROXIES="127.0.0.1/32")
    one, other = ({"X-Forwarded-For": f"192.0.2.{number}"} for number in (1, 2))
    codes = [(await get(server.port, PATH, **one)).code for _ in range(7)]
    assert codes[:5] == [200] * 5
    assert codes[6] == 429
    assert (await get(server.port, PATH, **other)).code == 200


async def ask(
    port: int, requests: Sequence[bytes], address: str = "127.0.0.2", headers: str = ""
) -> list[int]:
    """Send requests without waiting for answers; return the status of each. If the server hangs up,
    answers may be lost.
    """
    more = f"HTTP/1.1\r\nHost: localhost\r\n{headers}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    for request in requests:
        writer.write(request + f" {more}\r\n".encode())
    writer.write(f"GET /end {more}Connection: close\r\n\r\n".encode())
    try:
        async with asyncio.timeout(30):
            answers = await reader.read()
    except OSError:
        answers = b""
    writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", answers)]


def answers_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The status of each answer on the public port from now on."""
    answers: list[int] = []
    monkeypatch.setitem(
        server._public.request_callback.settings,  # type: ignore[union-attr]
        "log_function",
        lambda handler: answers.append(handler.get_status()),
    )
    return answers


REQUESTS = {
    "a page that is missing": b"GET /nothing",
    "a page": b"GET /app.js",
    "another method": b"BREW /",
    "a path that cannot be read": b"GET /api/rooms/%ff/messages",
    "messages": b"GET /api/rooms/lobby/messages",
    "a WebSocket that is none": b"GET /ws",
}


@pytest.fixture
def twenty_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address may ask twenty times, and nearly never again."""
    monkeypatch.setattr("chat.server.REQUEST_BURST", 20)
    monkeypatch.setattr("chat.server.REQUEST_RATE", 0.001)


@pytest.mark.usefixtures("twenty_requests")
@pytest.mark.parametrize("request_line", REQUESTS.values(), ids=REQUESTS)
async def test_each_request_is_charged_to_its_address_whatever_becomes_of_it(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, request_line: bytes
) -> None:
    server = await replica()
    answered = answers_of(server, monkeypatch)
    await ask(server.port, [request_line] * 100)
    assert len(answered) == 21
    # It is not even listened to, and others are.
    assert await ask(server.port, [request_line]) == []
    assert len(answered) == 21
    assert b'reason="address_requests"} 1.0' in server.metrics_text()
    assert await ask(server.port, [], "127.0.0.3") == [404]
    # Probes of the kubelet are not requests of the public.
    for _ in range(30):
        assert (await get(server.internal_port, "/livez")).code == 200


@pytest.mark.usefixtures("twenty_requests")
async def test_a_request_is_charged_by_its_size(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica()
    answered = answers_of(server, monkeypatch)
    await ask(server.port, [b"GET /nothing"] * 10, headers=f"X: {'x' * 9 * 1024}\r\n")
    assert answered == [404, 404, 429]


async def test_a_request_of_many_lines_is_not_read(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica()
    answered = answers_of(server, monkeypatch)
    assert await ask(server.port, [b"GET /nothing"] * 5, headers="X: y\r\n" * 200) == []
    assert not answered
    assert b'reason="headers"} 1.0' in server.metrics_text()
    assert await ask(server.port, [b"GET /app.js"], headers="X: y\r\n" * 50) == [200, 404]


@pytest.mark.usefixtures("twenty_requests")
async def test_behind_a_proxy_requests_are_charged_to_its_clients(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica(CHAT_TRUSTED_PROXIES="127.0.0.0/8", CHAT_ADDRESS_CLIENTS="5")
    answered = answers_of(server, monkeypatch)
    one, other = (f"X-Forwarded-For: 192.0.2.{number}\r\n" for number in (1, 2))
    await ask(server.port, [b"GET /"] * 100, headers=one)
    assert answered == [200] * 20 + [429]
    assert await ask(server.port, [], headers=one) == [429]
    assert await ask(server.port, [b"GET /"] * 10, headers=other) == [200] * 10 + [404]
    # Clients that come and go are, too: so many at once as may be here.
    codes = []
    for _ in range(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(UPGRADE.replace(b"\r\n", b"\r\nX-Forwarded-For: 192.0.2.3\r\n", 1))
        codes.append(int((await reader.readuntil(b"\r\n\r\n")).split()[1]))
        writer.close()
        await until(lambda: not server._clients)
    assert codes == [101] * 25 + [429] * 5


async def test_many_people_of_one_address_load_the_page_at_once(replica: Replica) -> None:
    server = await replica()
    files = [f"GET /{name}".encode() for name in PAGE.files]
    loads = await asyncio.gather(*(ask(server.port, files) for _ in range(60)))
    assert all(load == [200] * len(files) + [404] for load in loads)


async def test_one_further_request_is_answered_in_a_turn_of_the_event_loop(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica()
    clients = []
    request = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(50):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        await reader.readuntil(b"404: Not Found\n")
        clients.append((reader, writer))
    answered = answers_of(server, monkeypatch)
    each: list[int] = []

    async def turn() -> None:
        while True:
            before = len(answered)
            await asyncio.sleep(0)
            each.append(len(answered) - before)

    turns = asyncio.create_task(turn())
    for _, writer in clients:
        writer.write(request * 10)
    for reader, writer in clients:
        for _ in range(10):
            await reader.readuntil(b"404: Not Found\n")
        writer.close()
    turns.cancel()
    assert len(answered) == 500
    assert max(each) == 1


async def test_who_connects_does_not_wait_for_the_requests_of_others(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If handshakes waited, those of many who come back at once would push each other out."""
    server = await replica()
    monkeypatch.setattr(server._public_listener.further, "enter", asyncio.Event().wait)
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
    assert (await get(server.port, "/app.js", Connection="close")).code == 200


async def test_many_who_connected_before_and_ask_at_once_are_answered_a_few_in_a_turn(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await replica()
    writers = []
    for _ in range(200):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.append(writer)
    await until(lambda: server._public_listener.pending == 200)
    answered = answers_of(server, monkeypatch)
    for writer in writers:
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
    each = []
    async with asyncio.timeout(30):
        while len(answered) < 200:
            before = len(answered)
            await asyncio.sleep(0)
            each.append(len(answered) - before)
    assert max(each) <= FIRST_REQUESTS
    for writer in writers:
        writer.close()


async def until_more(stream: PendingStream, read: int) -> None:
    """Wait until the stream has read more than so many bytes, or is closed."""
    await until(lambda: stream._read_buffer_size > read or stream.closed())


@pytest.mark.usefixtures("twenty_requests")
async def test_a_head_that_comes_in_many_pieces_is_charged_for_each(replica: Replica) -> None:
    server = await replica()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await until(lambda: server._public_listener.pending)
    (stream,) = server._public_listener._pending
    read = 0
    async with asyncio.timeout(30):
        while server._public_listener.pending:
            writer.write(b"x")
            await until_more(stream, read)
            read = stream._read_buffer_size
    assert HEAD_READS + 18 <= read <= HEAD_READS + 20
    writer.close()
    assert await ask(server.port, [], "127.0.0.3") == [404]


async def test_each_byte_of_a_head_is_searched_for_its_end_once(replica: Replica) -> None:
    server = await replica()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await until(lambda: server._public_listener.pending)
    (stream,) = server._public_listener._pending

    class Counted:
        searched = 0

        def search(self, buffer: bytearray, begin: int) -> None:
            self.searched += len(buffer) - begin

    stream._read_regex = Counted()
    read = 0
    for _ in range(HEAD_READS):
        writer.write(b"x" * 1000)
        await until_more(stream, read)
        read = stream._read_buffer_size
    assert stream._read_regex.searched < 2 * read
    writer.close()


@pytest.mark.parametrize("cut", range(1, 5))
async def test_the_end_of_a_head_may_come_in_two_pieces(replica: Replica, cut: int) -> None:
    server = await replica()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await until(lambda: server._public_listener.pending)
    (stream,) = server._public_listener._pending
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    writer.write(request[:-cut])
    await until_more(stream, 0)
    writer.write(request[-cut:])
    async with asyncio.timeout(30):
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_body_is_not_read(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await replica()
    answered = answers_of(server, monkeypatch)
    body = "Transfer-Encoding: chunked\r\n\r\n" + "1\r\nx\r\n" * 1000 + "0\r\n"
    assert await ask(server.port, [b"POST /"], headers=body) in ([], [400])
    assert not answered
    assert await ask(server.port, [b"GET /"], headers="Content-Length: 0\r\n") == [200, 404]


# More than the kernel takes.
ANSWER = 12 << 20


async def test_answers_that_nobody_reads_are_in_the_budget_of_all_that_waits(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = SimpleNamespace(payload=b'"' + b"x" * ANSWER + b'"')

    found = 0

    async def long(*_: object) -> Page:
        nonlocal found
        found += 1
        return Page([message], Position("log", 0, 0), more=False)  # type: ignore[list-item]

    monkeypatch.setattr(MessagesHandler, "_find", long)
    budget = 2 * ANSWER
    server = await replica(CHAT_OUTBOXES_BYTES=str(budget))
    endpoint = server._endpoint

    async def ask(address: str) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.bind((address, 0))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        before = found
        request = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(client, request.encode())
        await until(lambda: found > before and not server._turns.taken)
        return client

    ada = await ask("127.0.0.2")
    assert endpoint.waiting > ANSWER / 2
    crowd = [await ask("127.0.0.3") for _ in range(6)]
    await until(lambda: endpoint.waiting <= budget)
    assert server._public_listener.pending < 1 + len(crowd)
    assert b'reason="unread"' in server.metrics_text()
    # It was the crowd's: the other address gets all of its answer.
    read = 0
    async with asyncio.timeout(30):
        while chunk := await asyncio.get_running_loop().sock_recv(ada, 1 << 20):
            read += len(chunk)
    assert read > ANSWER
    for client in (ada, *crowd):
        client.close()
    await until(lambda: endpoint.waiting == 0)


async def test_a_websocket_and_a_page_that_is_read_leave_nothing_counted(replica: Replica) -> None:
    server = await replica(CHAT_TRANSPORT="tornado")
    assert (await get(server.port, "/app.js")).code == 200
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        assert server._endpoint.waiting == 0


def test_requests_that_cannot_be_read_leave_nothing_in_the_log(
    process: Callable[..., Process],
) -> None:
    """Anybody could fill the disk with them, and they say what people wrote."""
    replica = process()
    for line in ("GET /api/rooms/%ff/messages?aaaa HTTP/1.1", "GET /aaaa\x01 HTTP/1.1"):
        with socket.create_connection(("127.0.0.1", replica.port), timeout=10) as connection:
            connection.sendall(f"{line}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            while connection.recv(65536):
                pass
    assert "aaaa" not in replica.log.read_text()


async def test_headers_that_are_too_large_are_refused_with_the_limit(replica: Replica) -> None:
    server = await replica(CHAT_HEADER_BYTES="1024")
    for path in (PATH, "/ws", "/"):
        answer = await get(server.port, path, **{"X-Large": "x" * 3000})
        assert answer.code == 431
        assert b"CHAT_HEADER_BYTES=1024" in answer.body
    refused = server._metrics.refused_connections.labels("headers")
    assert refused._value.get() == 3
    assert (await get(server.port, PATH, **{"X-Large": "x" * 500})).code == 200
