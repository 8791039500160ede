"""Webhooks: what is said in a room reaches a receiver, in order, at least once, and signed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from chat_client import ChatClient
from conftest import ROOT, Replica, until
from kafka_broker import free_port
from kubernetes_secrets import TOKEN, Kubernetes
from provider import Provider
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets

from chat.client import room as client_room
from chat.hub import Hub
from chat.kubernetes import Secrets as ClusterSecrets
from chat.protocol import no_room
from chat.relay import memory
from chat.server import Server
from chat.webhook import reader as reader_module
from chat.webhook import receiver as receiver_module
from chat.webhook import sender as sender_module
from chat.webhook.__main__ import make_senders
from chat.webhook.config import Config, ConfigError, Webhook, load
from chat.webhook.events import Kind
from chat.webhook.folder import Folder, opened
from chat.webhook.metrics import Metrics
from chat.webhook.receiver import Answer
from chat.webhook.secret import Secret
from chat.webhook.sender import Sender
from chat.webhook.signature import Secrets, SecretsError, read_secrets
from chat.webhook.state import Keeper, State, StateError, Store, name_key

DOCUMENT = (ROOT / "docs" / "webhooks.md").read_text()
KEY = b"0123456789abcdefghijklmnopqrstuv"
SECRET_NAME = "chat/webhooks-state"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@pytest.fixture(autouse=True)
def nothing_is_logged_as_an_error() -> None:
    """Here losses are, and receivers cause them."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses."""
    monkeypatch.setattr(sender_module, "RETRY_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(sender_module, "REOPEN_SECONDS", 0.1)
    monkeypatch.setattr(sender_module, "SAVE_SECONDS", 0.05)
    monkeypatch.setattr(reader_module, "IDLE_SECONDS", 0.05)


class Post(NamedTuple):
    path: str
    id: str
    timestamp: int
    signature: str
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def text(self) -> str:
        """What it says, in short."""
        event = self.event
        return f"{event['type'].split('.')[1]} {event['data'].get('text', '')}".strip()


def genuine(post: Post, key: bytes = KEY) -> bool:
    """The specification's rule, written down again."""
    signed = b".".join([post.id.encode(), str(post.timestamp).encode(), post.body])
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{wanted}" in post.signature.split(" ")


class Receiver:
    """A receiver on a port of its own. `answers` are its next ones, a status and headers each;
    after those it answers `takes`. None is no answer at all.
    """

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self._taken: list[Post] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.takes: int | None = 204
        # More lines of its webhook.
        self.options = ""
        # Answers wait for it.
        self.gate = asyncio.Event()
        self.gate.set()
        self._replying: set[asyncio.Task[None]] = set()
        self._server = HTTPServer(self._take)
        sockets = bind_sockets(0, "127.0.0.1")
        self._server.add_sockets(sockets)
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/private/path"

    @property
    def taken(self) -> list[str]:
        """What it took, in short. Repeats are left out, as the page asks of receivers."""
        return [post.text for post in {post.id: post for post in self._taken}.values()]

    async def close(self) -> None:
        self._server.stop()
        for task in self._replying:
            task.cancel()
        await self._server.close_all_connections()

    def _take(self, request: HTTPServerRequest) -> None:
        task = asyncio.create_task(self._reply(request))
        self._replying.add(task)
        task.add_done_callback(self._replying.discard)

    async def _reply(self, request: HTTPServerRequest) -> None:
        assert request.headers["Content-Type"] == "application/json"
        post = Post(
            request.path,
            request.headers["webhook-id"],
            int(request.headers["webhook-timestamp"]),
            request.headers["webhook-signature"],
            request.body,
        )
        self.posts.append(post)
        status, more = self.answers.pop(0) if self.answers else (self.takes, {})
        await self.gate.wait()
        if status is None:
            return
        if status < 300:
            self._taken.append(post)
        assert request.connection is not None
        with contextlib.suppress(StreamClosedError):
            headers = HTTPHeaders({"Content-Length": "0"} | more)
            start = ResponseStartLine("HTTP/1.1", status, "")
            await request.connection.write_headers(start, headers)
            request.connection.finish()


Receivers = Callable[[], Receiver]


@pytest.fixture
async def receivers() -> AsyncIterator[Receivers]:
    made: list[Receiver] = []

    def make() -> Receiver:
        made.append(Receiver())
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
async def receiver(receivers: Receivers) -> Receiver:
    return receivers()


@pytest.fixture
async def server(replica: Replica) -> Server:
    return await replica(CHAT_REVISIONS="true")


class Webhooks:
    """Webhooks that run in this process. What `keeper` returns has the state of all runs."""

    def __init__(self, folder: Path, keeper: Callable[[], Keeper]) -> None:
        self.folder = folder
        self.keeper = keeper
        self.metrics = Metrics()
        self.tasks: list[asyncio.Task[None]] = []
        (folder / "secret").write_text(SECRET)
        (folder / "secret").chmod(0o600)

    def write(self, server: Server, *receivers: Receiver, more: str = "") -> Path:
        lines = [f'chat = "http://127.0.0.1:{server.port}/"', 'state = "state"', more]
        for number, one in enumerate(receivers):
            lines += [
                "[[webhooks]]",
                f'name = "hook-{number}"',
                'room = "lobby"',
                f'url = "{one.url}"',
                'secret_file = "secret"',
                "plain_http = true",
                one.options,
            ]
        file = self.folder / "webhooks.toml"
        file.write_text("\n".join(lines))
        return file

    @contextlib.asynccontextmanager
    async def run(
        self, server: Server, *receivers: Receiver, more: str = ""
    ) -> AsyncIterator[list[Sender]]:
        """Until the block ends. Each reads its room when it is entered."""
        loaded = load(self.write(server, *receivers, more=more))
        self.metrics = Metrics()
        senders = make_senders(loaded, self.metrics, self.keeper())
        tasks = self.tasks = [asyncio.create_task(sender.run()) for sender in senders]
        try:
            for number in range(len(receivers)):
                await until(lambda number=number: self.state(number).position)
            yield senders
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    task.result()

    def state(self, number: int = 0) -> State:
        return Store(self.keeper(), f"hook-{number}").load("lobby")

    def metric(self, name: str, number: int = 0) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"webhook": f"hook-{number}"})


