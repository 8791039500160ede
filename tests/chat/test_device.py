"""Signing in without a browser: a code, a person who enters it elsewhere, and tokens that go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from chat_client import ChatClient
from conftest import ROOT, Replica, until
from provider import Provider
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine

from chat.client import DisconnectedError, SignIn, connect, connection
from chat.client import device as device_module
from chat.client.device import _build_opener, _request
from chat.protocol import CloseCode

CLIENT = "chat-terminal"
# What the provider answers a request with: a status, and JSON.
Answer = tuple[int, Any]


class DeviceProvider(Provider):
    """As Provider; and it has a device flow, for one person. `steps` are its answers to those who
    ask for tokens, one after the other, before it gives them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.life = 300
        self.forms: list[dict[str, str]] = []
        self.steps: list[Answer] = []
        self.refreshed: Callable[[], Answer] | None = None
        # Answers to requests for tokens wait for it.
        self.gate = asyncio.Event()
        self.gate.set()
        self.code: dict[str, Any] = {
            "device_code": "secret-1",
            "user_code": "WDJB-MJHT",
            "verification_uri": f"{self.issuer}/device",
            "verification_uri_complete": f"{self.issuer}/device?user_code=WDJB-MJHT",
            "expires_in": 600,
        }
        self.tell()

    def tell(self, **more: Any) -> None:
        document = {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            "token_endpoint": f"{self.issuer}/token",
            "device_authorization_endpoint": f"{self.issuer}/device/auth",
        }
        document = {name: it for name, it in (document | more).items() if it is not None}
        self.answers["/.well-known/openid-configuration"] = json.dumps(document).encode()

    def tokens(self) -> Answer:
        now = self.claims()["iat"]
        number = len(self.forms)
        token = self.token(aud=CLIENT, exp=now + self.life, jti=f"{number}")
        return 200, {"id_token": token, "refresh_token": f"refresh-{number}", "expires_in": 1}

    def _decide(self, path: str, form: dict[str, str]) -> Answer:
        assert form.pop("client_id") == CLIENT
        self.forms.append(form)
        if path == "/device/auth":
            return 200, self.code
        if form["grant_type"] == "refresh_token":
            return self.refreshed() if self.refreshed else self.tokens()
        assert form["device_code"] == "secret-1"
        return self.steps.pop(0) if self.steps else self.tokens()

    async def _reply(self, request: HTTPServerRequest) -> None:
        if request.method != "POST":
            await super()._reply(request)
            return
        status, answer = self._decide(request.path, dict(parse_qsl(request.body.decode())))
        await self.gate.wait()
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        headers = HTTPHeaders({"Content-Length": str(len(body))})
        if 300 <= status < 400:
            headers["Location"] = f"{self.issuer}/elsewhere"
        assert request.connection is not None
        await request.connection.write_headers(ResponseStartLine("", status, ""), headers, body)
        request.connection.finish()


PENDING: Answer = (400, {"error": "authorization_pending"})
SLOW: Answer = (400, {"error": "slow_down"})


class Time:
    """Passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


class Person:
    """Signs in with a program, in a time of the test's own, and reads what it shows."""

    def __init__(self, provider: DeviceProvider, keep: Path | None = None) -> None:
        self.time = Time()
        self.wall = Time()
        self.shown: list[str] = []
        self.program = SignIn(
            provider.issuer,
            CLIENT,
            show=self.shown.append,
            keep=keep,
            sleep=self.time.sleep,
            clock=self.time,
            wall=self.wall,
        )

    async def refused(self) -> str:
        with pytest.raises(DisconnectedError) as refused:
            await self.program.begin()
        return str(refused.value)


async def signed_in(device: DeviceProvider, keep: Path | None = None) -> tuple[Person, str]:
    """A person who has signed in, and the first token."""
    person = Person(device, keep)
    await person.program.begin()
    return person, await person.program()


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
async def device() -> AsyncIterator[DeviceProvider]:
    one = DeviceProvider()
    yield one
    await one.close()


