"""chat_probe finds out whether a chat works."""

import asyncio
import http
import itertools
import json
import os
import re
import ssl
import subprocess
import sys
import threading

import pytest
from websockets.asyncio.server import serve
from websockets.sync.server import serve as serve_in_threads


@pytest.fixture
def chat():
    """A chat service with one replica, in a process of its own; yields the page's address."""
    with subprocess.Popen(
        [sys.executable, "-m", "chat"],
        env={**os.environ, "CHAT_PORT": "0", "CHAT_INTERNAL_PORT": "0", "CHAT_REPLICA": "alone"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        ports = (re.search(r"page on port (\d+)", line) for line in process.stderr)
        port = next(match[1] for match in ports if match)
        yield f"http://127.0.0.1:{port}/"
        process.terminate()


class Replicas:
    """Stand-ins for the named replicas behind one address, used round robin.

    They speak the chat's protocol. `shared`: whether messages reach members on other replicas.
    `token`: the token that they require, if any.
    """

    def __init__(self, *names, shared=True, cookie=None, tls=None, token=None):
        self.shared = shared
        self._token = token
        self._cookie = cookie
        self._names = itertools.cycle(names)
        self._members = []
        self._ids = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(self._serve(tls))
        (socket,) = self._server.sockets
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{socket.getsockname()[1]}/"

    def close(self):
        self._server.close()
        self._call(self._server.wait_closed())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _serve(self, tls):
        return await serve(
            self._talk,
            "127.0.0.1",
            0,
            process_request=self._admit,
            process_response=self._stick,
            ssl=tls,
        )

    def _admit(self, connection, request):
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "")
        return None

    def _stick(self, connection, request, response):
        connection.replica = request.headers.get("Cookie", "").partition("=")[2]
        if not connection.replica:
            connection.replica = next(self._names)
            if self._cookie:
                response.headers["Set-Cookie"] = f"{self._cookie}={connection.replica}; Path=/"
        return response

    async def _talk(self, connection):
        async for frame in connection:
            match json.loads(frame):
                case {"type": "hello"}:
                    await self._say(connection, type="welcome", replica=connection.replica)
                case {"type": "join", "room": room}:
                    self._members.append(connection)
                    await self._say(connection, type="joined", room=room)
                case {"type": "send"}:
                    for member in self._members:
                        if self.shared or member.replica == connection.replica:
                            await self._say(member, type="message", id=str(next(self._ids) // 2))

    @staticmethod
    async def _say(connection, **frame):
        await connection.send(json.dumps(frame))


@pytest.fixture
def replicas():
    """Starts stand-ins for several replicas; see Replicas."""
    made = []

    def make(*names, **options):
        made.append(Replicas(*names, **options))
        return made[-1].url

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1 that expires in less than ten days."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "tls.key", folder / "tls.crt"
    options = (
        "-x509 -nodes -days 10 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=chat"
        " -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        ["openssl", "req", *options.split(), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return tls, str(certificate)


def test_two_clients_of_the_real_service_see_the_same_messages(run_module, chat):
    answer = run_module("chat_probe", url=chat, replicas=1, messages=5)
    assert answer["replicas"] == ["alone", "alone"]
    assert answer["messages"] == 10
    assert 0 < answer["milliseconds"]["median"] <= answer["milliseconds"]["longest"]
    assert answer["cookie"] is None
    assert answer["sticky"] is None
    assert answer["certificate_days"] is None


def test_a_single_replica_is_refused_where_two_are_expected(run_module, chat):
    answer = run_module("chat_probe", url=chat, timeout=2)
    assert "led" in answer["msg"]
    assert "to alone and none elsewhere: is another replica ready?" in answer["msg"]


def test_the_clients_are_on_different_replicas(run_module, replicas):
    answer = run_module("chat_probe", url=replicas("one", "one", "two"))
    assert answer["replicas"] == ["one", "two"]


def test_a_cookie_that_leads_to_the_same_replica_is_sticky(run_module, replicas):
    answer = run_module("chat_probe", url=replicas("one", "two", cookie="affinity"))
    assert answer["cookie"] == "affinity"
    assert answer["sticky"] is True


def test_replicas_that_do_not_exchange_messages_are_detected(run_module, replicas):
    answer = run_module("chat_probe", url=replicas("one", "two", shared=False), timeout=2)
    assert answer["msg"] == "two sent no 'message' in time"


def test_an_address_without_a_server_is_named(run_module):
    answer = run_module("chat_probe", url="http://127.0.0.1:1/", timeout=1)
    assert "ws://127.0.0.1:1/ws lets nobody in: [Errno 111] Connect call failed" in answer["msg"]


def test_a_proxy_in_the_environment_is_not_used(run_module, replicas, monkeypatch):
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    answer = run_module("chat_probe", url=replicas("one", "two"), timeout=2)
    assert answer["replicas"] == ["one", "two"]


def test_a_certificate_of_the_authority_in_ca_is_trusted(run_module, replicas, certificate):
    tls, ca = certificate
    answer = run_module("chat_probe", url=replicas("one", "two", tls=tls), ca=ca, timeout=5)
    assert answer["replicas"] == ["one", "two"]
    assert answer["certificate_days"] == 9


def test_a_certificate_of_an_unknown_authority_is_refused(run_module, replicas, certificate):
    tls, _ = certificate
    answer = run_module("chat_probe", url=replicas("one", "two", tls=tls), timeout=1)
    assert "lets nobody in: [SSL: CERTIFICATE_VERIFY_FAILED]" in answer["msg"]


def test_a_file_without_authorities_is_named(run_module):
    answer = run_module("chat_probe", url="https://127.0.0.1:1/", ca="/no/ca.crt", timeout=1)
    assert answer["msg"].startswith("ca='/no/ca.crt': give a file with certificates in PEM: ")


def test_the_http_status_of_a_refusal_is_in_the_message(run_module):
    def refuse(connection, _request):
        return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "")

    with serve_in_threads(lambda _: None, "127.0.0.1", 0, process_request=refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        answer = run_module("chat_probe", url=f"http://127.0.0.1:{port}/", timeout=3)
        server.shutdown()
    assert "lets nobody in: server rejected WebSocket connection: HTTP 503" in answer["msg"]


@pytest.mark.parametrize(
    ("token", "answer"),
    [
        ("", {"replicas": [], "messages": 0, "milliseconds": None, "cookie": None}),
        ("accepted", {"messages": 4, "sticky": None}),
    ],
)
def test_a_service_that_requires_sign_in_must_refuse_strangers_and_accept_the_token(
    run_module, replicas, token, answer
):
    url = replicas("chat-a", "chat-b", token="accepted")
    seen = run_module("chat_probe", url=url, sign_in=True, token=token, messages=2, timeout=10)
    assert seen["failed"] is False, seen
    assert {name: seen[name] for name in answer} == answer


def test_a_service_that_should_require_sign_in_but_does_not_is_detected(run_module, replicas):
    answer = run_module("chat_probe", url=replicas("chat-a"), sign_in=True, timeout=1)
    assert "does not ask for a token: it lets in who has none" in answer["msg"]


def test_an_invalid_url_is_refused(run_module):
    answer = run_module("chat_probe", url="host1")
    assert (
        answer["msg"] == "url='host1': give the address of the page, http://HOST/ or https://HOST/"
    )