@pytest.fixture(params=["folder"])
def webhooks(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Webhooks]:
    if request.param == "folder":
        (tmp_path / "state").mkdir()
        yield Webhooks(tmp_path, lambda: Folder(tmp_path / "state"))
        return
    (tmp_path / "token").write_text(TOKEN)
    with Kubernetes() as kubernetes:
        kubernetes.make(SECRET_NAME)
        api = ClusterSecrets(kubernetes.url, tmp_path)
        yield Webhooks(tmp_path, lambda: Secret(api, SECRET_NAME))


@pytest.fixture
async def ada(server: Server) -> AsyncIterator[ChatClient]:
    async with ChatClient(server.port) as client:
        await client.join("lobby")
        yield client


async def say(client: ChatClient, *texts: str) -> list[str]:
    """Say each; returns the ids."""
    return [(await client.send("lobby", text))["id"] for text in texts]


async def revise(client: ChatClient, kind: str, identity: str, **more: str) -> None:
    await client.say(type=kind, room="lobby", id=identity, cid=f"{kind}-{identity}", **more)
    await client.hear("ack", cid=f"{kind}-{identity}")


async def test_events_arrive_in_order_signed_and_under_their_id_in_each_retry(
    server: Server, ada: ChatClient, webhooks: Webhooks, receiver: Receiver
) -> None:
    receiver.answers = [(500, {}), (500, {}), (204, {}), (503, {})]
    async with webhooks.run(server, receiver):
        ids = await say(ada, "one", "two", "three")
        await until(lambda: len(receiver.taken) == 3)
        await until(lambda: not webhooks.state().pending)
    assert receiver.taken == ["created one", "created two", "created three"]
    assert [post.text for post in receiver.posts] == [
        *["created one"] * 3,
        *["created two"] * 2,
        "created three",
    ]
    assert [post.id for post in receiver.posts] == [*[ids[0]] * 3, *[ids[1]] * 2, ids[2]]
    assert len({post.body for post in receiver.posts}) == 3
    assert all(genuine(post) for post in receiver.posts)
    assert all(abs(time.time() - post.timestamp) < 60 for post in receiver.posts)
    assert not any(genuine(post, b"another key, of the same length.") for post in receiver.posts)
    event = receiver.posts[0].event
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["timestamp"])
    assert event["data"] == {
        "room": "lobby",
        "id": ids[0],
        "user": "ada",
        "author": ada.welcome["author"],
        "text": "one",
    }
    assert webhooks.metric("chat_webhook_delivered_total") == 3
    assert webhooks.metric("chat_webhook_failures_total") == 3