async def test_the_program_shows_the_code_and_asks_as_often_as_it_may(
    device: DeviceProvider,
) -> None:
    device.steps = [PENDING, SLOW, PENDING, (502, b"<html>"), PENDING, (200, b"{"), SLOW]
    ada, _ = await signed_in(device)
    assert ada.shown == [
        f"To sign in, open {device.issuer}/device on any device and enter the code",
        "    WDJB-MJHT",
        f"or open {device.issuer}/device?user_code=WDJB-MJHT",
    ]
    assert ada.time.slept == [5, 5, 10, 10, 20, 20, 40, 45]
    assert device.forms[0] == {"scope": "openid profile"}
    assert await ada.program() == await ada.program()


async def test_the_interval_of_the_provider_counts_within_reason(device: DeviceProvider) -> None:
    for told, slept in ((7, 7), (0, 1), (1e9, 60)):
        device.code["interval"] = told
        ada = Person(device)
        await ada.program.begin()
        assert ada.time.slept == [slept]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (
            (400, {"error": "access_denied", "error_description": "You said no\x1b[2J"}),
            "said no[2J",
        ),
        ((400, {"error": "expired_token"}), "expired_token"),
        ((401, {"error": "invalid_client"}), "invalid_client"),
        ((200, {"access_token": "x"}), "it gives no ID token: the scope must have openid"),
        ((200, {"id_token": "x.y.z"}), "it gives no ID token"),
    ],
)
async def test_what_ends_the_waiting_is_said(
    device: DeviceProvider, step: Answer, why: str
) -> None:
    device.steps = [PENDING, step]
    ada = Person(device)
    refused = await ada.refused()
    assert refused.startswith(f"signing in at {device.issuer}: ")
    assert refused.rstrip().endswith(why) or why in refused
    assert "\x1b" not in refused
    assert len(ada.time.slept) == 2


async def test_a_code_that_nobody_enters_ends(device: DeviceProvider) -> None:
    device.steps = [PENDING] * 1000
    ada = Person(device)
    assert (await ada.refused()).endswith("nobody has entered the code in time")
    assert ada.time.now == 600
    device.code["expires_in"] = 1e9
    device.steps = [PENDING] * 1000
    ada = Person(device)
    await ada.refused()
    assert ada.time.now == 3600


async def test_a_provider_is_believed_only_for_itself(device: DeviceProvider) -> None:
    device.tell(issuer="https://eve.example")
    assert "its discovery document is of https://eve.example" in await Person(device).refused()
    device.tell(device_authorization_endpoint=None)
    assert "it has no device flow" in await Person(device).refused()
    device.tell(token_endpoint="http://id.example/token")
    assert "'http://id.example/token': give an https address" in await Person(device).refused()
    assert device.forms == [], "it was told nothing"
    for issuer in ("http://id.example", "id.example", "ftp://id.example", "https://["):
        with pytest.raises(ValueError, match="https"):
            SignIn(issuer, CLIENT, show=print)


async def test_what_is_asked_over_https_is_not_sent_without(
    device: DeviceProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Capitals count as well.
    issuer = "HTTPS://id.example"
    monkeypatch.setattr(device, "issuer", issuer)
    safe = f"{issuer}/token"
    for token, device_authorization in (("http://127.0.0.1/x", safe), (safe, "http://[::1]/x")):
        document = json.dumps(
            {
                "issuer": issuer,
                "token_endpoint": token,
                "device_authorization_endpoint": device_authorization,
            }
        )
        monkeypatch.setattr(
            "chat.client.device._request", lambda *_, body=document: (200, body.encode())
        )
        assert "/x': give an https address" in await Person(device).refused()


async def test_a_provider_on_this_machine_is_asked_without_a_proxy(
    device: DeviceProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr("chat.client.device._opener", _build_opener())
    await Person(device).program.begin()


async def test_nothing_is_sent_on_to_where_an_answer_leads(device: DeviceProvider) -> None:
    device.steps = [(302, b"")]
    await signed_in(device)
    assert "/elsewhere" not in device.asked


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        (b"503 No\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab", "/"),
        (b"302 Found\r\nLocation: http://[\r\n\r\n", "/"),
        (b"200 OK\r\n\r\n", "/\u00e4"),
        (b"x", "/"),
    ],
)
async def test_garbage_from_a_provider_is_an_oserror(answer: bytes, path: str) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + answer)
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"
        with pytest.raises(OSError, match=re.escape(url)):
            await asyncio.to_thread(_request, url, {})