async def test_edits_and_deletions_arrive_and_a_webhook_gets_what_it_asked_for(
    server: Server, ada: ChatClient, webhooks: Webhooks, receivers: Receivers
) -> None:
    everything, deletions = receivers(), receivers()
    deletions.options = 'events = ["message.deleted"]'
    async with webhooks.run(server, everything, deletions):
        (identity,) = await say(ada, "helo")
        await revise(ada, "edit", identity, text="hello")
        await revise(ada, "delete", identity)
        await until(lambda: len(everything.taken) == 3 and deletions.taken)
    assert everything.taken == ["created helo", "edited hello", "deleted"]
    assert deletions.taken == ["deleted"]
    ids = [post.id for post in everything.posts]
    assert ids[0] == identity
    assert re.fullmatch(rf"{identity}:edited:\d{{13}}", ids[1])
    assert ids[2] == deletions.posts[0].id == f"{identity}:deleted"
    assert all(post.event["data"]["id"] == identity for post in everything.posts)


@pytest.mark.parametrize("webhooks", ["folder", "secret"], indirect=True)
async def test_a_restart_repeats_what_was_on_its_way_and_loses_nothing(
    server: Server, ada: ChatClient, webhooks: Webhooks, receiver: Receiver
) -> None:
    async with webhooks.run(server, receiver):
        await say(ada, "one")
        await until(lambda: receiver.taken)
        receiver.takes = 500
        (two,) = await say(ada, "two")
        await until(lambda: len(receiver.posts) > 2)
    # It never heard of `three`, and of `two` it may have heard.
    (three, _) = await say(ada, "three", "four")
    await revise(ada, "delete", two)
    await revise(ada, "edit", three, text="3")
    receiver.takes = 204
    async with webhooks.run(server, receiver):
        await until(lambda: len(receiver.taken) == 5)
    assert receiver.taken == ["created one", "created two", "deleted", "created 3", "created four"]
    assert len({(post.id, post.body) for post in receiver.posts if post.id == two}) == 1
    assert "edited" in receiver.posts[-2].event["data"]
    async with webhooks.run(server, receiver):
        await say(ada, "five")
        await until(lambda: len(receiver.taken) == 6)
    assert receiver.taken[-1] == "created five"