@pytest.mark.parametrize("head", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_an_answer_that_trickles_ends_in_time(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                writer.write(b"0")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()

    monkeypatch.setattr(device_module, "HTTP_SECONDS", 0.5)
    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        began = time.monotonic()
        with pytest.raises(OSError, match=r"no whole answer within 0\.5 s"):
            await asyncio.to_thread(_request, url, {})
        assert time.monotonic() - began < 5


async def test_what_a_provider_shows_does_nothing_to_the_terminal(device: DeviceProvider) -> None:
    device.code |= {"user_code": "A\x1b[2J\n\u202eB", "verification_uri": "https://a\r\x07"}
    ada, _ = await signed_in(device)
    assert all(line.isprintable() for line in ada.shown)


async def test_the_token_is_renewed_before_its_end(device: DeviceProvider) -> None:
    ada, first = await signed_in(device)
    ada.time.now += 199
    assert await ada.program() == first
    ada.time.now += 2
    second, same = await asyncio.gather(ada.program(), ada.program())
    assert second == same != first
    # The provider gives another refresh token each time, and the last one counts.
    ada.time.now += 250
    assert await ada.program() != second
    assert [form["refresh_token"] for form in device.forms[2:]] == ["refresh-2", "refresh-3"]


async def test_the_token_ends_while_the_machine_sleeps(device: DeviceProvider) -> None:
    ada, first = await signed_in(device)
    ada.wall.now += 199
    assert await ada.program() == first
    ada.wall.now += 10_000
    assert await ada.program() != first
    device.refreshed = lambda: (503, b"")
    ada.wall.now += 10_000
    with pytest.raises(OSError, match="answers 503"):
        await ada.program()


async def test_a_renewal_that_nobody_waits_for_any_more_keeps_its_refresh_token(
    device: DeviceProvider,
) -> None:
    ada, first = await signed_in(device)
    ada.time.now += 250
    device.gate.clear()
    asking = asyncio.create_task(ada.program())
    await until(lambda: len(device.forms) == 3)
    asking.cancel()
    await asyncio.wait([asking])
    asking = asyncio.create_task(ada.program())
    device.gate.set()
    assert await asking != first
    ada.time.now += 250
    await ada.program()
    assert [form["refresh_token"] for form in device.forms[2:]] == ["refresh-2", "refresh-3"]


async def test_a_program_that_ends_during_a_renewal_keeps_the_new_refresh_token(
    device: DeviceProvider, tmp_path: Path
) -> None:
    keep = tmp_path / "sign-in"
    ada, _ = await signed_in(device, keep)
    loop = asyncio.get_running_loop()

    async def answer_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            loop.call_soon_threadsafe(device.gate.set)

    async def program() -> None:
        asking = asyncio.create_task(ada.program())
        answering = asyncio.create_task(answer_when_cancelled())
        await until(lambda: len(device.forms) == 3)
        assert not asking.done()
        assert not answering.done()

    ada.time.now += 250
    device.gate.clear()
    await asyncio.to_thread(asyncio.run, program())
    assert json.loads(keep.read_text())["refresh_token"] == "refresh-3"


async def test_while_the_provider_is_away_the_token_counts_until_its_end(
    device: DeviceProvider,
) -> None:
    ada, first = await signed_in(device)
    device.refreshed = lambda: (503, b"")
    ada.time.now += 299
    assert await ada.program() == first
    ada.time.now += 2
    with pytest.raises(OSError, match="answers 503"):
        await ada.program()
    device.refreshed = None
    assert await ada.program() != first, "it is back"


async def test_who_is_signed_out_goes_on_until_the_token_ends(device: DeviceProvider) -> None:
    ada, first = await signed_in(device)
    device.refreshed = lambda: (400, {"error": "invalid_grant"})
    ada.time.now += 250
    assert await ada.program() == await ada.program() == first
    assert ada.shown[3:] == ["The provider renews your sign-in no more: invalid_grant."]
    ada.time.now += 51
    with pytest.raises(DisconnectedError, match="start again"):
        await ada.program()


async def test_what_is_kept_is_its_owners_alone_and_needs_no_browser_next_time(
    device: DeviceProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await Person(device).program.begin()
    assert files(tmp_path) == [], "nothing is kept that nobody asked for"
    keep = tmp_path / "sign-in"
    ada, _ = await signed_in(device, keep)
    assert ada.shown
    assert stat.S_IMODE(keep.stat().st_mode) == 0o600
    for _ in range(2):
        again = Person(device, keep)
        await again.program.begin()
        assert again.shown == []
        assert json.loads(keep.read_text())["refresh_token"] == f"refresh-{len(device.forms)}"
    assert files(tmp_path) == ["sign-in"]
    # It counts no more: a person is needed.
    device.refreshed = lambda: (400, {"error": "invalid_grant"})
    again, _ = await signed_in(device, keep)
    assert again.shown
    # Of another client, it is not used.
    other = SignIn(device.issuer, "other", show=print, keep=keep)
    assert other._refresh_token == ""


async def test_the_new_refresh_token_is_kept_also_if_no_id_token_comes_with_it(
    device: DeviceProvider, tmp_path: Path
) -> None:
    keep = tmp_path / "sign-in"
    ada, _ = await signed_in(device, keep)
    device.refreshed = lambda: (200, {"refresh_token": "rotated"})
    ada.time.now += 250
    await ada.program()
    assert "it gives no ID token" in ada.shown[-1]
    device.refreshed = None
    again, _ = await signed_in(device, keep)
    assert again.shown == []
    assert device.forms[-1]["refresh_token"] == "rotated"


async def test_a_file_that_others_may_read_or_that_is_another_is_refused(
    device: DeviceProvider, tmp_path: Path
) -> None:
    keep = tmp_path / "sign-in"
    keep.touch(0o600)
    with pytest.raises(ValueError, match=r"is no file of chat\.client"):
        Person(device, keep)
    keep.chmod(0o640)
    with pytest.raises(ValueError, match="others may read it: chmod 600"):
        Person(device, keep)
    (tmp_path / "link").symlink_to(keep)
    with pytest.raises(ValueError, match="link: Too many levels of symbolic links"):
        Person(device, tmp_path / "link")
    (tmp_path / "folder").mkdir(0o700)
    with pytest.raises(ValueError, match="folder: Is a directory"):
        Person(device, tmp_path / "folder")
    with pytest.raises(ValueError, match="in a folder where you may write"):
        Person(device, tmp_path / "nowhere" / "sign-in")


# With a chat.


@pytest.fixture
def environment(device: DeviceProvider) -> dict[str, str]:
    issuers = [{"issuer": device.issuer, "audience": "chat", "audiences": [CLIENT]}]
    return {"CHAT_AUTH": "required", "CHAT_AUTH_ISSUERS": json.dumps(issuers)}


async def test_a_terminal_signs_in_and_chats(
    replica: Replica, device: DeviceProvider, environment: dict[str, str]
) -> None:
    server = await replica(environment)
    device.code["interval"] = 1
    device.steps = [PENDING]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chat.client", f"http://127.0.0.1:{server.port}/"),
        *("--sign-in", device.issuer, "--user", "eve"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await program.communicate(b"hello\n")
    assert program.returncode == 0, err
    assert b"WDJB-MJHT" in err
    assert out.decode().rstrip().endswith("lobby\tada\thello")


async def test_the_connection_goes_on_with_renewed_tokens(
    replica: Replica, device: DeviceProvider, environment: dict[str, str]
) -> None:
    server = await replica(environment)
    device.life = 2
    ada, _ = await signed_in(device)
    program = running(ada.program)
    async with connect(f"http://127.0.0.1:{server.port}/", token=program) as chat:
        (session,) = server._clients.values()
        before = session.until
        await until(lambda: session.until > before)
        assert list(server._clients.values()) == [session]
        await chat.send("lobby", "still here")


def running(program: SignIn) -> SignIn:
    """In the time of the machine: tokens have `life` seconds."""
    program._clock = asyncio.get_running_loop().time
    program._wall = time.time
    program._since = (program._clock(), program._wall())
    return program


async def test_a_token_that_the_chat_refuses_is_renewed_before_the_next_try(
    replica: Replica, device: DeviceProvider, environment: dict[str, str]
) -> None:
    """The chat counts tokens for a shorter time than the provider."""
    server = await replica(environment, CHAT_AUTH_TOKEN_SECONDS="60")
    ada, _ = await signed_in(device)
    program = running(ada.program)
    issued = time.time() - 3600
    program._token = device.token(aud=CLIENT, iat=issued, exp=issued + 36_000)
    program._life = 36_000
    async with connect(f"http://127.0.0.1:{server.port}/", token=program) as chat:
        await chat.send("lobby", "hello")
        assert [form["grant_type"] for form in device.forms[2:]] == ["refresh_token"]
        # Its time ends, and it is renewed although it says that it counts for longer.
        (session,) = server._clients.values()
        session.close(CloseCode.TOKEN_ENDED, "your token has ended")
        await until(lambda: len(device.forms) == 4)
        await chat.send("lobby", "still here")
    assert len(device.forms) == 4


async def test_a_sign_in_whose_new_token_is_refused_too_ends(
    replica: Replica,
    device: DeviceProvider,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await replica(environment)
    ada, _ = await signed_in(device)
    url = f"http://127.0.0.1:{server.port}/"
    monkeypatch.setattr(connection, "NEW_SECONDS", math.inf)
    async with connect(url, token=running(ada.program)) as chat:
        await chat.send("lobby", "hello")
        device.refreshed = lambda: (200, {"id_token": device.token(aud="mail")})
        (session,) = server._clients.values()
        session.close(CloseCode.TOKEN_ENDED, "your token has ended")
        # The chat may not know its key yet, so it is tried again for a while.
        await until(lambda: chat._new_refused)
        monkeypatch.setattr(connection, "NEW_SECONDS", 0)
        with pytest.raises(DisconnectedError, match="401 Unauthorized, also with a new token"):
            await chat.send("lobby", "again")
    assert len(device.forms) == 3
    # Without a refresh token, there is no new one.
    ada, _ = await signed_in(device)
    ada.program._refresh_token = ""
    ada.program._token = device.token(aud="mail")
    with pytest.raises(DisconnectedError, match=r"401 Unauthorized$"):
        async with connect(url, token=running(ada.program)):
            pass


async def test_a_token_that_is_refused_as_the_next_one_is_replaced_meanwhile(
    replica: Replica, device: DeviceProvider, environment: dict[str, str]
) -> None:
    server = await replica(environment)
    device.life = 4
    ada, _ = await signed_in(device)
    wrong = iter([device.token(aud="mail", exp=time.time() + 4)])
    device.refreshed = lambda: next(
        ((200, {"id_token": token}) for token in wrong), device.tokens()
    )
    async with connect(f"http://127.0.0.1:{server.port}/", token=running(ada.program)) as chat:
        (session,) = server._clients.values()
        before = session.until
        await until(lambda: session.until > before)
        await chat.send("lobby", "still here")
        assert list(server._clients.values()) == [session]
    assert server._metrics.refusals.labels("bad_token")._value.get() == 1


async def test_tokens_of_another_client_do_not_count(
    replica: Replica, device: DeviceProvider, environment: dict[str, str]
) -> None:
    server = await replica(environment)
    for audience, status in (("chat", 101), (CLIENT, 101), ("mail", 401)):
        headers = device.headers("ada", aud=audience)
        if status == 101:
            async with ChatClient(server.port, additional_headers=headers) as ada:
                await ada.join("lobby")
        else:
            with pytest.raises(Exception, match="401"):
                async with ChatClient(server.port, additional_headers=headers):
                    pass


@pytest.mark.parametrize(
    ("arguments", "environment", "why"),
    [
        (["--keep", "x"], {}, "--keep: give --sign-in, too"),
        (["--sign-in", "https://id.example"], {"CHAT_TOKEN_FILE": "x"}, "use one of them"),
        (["--sign-in", "http://id.example"], {}, "give an https address"),
    ],
)
async def test_arguments_that_cannot_be_are_said_in_a_line(
    arguments: list[str], environment: dict[str, str], why: str
) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chat.client", "http://127.0.0.1:1/", *arguments),
        cwd=ROOT,
        env={"PATH": "/usr/bin", "USER": "ada"} | environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await program.communicate()
    assert program.returncode == 2
    assert why in err.decode().splitlines()[-1]