@pytest.mark.parametrize("webhooks", ["secret"], indirect=True)
async def test_what_cannot_be_kept_is_not_sent(
    server: Server,
    ada: ChatClient,
    webhooks: Webhooks,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = webhooks.folder / "token"
    async with webhooks.run(server, receiver):
        await say(ada, "one")
        await until(lambda: receiver.taken)
        token.write_text("expired")
        await say(ada, "two")
        await until(lambda: caplog.text.count("403 Client Error") > 2)
        assert receiver.taken == ["created one"]
        token.write_text(TOKEN)
        await until(lambda: len(receiver.taken) == 2)
    assert receiver.taken == ["created one", "created two"]


@pytest.mark.parametrize("webhooks", ["secret"], indirect=True)
async def test_a_process_that_was_replaced_sends_nothing_more_and_ends(
    server: Server, ada: ChatClient, webhooks: Webhooks, receiver: Receiver
) -> None:
    async def replaced() -> None:
        async with webhooks.run(server, receiver):
            await say(ada, "one")
            await until(lambda: receiver.taken and not webhooks.state().pending)
            webhooks.keeper().write("hook-1.json", b"{}")
            await say(ada, "two")
            await asyncio.wait(webhooks.tasks, timeout=20)

    with pytest.raises(StateError, match="somebody else has changed it"):
        await replaced()
    assert receiver.taken == ["created one"]
    async with webhooks.run(server, receiver):
        await until(lambda: len(receiver.taken) == 2)
    assert receiver.taken == ["created one", "created two"]


@pytest.mark.parametrize("webhooks", ["secret"], indirect=True)
async def test_a_process_that_was_replaced_does_not_try_again_to_send_its_event(
    server: Server, ada: ChatClient, webhooks: Webhooks, receiver: Receiver
) -> None:
    receiver.takes = 500
    posts = 0

    async def replaced() -> None:
        nonlocal posts
        async with webhooks.run(server, receiver):
            await say(ada, "one")
            await until(lambda: len(receiver.posts) > 2)
            # Another process has sent it.
            state = webhooks.state()
            state.pending = None
            Store(webhooks.keeper(), "hook-0").save(state)
            posts = len(receiver.posts)
            await asyncio.wait(webhooks.tasks, timeout=20)

    with pytest.raises(StateError, match="somebody else has changed it"):
        await replaced()
    # One request may be under way.
    assert len(receiver.posts) <= posts + 1


@pytest.mark.parametrize("webhooks", ["secret"], indirect=True)
async def test_a_process_that_is_cut_off_from_its_state_does_not_try_again_until_it_is_back(
    server: Server,
    ada: ChatClient,
    webhooks: Webhooks,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = webhooks.folder / "token"
    receiver.takes = 500
    async with webhooks.run(server, receiver):
        await say(ada, "one")
        await until(lambda: len(receiver.posts) > 2)
        token.write_text("expired")
        await until(lambda: "403 Client Error" in caplog.text)
        posts = len(receiver.posts)
        await until(lambda: caplog.text.count("403 Client Error") > 2)
        assert len(receiver.posts) == posts
        receiver.takes = 204
        token.write_text(TOKEN)
        await until(lambda: receiver.taken)


async def test_a_long_absence_is_read_from_the_history_page_by_page(
    replica: Replica, webhooks: Webhooks, receiver: Receiver
) -> None:
    server = await replica(CHAT_HISTORY="2", CHAT_PAGE="3", CHAT_REVISIONS="true")
    async with ChatClient(server.port) as ada:
        await ada.join("lobby")
        async with webhooks.run(server, receiver):
            (first,) = await say(ada, "first")
            await until(lambda: receiver.taken)
        texts = [f"text {number}" for number in range(10)]
        await say(ada, *texts)
        await revise(ada, "edit", first, text="edited")
        async with webhooks.run(server, receiver):
            await until(lambda: len(receiver.taken) == 13)
            await say(ada, "live")
            await until(lambda: len(receiver.taken) == 14)
    assert receiver.taken == [
        *["created first", "edited edited"],
        *[f"created {text}" for text in texts],
        *["gap", "created live"],
    ]
    # The chat does not say whether there were more revisions meanwhile.
    assert receiver.posts[-2].event["data"] == {
        "room": "lobby",
        "missing": ["message.deleted", "message.edited"],
    }
    assert webhooks.metric("chat_webhook_gaps_total") == 1


async def test_what_the_log_has_lost_is_said_to_receiver_and_operator(
    replica: Replica,
    webhooks: Webhooks,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ChatClient((first := await replica()).port) as ada:
        await ada.join("lobby")
        async with webhooks.run(first, receiver):
            await say(ada, "kept")
            await until(lambda: receiver.taken)
    async with ChatClient((second := await replica()).port) as ada:
        await ada.join("lobby")
        await say(ada, "new 1", "new 2")
        async with webhooks.run(second, receiver):
            await until(lambda: len(receiver.taken) == 4)
            assert webhooks.metric("chat_webhook_gaps_total") == 1
    assert receiver.taken == ["created kept", "gap", "created new 1", "created new 2"]
    assert receiver.posts[1].event["data"]["missing"] == sorted(Kind)
    assert "the chat's log has lost messages" in caplog.text


async def test_what_retention_has_deleted_is_said_and_the_rest_arrives(
    replica: Replica, webhooks: Webhooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of each partition, 5 records are kept.
    monkeypatch.setattr(memory.MemoryLog.__init__, "__defaults__", (4, 5))
    server = await replica(CHAT_HISTORY="2", CHAT_WINDOW="2", CHAT_PAGE="2")
    async with ChatClient(server.port) as ada:
        await ada.join("lobby")
        async with webhooks.run(server, receiver):
            await say(ada, "kept")
            await until(lambda: receiver.taken)
        await say(ada, *[f"text {number}" for number in range(20)])
        async with webhooks.run(server, receiver):
            await until(lambda: receiver.taken[-1] == "created text 19")
    assert receiver.taken == [
        *["created kept", "gap"],
        *[f"created text {number}" for number in range(15, 20)],
    ]
    assert receiver.posts[1].event["data"]["missing"] == sorted(Kind)


async def test_a_room_that_may_not_be_read_for_now_is_read_on_from_where_it_was(
    replica: Replica, webhooks: Webhooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica may not know yet that the bot is a member. It refuses each position alike."""
    refusals = [no_room()] * 4
    after = Hub.after

    async def not_yet(*asked: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await after(*asked)

    server = await replica(CHAT_HISTORY="2")
    async with ChatClient(server.port) as ada:
        await ada.join("lobby")
        async with webhooks.run(server, receiver):
            await say(ada, "one")
            await until(lambda: receiver.taken)
        await say(ada, "two", "three", "four")
        monkeypatch.setattr(Hub, "after", not_yet)
        async with webhooks.run(server, receiver):
            await until(lambda: len(receiver.taken) == 4)
    assert not refusals
    assert [post.text for post in receiver.posts] == [
        f"created {text}" for text in ("one", "two", "three", "four")
    ]


async def test_410_ends_a_webhook_also_after_restarts_until_the_operator_lets_it_go_on(
    server: Server, ada: ChatClient, webhooks: Webhooks, receiver: Receiver
) -> None:
    receiver.takes = 410
    async with webhooks.run(server, receiver):
        await say(ada, "one", "two")
        await until(lambda: webhooks.state().gone)
    async with webhooks.run(server, receiver):
        assert webhooks.metric("chat_webhook_gone") == 1
        await until(lambda: len(receiver.posts) == 1)
    receiver.takes = 204
    file = webhooks.folder / "state" / "hook-0.json"
    file.write_text(file.read_text().replace('"gone":true', '"gone":false'))
    async with webhooks.run(server, receiver):
        await until(lambda: len(receiver.taken) == 2)
    assert [post.text for post in receiver.posts] == ["created one", "created one", "created two"]


async def test_redirects_are_not_followed(
    server: Server,
    ada: ChatClient,
    webhooks: Webhooks,
    receivers: Receivers,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver, elsewhere = receivers(), receivers()
    receiver.answers = [(status, {"Location": elsewhere.url}) for status in (301, 302, 307, 308)]
    async with webhooks.run(server, receiver):
        await say(ada, "one")
        await until(lambda: receiver.taken)
    assert len(receiver.posts) == 5
    assert not elsewhere.posts
    assert "redirects are not followed" in caplog.text


async def test_a_receiver_that_hangs_delays_no_other_and_fills_no_memory(
    server: Server,
    ada: ChatClient,
    webhooks: Webhooks,
    receivers: Receivers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver_module, "REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(client_room, "BUFFERED", 5)
    hanging, other = receivers(), receivers()
    hanging.takes = None
    texts = [f"text {number}" for number in range(30)]
    async with webhooks.run(server, hanging, other) as senders:
        await say(ada, *texts)
        await until(lambda: len(other.taken) == 30 and len(hanging.posts) > 1)
        assert {post.text for post in hanging.posts} == {"created text 0"}
        connection = senders[0]._connection
        assert connection is not None
        assert len(connection._rooms["lobby"]._buffer) <= 5
        hanging.takes = 204
        await until(lambda: len(hanging.taken) == 30)
    assert hanging.taken == other.taken == [f"created {text}" for text in texts]


async def test_a_receiver_that_fails_for_too_long_loses_old_events_and_is_told(
    server: Server, ada: ChatClient, webhooks: Webhooks, receiver: Receiver
) -> None:
    receiver.takes = 500
    # 0.36 s.
    async with webhooks.run(server, receiver, more="give_up_hours = 0.0001"):
        await say(ada, "one", "two")
        await until(lambda: webhooks.metric("chat_webhook_given_up_total") == 2)
        receiver.takes = 204
        await until(lambda: receiver.taken)
        await say(ada, "three")
        await until(lambda: len(receiver.taken) == 2)
    assert receiver.taken == ["gap", "created three"]


async def test_retry_after_is_obeyed_and_pauses_grow_up_to_a_bound(
    server: Server,
    webhooks: Webhooks,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "RETRY_SECONDS", (1, 300))
    (sender,) = make_senders(load(webhooks.write(server, receiver)), Metrics(), webhooks.keeper())
    for failed, most in ((1, 1), (2, 2), (5, 16), (20, 300), (10**6, 300)):
        sender._failed = failed
        delays = {sender._delay(Answer(False, False, "no")) for _ in range(20)}
        assert len(delays) > 1
        assert most / 2 <= min(delays) <= max(delays) <= most
    sender._failed = 1
    assert sender._delay(Answer(False, False, "no", retry_after=77)) == 77
    assert sender._delay(Answer(False, False, "no", retry_after=10**6)) == 3600
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    far = "Wed, 21 Oct 99999999999 07:28:00 GMT"
    for code, value, least, most in (
        *((503, "7", 7, 7), (503, soon, 95, 100), (503, "soon", 0, 0), (503, "-1", 0, 0)),
        *((503, far, 0, 0), (204, far, 0, 0), (204, "7", 0, 0)),
    ):
        receiver.answers = [(code, {"Retry-After": value})]
        answer = await sender._receiver.post(sender_module.Delivery("1", 0, "{}"))
        assert answer.taken == (code == 204)
        assert least <= answer.retry_after <= most


async def test_where_the_chat_requires_tokens_the_history_is_read_with_one(
    replica: Replica, provider: Provider, webhooks: Webhooks, receiver: Receiver
) -> None:
    server = await replica(provider.environment(), CHAT_HISTORY="1")
    (webhooks.folder / "token").write_text(provider.token("hook"))
    file = webhooks.folder / "state" / "hook-0.json"
    file.write_text('{"room":"lobby","position":"oldest"}')
    async with ChatClient(server.port, additional_headers=provider.headers()) as ada:
        await ada.join("lobby")
        await say(ada, "one", "two", "three")
        async with webhooks.run(server, receiver, more='token_file = "token"'):
            await until(lambda: len(receiver.taken) == 3)
    assert receiver.taken == ["created one", "created two", "created three"]


def test_signatures_are_those_of_the_specification() -> None:
    """The vector that the specification's libraries are tested with."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = Secrets([key, KEY]).sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signed.split()[0] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert len(signed.split()) == 2


@pytest.mark.parametrize(
    ("content", "mode", "remedy"),
    [
        (SECRET, 0o644, "chmod 600"),
        (SECRET, 0o640, "chmod 600"),
        ("", 0o600, "has 0 secrets"),
        (f"{SECRET}\n" * 3, 0o600, "has 3 secrets"),
        (SECRET.removeprefix("whsec_"), 0o600, "openssl rand"),
        ("whsec_" + base64.b64encode(KEY[:23]).decode(), 0o600, "24 to 64 bytes"),
        ("whsec_?", 0o600, "base64"),
    ],
)
def test_a_secret_that_is_none_or_that_others_may_read_is_refused(
    tmp_path: Path, content: str, mode: int, remedy: str
) -> None:
    file = tmp_path / "secret"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(SecretsError, match=remedy) as refused:
        read_secrets(file)
    assert not content or content not in str(refused.value)


WEBHOOK = {"name": "a", "room": "lobby", "url": "https://hook.example/x", "secret_file": "secret"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chat": "chat.example.org"}, "chat = 'chat.example.org': give the chat's address"),
        ({"chat": "https://chat.example.org/ws"}, "give the chat's address"),
        ({"state": "secret:webhooks"}, "state = 'secret:webhooks': give a folder, or secret:NAME"),
        ({"give_up_hours": 0.0}, "give_up_hours = 0: give hours"),
        ({"metrics": "9090"}, "metrics = '9090': give HOST:PORT"),
        ({"webhooks": []}, "0 webhooks"),
        ({"webhook": []}, "unknown field `webhook`"),
        ({"webhooks": [WEBHOOK, WEBHOOK]}, "'a': give this name to one webhook"),
        ({"webhooks": [WEBHOOK, WEBHOOK | {"name": "b"}]}, "'a' and 'b' are the same"),
        ({"webhooks": [WEBHOOK | {"name": "../a"}]}, "'../a': give a name of"),
        ({"webhooks": [WEBHOOK | {"room": "a room"}]}, "room = 'a room'"),
        ({"webhooks": [WEBHOOK | {"events": ["message"]}]}, "Invalid enum value 'message'"),
        ({"webhooks": [WEBHOOK | {"events": []}]}, "give some of message.created"),
        ({"webhooks": [WEBHOOK | {"url": "http://hook.example/x"}]}, "give an https address"),
        ({"webhooks": [WEBHOOK | {"url": "hook.example/x"}]}, "such as https://HOST/PATH"),
        ({"webhooks": [WEBHOOK | {"url": "https://a:b@hook.example/"}]}, "leave out user"),
        ({"webhooks": [WEBHOOK | {"url": "https://hook.example/\n"}]}, "visible ASCII"),
        ({"webhooks": [WEBHOOK | {"url": "https://hook.example:x/"}]}, "such as https://HOST"),
        ({"webhooks": [WEBHOOK | {"url": "https://hook.example:0/"}]}, "such as https://HOST"),
        ({"webhooks": [WEBHOOK | {"secret_file": "none"}]}, "none: No such file"),
        ({"token_file": "none"}, "none: No such file"),
        ({"token_file": "secret", "chat": "http://chat.example/"}, "give an https address"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_with_the_remedy(
    webhooks: Webhooks, change: dict[str, Any], words: str
) -> None:
    config = {"chat": "https://chat.example.org/", "state": "state", "webhooks": [WEBHOOK]}
    file = webhooks.folder / "webhooks.toml"
    file.write_text(_toml(config))
    assert load(file).config.webhooks[0].events == set(Kind)
    file.write_text(_toml(config | change))
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        load(file)
    # Its path may be a secret.
    assert "hook.example/x" not in str(refused.value)


@pytest.mark.parametrize(
    ("chat", "plain_http"), [("http://[::1]:8080/", False), ("http://chat.example/", True)]
)
def test_a_token_is_sent_in_plaintext_to_this_machine_and_with_consent(
    webhooks: Webhooks, chat: str, plain_http: bool
) -> None:
    config = {"chat": chat, "state": "state", "token_file": "secret", "webhooks": [WEBHOOK]}
    file = webhooks.folder / "webhooks.toml"
    file.write_text(_toml(config | {"plain_http": plain_http}))
    assert load(file).token_file


def _toml(config: dict[str, Any]) -> str:
    tables = "".join(
        "[[webhooks]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in one.items())
        for one in config["webhooks"]
    )
    lines = [f"{key} = {json.dumps(config[key])}\n" for key in config if key != "webhooks"]
    return "".join(lines) + (tables or "webhooks = []\n")


def test_a_check_starts_nothing_and_says_what_is_wrong(webhooks: Webhooks) -> None:
    file = webhooks.folder / "webhooks.toml"
    config = {"chat": "https://chat.example.org/", "state": "other", "webhooks": [WEBHOOK]}
    for changed, code, said in (({}, 0, ""), ({"state": "secret:x"}, 2, "give a folder, or secr")):
        file.write_text(_toml(config | changed))
        done = subprocess.run(
            [sys.executable, "-m", "chat.webhook", "--check", file],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, bool(done.stderr)) == (code, bool(said))
        assert said in done.stderr
    assert not (webhooks.folder / "other").exists()


def test_one_process_at_a_time_uses_a_folder_and_its_name_in_the_chat_stays(tmp_path: Path) -> None:
    with (
        opened(tmp_path / "state") as folder,
        pytest.raises(StateError, match="another process uses it"),
        opened(tmp_path / "state"),
    ):
        pass
    with opened(tmp_path / "state") as again:
        assert name_key(again) == name_key(folder)


def test_a_file_of_another_room_or_that_is_none_is_refused(tmp_path: Path) -> None:
    store = Store(Folder(tmp_path), "hook")
    file = tmp_path / "hook.json"
    store.save(State("lobby", "P1"))
    assert store.load("lobby").position == "P1"
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(StateError, match="is of room 'lobby'"):
        store.load("staff")
    file.write_text("{")
    with pytest.raises(StateError, match="remove it"):
        store.load("lobby")


@pytest.mark.parametrize(("number", "struct"), [(0, Config), (1, Webhook)])
def test_every_key_is_in_the_table_with_its_default(
    number: int, struct: type[msgspec.Struct]
) -> None:
    section = DOCUMENT.split("## Configuration\n")[1].split("\n### ")[0]
    table = section.split("\nIn each `[[webhooks]]`")[number]
    rows = [
        (key, default.strip("`"))
        for key, default in re.findall(r"^\| `(\w+)` \| (.*?) ?\|", table, re.MULTILINE)
    ]

    def written(field: msgspec.structs.FieldInfo) -> str:
        if field.default is msgspec.NODEFAULT or field.default == "":
            return ""
        if isinstance(field.default, frozenset):
            return "all three"
        return json.dumps(field.default).strip('"').removesuffix(".0")

    documented = [
        (field.name, written(field))
        for field in msgspec.structs.fields(struct)
        if field.name != "webhooks"
    ]
    assert sorted(rows) == sorted(documented)


async def test_the_page_s_commands_work_and_sigterm_waits_for_the_request_under_way(
    server: Server, ada: ChatClient, tmp_path: Path, receiver: Receiver
) -> None:
    made, toml = re.search(r"```sh\n(.*?)```.*?```toml\n(.*?)```", DOCUMENT, re.DOTALL).groups()
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    port, metrics = free_port(), free_port()
    await _output(tmp_path, "sh", "-ec", made)
    toml = f'metrics = "127.0.0.1:{metrics}"\n{toml}'.replace(":8080", f":{server.port}")
    file = tmp_path / "webhooks.toml"
    file.write_text(toml.replace(":8000", f":{port}"))
    (tmp_path / "receiver.py").write_text(code.replace("8000", str(port)))

    async def start(*arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    state = Store(Folder(tmp_path / "state"), "example")
    page = await start("receiver.py")
    hook = await start("-m", "chat.webhook", str(file))
    try:
        await until(lambda: state.load("lobby").position)
        (identity,) = await say(ada, "for the page")
        assert page.stdout is not None
        async with asyncio.timeout(30):
            line = (await page.stdout.readline()).decode()
        assert line.startswith(identity)
        assert "for the page" in line
        await until(lambda: not state.load("lobby").pending)
        url = f"http://127.0.0.1:{metrics}/metrics"
        shown = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
        assert 'chat_webhook_delivered_total{webhook="example"} 1.0' in shown
        assert 'chat_webhook_connected{webhook="example"} 1.0' in shown
        second = await start("-m", "chat.webhook", str(file))
        assert (await second.communicate())[1].decode().endswith("give another folder\n")
        assert second.returncode == 1
        hook.send_signal(signal.SIGTERM)
        said = (await hook.communicate())[1].decode()
        assert hook.returncode == 0, said
        # With another receiver, which takes its time.
        file.write_text(re.sub(r"url = .*", f'url = "{receiver.url}"', toml))
        receiver.gate.clear()
        await say(ada, "under way")
        hook = await start("-m", "chat.webhook", str(file))
        await until(lambda: receiver.posts)
        # If the process were killed now, it would send this again.
        assert (pending := state.load("lobby").pending)
        assert pending.body.encode() == receiver.posts[0].body
        hook.send_signal(signal.SIGTERM)
        said += await _log_until(hook, "stopping")
        receiver.gate.set()
        said += (await hook.communicate())[1].decode()
        assert hook.returncode == 0, said
    finally:
        for process in (page, hook):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert receiver.taken == ["created under way"]
    assert not state.load("lobby").pending
    assert "reads lobby" in said
    for secret in ("private/path", "for the page", (tmp_path / "hook.secret").read_text().strip()):
        assert secret not in said


async def _output(folder: Path, *command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, cwd=folder)
    assert await process.wait() == 0


async def _log_until(process: asyncio.subprocess.Process, words: str) -> str:
    """Its log, until a line has these words."""
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(30):
        while words not in said:
            line = (await process.stderr.readline()).decode()
            assert line, f"it ended:\n{said}"
            said += line
    return said
