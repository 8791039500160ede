"""Browsers sign in: Traefik with the chat's routes, oauth2-proxy with its settings, both as the
roles render them; a real provider, and the chat. Only addresses and secrets are the test's.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import secrets
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Process, processes
from playwright.sync_api import Browser, Page, expect
from provider import ec_key, jwks, signed
from test_page import browser, connected, shows, write
from websockets.sync.client import connect

from chat.client.device import GRANT
from tests.chromium import give_name, sign_in
from tests.kafka_broker import free_port
from tests.rendered import Objects, render
from tests.traefik import PATIENCE_SECONDS, traefik

__all__ = ["browser"]

ARTIFACTS = ROOT / ".artifacts"
# Of ID tokens, in seconds. A request renews a session that is half as old. A page must be connected
# before that, also if the machine is busy: an answer to a WebSocket sets no cookie, so the renewed
# session would be lost.
LIFE = 16
TERMINAL = "chat-terminal"
# In how many groups somebody is.
TEAMS = {"mia": 80, "max": 300}
COOKIE = "__Host-chat_session"
# Settings of the chat that are as the role renders them.
OF_PEOPLE = ("CHAT_AUTH", "CHAT_ROOMS")
# A bot's, whose public half is a file.
KEY = ec_key("bot")
ELSEWHERE = re.compile(r"^https?://(?!localhost:|127\.0\.0\.1:)")
UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname, UNVERIFIED.verify_mode = False, ssl.CERT_NONE


def bot_token() -> str:
    now = int(time.time())
    claims = {"iss": "bots", "aud": "chat", "sub": "bot", "preferred_username": "bot"}
    return signed(claims | {"iat": now, "exp": now + 300}, KEY)


def eventually(
    condition: Callable[[], object], what: str, patience: float = PATIENCE_SECONDS
) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@dataclass
class Program:
    """A program that can be ended and started again; it answers at `path` when it is started."""

    arguments: list[str | Path]
    port: int
    path: str
    log: Path
    given: str = ""
    patience: float = PATIENCE_SECONDS
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.arguments, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        assert self.popen.stdin is not None
        self.popen.stdin.write(self.given.encode())
        self.popen.stdin.close()
        what = f"it does not answer: see {self.log}"
        eventually(self._answers, what, self.patience)

    def end(self) -> None:
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()

    def _answers(self) -> bool:
        assert self.popen is not None
        assert self.popen.poll() is None, f"it ended:\n{self.log.read_text()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", self.path)
            return connection.getresponse().status == 200
        return False


@dataclass
class Site:
    port: int
    provider: Program
    proxy: Program
    traefik: subprocess.Popen[bytes]
    chats: list[Process]
    # Of a replica that listens there.
    start_chat: Callable[[int], Process]

    @property
    def address(self) -> str:
        return f"https://localhost:{self.port}/"

    def restart_chats(self) -> None:
        for chat in self.chats:
            chat.popen.kill()
            chat.popen.wait()
        self.chats = [self.start_chat(chat.port) for chat in self.chats]

    def ask(self, path: str, **headers: str) -> tuple[int, str]:
        """The status, and where it leads to."""
        connection = http.client.HTTPSConnection("localhost", self.port, context=UNVERIFIED)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers=named)
            response = connection.getresponse()
            return response.status, response.headers.get("Location", "")


def artifact(name: str, sources: str = "sandbox/test-artifacts") -> Path:
    if not (ARTIFACTS / name).exists():
        build = f"sandbox/build --from {sources} {name}"
        pytest.fail(f"There is no {name}: run {build} first.", pytrace=False)
    return ARTIFACTS / name


def provider_on(port: int, folder: Path, settings: dict[str, Any]) -> Program:
    """panva's oidc-provider, with these settings."""
    home = artifact("oidc-provider")
    here = {"issuer": f"http://127.0.0.1:{port}", "address": "127.0.0.1", "port": port}
    return Program(
        # It tells of sign-outs to sites whose certificate nobody has signed.
        ["env", "NODE_TLS_REJECT_UNAUTHORIZED=0", home / "node/bin/node", home / "provider.js"],
        port,
        "/.well-known/openid-configuration",
        folder / "provider.log",
        json.dumps(here | settings),
    )


def team(number: int) -> str:
    # A provider's group may have such a name. The cookie is compressed.
    return hashlib.md5(str(number).encode()).hexdigest()


def registered(client: dict[str, str], **more: Any) -> dict[str, Any]:
    """The client of `signing_in`, as oidc-provider takes it."""
    return {
        "client_id": client["id"],
        "client_secret": client["secret"],
        "redirect_uris": [client["redirect_url"]],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        **more,
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    port, provider_port = free_port(), free_port()
    (folder / "bots.json").write_bytes(jwks(KEY))
    issuers = [
        {"issuer": f"http://127.0.0.1:{provider_port}", "audience": "chat"},
        {"issuer": "bots", "audience": "chat", "jwks": str(folder / "bots.json")},
    ]

    def provider(client: dict[str, str]) -> Program:
        lifetimes = {"IdToken": LIFE, "AccessToken": LIFE, "RefreshToken": 3600, "Session": 3600}
        groups = {name: [team(number) for number in range(count)] for name, count in TEAMS.items()}
        settings = {"clients": [registered(client)], "lifetimes": lifetimes, "groups": groups}
        return provider_on(provider_port, folder, settings)

    with signing_in(folder, port, provider, issuers, oauth2_proxy_token_seconds=LIFE) as site:
        yield site


@contextlib.contextmanager
def signing_in(
    folder: Path,
    port: int,
    provider_for: Callable[[dict[str, str]], Program],
    issuers: list[dict[str, Any]],
    *,
    replicas: int = 1,
    kafka: dict[str, str] | None = None,
    **variables: Any,
) -> Iterator[Site]:
    """The site at this port, whose browsers sign in at the first issuer. `provider_for`: its
    provider, for this client of it (`id`, `secret`, `redirect_url`). `kafka`: settings of the chat
    that name the topics of its replicas. `variables` of the roles.
    """
    proxy_home = artifact("oauth2-proxy")
    proxy_port = free_port()
    # Nothing but this process and its children may read it, as with Secrets in a pod.
    for name, secret in (
        ("client-secret", secrets.token_urlsafe(32)),
        ("cookie-secret", secrets.token_urlsafe(32)),
    ):
        (folder / name).touch(0o600)
        (folder / name).write_text(secret)
    variables |= {
        "chat_url": f"https://localhost:{port}/",
        "chat_sign_in": True,
        "chat_config": {
            "KAFKA_ENABLED": False,
            "CHAT_AUTH": "required",
            "CHAT_AUTH_ISSUERS": issuers,
        },
        # Pods are not started here.
        "chat_image": "none",
        "oauth2_proxy_image": "none",
        "oauth2_proxy_trusted_proxies": "127.0.0.0/8",
        "oauth2_proxy_client_secret": "elsewhere",
        "oauth2_proxy_cookie_secret": "elsewhere",
    }
    objects = render(folder, {"chat": variables, "oauth2_proxy": variables})
    chat_objects, proxy_objects = objects.values()

    settings = tomllib.loads(proxy_objects["ConfigMap"]["data"]["oauth2-proxy.cfg"])
    settings |= {"http_address": f"127.0.0.1:{proxy_port}", "metrics_address": ""}
    (mount,) = [
        mount["mountPath"]
        for mount in proxy_objects.pod["containers"][0]["volumeMounts"]
        if mount["name"] == "secrets"
    ]
    for name, value in settings.items():
        if name.endswith("_file"):
            settings[name] = value.replace(mount, f"{folder}/")
    config = folder / "oauth2-proxy.cfg"
    config.write_text("".join(f"{name} = {json.dumps(it)}\n" for name, it in settings.items()))
    proxy = Program(
        [proxy_home / "oauth2-proxy", f"--config={config}"],
        proxy_port,
        "/ping",
        folder / "oauth2-proxy.log",
    )
    provider = provider_for(
        {
            "id": settings["client_id"],
            "secret": (folder / "client-secret").read_text(),
            "redirect_url": settings["redirect_url"],
        }
    )

    data = chat_objects["ConfigMap"]["data"]
    environment = {name: data[name] for name in data if name.startswith(OF_PEOPLE)}
    try:
        provider.start()
        proxy.start()
        with processes(folder) as start:

            def start_chat(port: int) -> Process:
                return start(
                    environment,
                    kafka or {},
                    CHAT_PORT=str(port),
                    CHAT_REPLICA=str(port),
                    CHAT_TRUSTED_PROXIES="127.0.0.0/8",
                    CHAT_HOSTS="localhost",
                )

            chats = [start_chat(free_port()) for _ in range(replicas)]
            addresses = {"chat": [chat.port for chat in chats], "oauth2-proxy": [proxy_port]}
            routing = routing_of([chat_objects, proxy_objects], addresses)
            entry = {"address": f"127.0.0.1:{port}", "http": {"aliasHeadersStrategy": "delete"}}
            settings = {"entryPoints": {"websecure": entry}}
            with traefik(folder, port, settings, {"http": routing}) as way_in:
                yield Site(port, provider, proxy, way_in, chats, start_chat)
    finally:
        proxy.end()
        provider.end()


def routing_of(roles: list[Objects], ports: dict[str, list[int]]) -> dict[str, Any]:
    """What the roles say to Traefik in a cluster, as it takes it from a file."""
    routing: dict[str, Any] = {"middlewares": {}, "routers": {}, "services": {}}
    for objects in roles:
        for middleware in objects.named("Middleware"):
            spec = middleware["spec"]
            if "forwardAuth" in spec:
                path = spec["forwardAuth"]["address"].partition(":4180")[2]
                (proxy,) = ports["oauth2-proxy"]
                spec["forwardAuth"]["address"] = f"http://127.0.0.1:{proxy}{path}"
            routing["middlewares"][middleware["metadata"]["name"]] = spec
        for item in objects.named("IngressRoute"):
            if item["spec"]["entryPoints"] != ["websecure"]:
                continue
            for route in item["spec"]["routes"]:
                name = f"route{len(routing['routers'])}"
                ((service),) = route["services"]
                router = {"rule": route["match"], "service": name, "tls": {}}
                names = [middleware["name"] for middleware in route.get("middlewares", [])]
                router |= {"middlewares": names} if names else {}
                router |= {"priority": route["priority"]} if "priority" in route else {}
                urls = [f"http://127.0.0.1:{one}" for one in ports[service["name"]]]
                balancer: dict[str, Any] = {"servers": [{"url": url} for url in urls]}
                if "sticky" in service:
                    balancer["sticky"] = service["sticky"]
                routing["routers"][name] = router
                routing["services"][name] = {"loadBalancer": balancer}
    return routing


@pytest.fixture(scope="module")
def enter(browser: Browser, site: Site) -> Iterator[Callable[[], Page]]:
    """A browser of somebody else, each time."""
    pages: list[Page] = []

    def enter() -> Page:
        context = browser.new_context(
            ignore_https_errors=True, service_workers="block", locale="en-GB"
        )
        # The provider's pages name a font elsewhere; and nobody is to be led there, either.
        context.route(ELSEWHERE, lambda route: route.abort())
        pages.append(context.new_page())
        pages[-1].goto(site.address)
        return pages[-1]

    yield enter
    for page in pages:
        page.context.close()


@pytest.fixture(scope="module")
def ada(enter: Callable[[], Page]) -> Page:
    return sign_in(enter(), "ada")


def session(page: Page, **headers: str) -> int:
    """The status that its browser gets, which also takes cookies that are renewed on the way."""
    address = page.url.partition("#")[0]
    return page.request.get(f"{address}api/session", headers=headers).status


def cookie_of(page: Page) -> str:
    """For one request at once: renewed by another browser, it would be lost to this one."""
    session(page)
    return "; ".join(
        f"{one['name']}={one['value']}"
        for one in page.context.cookies()
        if str(one["name"]).startswith(COOKIE)
    )


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cookie": f"{COOKIE}=forged"},
        {"Authorization": "Bearer forged"},
        {"Authorization": "Basic YWRhOng="},
        {"X-Forwarded-User": "ada", "X-Auth-Request-User": "ada", "X-Forwarded-Groups": "all"},
    ],
    ids=lambda headers: "+".join(headers) or "nothing",
)
def test_who_is_not_signed_in_gets_401_and_is_led_nowhere(
    site: Site, headers: dict[str, str]
) -> None:
    assert site.ask("/api/session", **headers) == (401, "")
    assert site.ask("/ws", **headers, **UPGRADE) == (401, "")
    assert site.ask("/ws?again=1", **headers, **UPGRADE) == (401, "")
    assert site.ask("/api/rooms/lobby/messages", **headers) == (401, "")
    assert site.ask("/") == (200, ""), "the page itself is public"


def test_who_signs_in_writes_under_the_name_of_the_token(
    site: Site, ada: Page, enter: Callable[[], Page]
) -> None:
    expect(ada.get_by_role("banner")).to_contain_text("ada")
    assert ada.url.startswith(site.address)
    write(ada, "hello")
    bob = sign_in(enter(), "bob")
    shows(bob, "hello")
    expect(bob.locator("[role=log] .user")).to_have_text(["ada"])


def test_forged_headers_do_not_take_the_place_of_the_cookie_and_other_origins_are_refused(
    site: Site, ada: Page
) -> None:
    assert session(ada) == 200
    for forged in ("Bearer forged", f"Bearer {'a' * 20}.{'b' * 20}.{'c' * 20}"):
        assert session(ada, Authorization=forged) == 401
    # The cookie is sent to it by pages of the same host on another port.
    for origin in ("https://localhost:1", "https://evil.example"):
        assert session(ada, Origin=origin) == 403
        assert site.ask("/ws", Cookie=cookie_of(ada), Origin=origin, **UPGRADE)[0] == 403


def test_a_page_of_another_site_gets_no_connection(site: Site, ada: Page) -> None:
    other = ada.context.new_page()
    other.goto(f"http://127.0.0.1:{site.provider.port}{site.provider.path}")
    code = other.evaluate(
        """address => new Promise(resolve => {
            new WebSocket(address).onclose = ({ code }) => resolve(code);
        })""",
        f"wss://localhost:{site.port}/ws",
    )
    assert code == 1006
    other.close()


def test_nobody_is_led_to_another_site(site: Site, ada: Page) -> None:
    other = ada.context.new_page()
    for evil in ("https://evil.example/", "//evil.example/", "/\\evil.example/"):
        # Its session at the provider goes on: nothing is asked on the way.
        other.goto(f"{site.address}oauth2/start?rd={evil}")
        connected(other)
        assert other.url.startswith(site.address)
        status, location = site.ask(f"/oauth2/sign_out?rd={evil}")
        assert (status, location) == (302, "/")
    other.close()


def test_tokens_are_renewed_while_somebody_writes(enter: Callable[[], Page]) -> None:
    """Two browsers of one person, each with refresh tokens that count once, longer than a token."""
    pages = [sign_in(enter(), "eve") for _ in range(2)]
    answers: list[list[int]] = [[], []]
    ways = [0, 0]
    for number, page in enumerate(pages):

        def note(response: Any, number: int = number) -> None:
            if response.request.method == "POST" and "/api/session" in response.url:
                answers[number].append(response.status)

        def count(_way: Any, number: int = number) -> None:
            ways[number] += 1

        page.on("response", note)
        page.on("websocket", count)
    texts: list[str] = []
    deadline = time.monotonic() + 6 * LIFE
    # Each renewal comes when three quarters of a lifetime are over.
    while min(map(len, answers)) < 2:
        assert time.monotonic() < deadline, answers
        texts.append(f"text {len(texts)}")
        write(pages[len(texts) % 2], texts[-1])
        pages[0].wait_for_timeout(500)
    assert {status for one in answers for status in one} == {200}
    assert ways == [0, 0], "nobody connected again"
    for page in pages:
        expect(page.get_by_text(texts[-1], exact=True)).to_be_visible()
        assert [text for text in page.locator("[role=log] li p").all_inner_texts()
                if text.startswith("text ")] == texts  # fmt: skip


def test_many_groups_make_a_cookie_of_several_parts_and_too_many_are_refused_with_the_limit(
    site: Site, enter: Callable[[], Page]
) -> None:
    page = sign_in(enter(), "mia")
    assert f"{COOKIE}_1=" in cookie_of(page)
    write(page, "of many groups")
    expect(page.locator("#pending li")).to_have_count(0)
    page = enter()
    give_name(page, "max")
    # The page itself is asked for with the cookie, too.
    expect(page.locator("body")).to_contain_text("CHAT_HEADER_BYTES=16384")
    answer = page.request.get(f"{site.address}api/session")
    assert (answer.status, "CHAT_HEADER_BYTES=16384" in answer.text()) == (431, True)


def test_without_oauth2_proxy_bots_and_open_sockets_go_on(
    site: Site, enter: Callable[[], Page]
) -> None:
    page = sign_in(enter(), "dan")
    site.proxy.end()
    try:
        assert session(page) >= 500
        with connect(
            f"wss://localhost:{site.port}/ws",
            ssl=UNVERIFIED,
            additional_headers={"Authorization": f"Bearer {bot_token()}"},
        ) as bot:
            for frame in ({"type": "hello", "user": "anybody"}, {"type": "join", "room": "lobby"}):
                bot.send(json.dumps(frame))
            sent = {"type": "send", "room": "lobby", "text": "of a bot", "cid": "1"}
            bot.send(json.dumps(sent))
            expect(page.get_by_text("of a bot", exact=True)).to_be_visible()
        write(page, "of a browser")
        expect(page.locator("#pending li")).to_have_count(0)
    finally:
        site.proxy.start()


def test_without_the_provider_people_go_on_until_their_token_ends(
    site: Site, enter: Callable[[], Page]
) -> None:
    page = sign_in(enter(), "fay")
    site.provider.end()
    try:
        assert session(page) == 200
        write(page, "still here")
        expect(page.locator("#pending li")).to_have_count(0)
        eventually(lambda: session(page) == 401, "its token counts for ever")
        connected(page)
    finally:
        site.provider.start()


def test_who_signs_out_is_signed_out(site: Site, enter: Callable[[], Page]) -> None:
    began = time.monotonic()
    page = sign_in(enter(), "carol")
    copied = cookie_of(page)
    page.get_by_role("link", name="Sign out").click()
    expect(page.get_by_role("status").first).to_have_text("You are not signed in")
    assert session(page) == 401
    # The provider's session goes on, and oauth2-proxy would get a new token there, later.
    assert site.ask("/api/session", Cookie=copied)[0] == 401 or time.monotonic() > began + LIFE / 2


def test_the_provider_s_word_that_somebody_has_signed_out_needs_no_cookie(site: Site) -> None:
    assert site.ask("/api/backchannel-logout")[0] == 405
    assert site.ask("/api/backchannel-logout/")[0] == 401


def test_no_log_has_a_secret_or_a_token(site: Site) -> None:
    folder = site.proxy.log.parent
    kept = [(folder / name).read_text() for name in ("client-secret", "cookie-secret")]
    for log in folder.glob("*.log"):
        text = log.read_text()
        assert "eyJ" not in text, f"a token is in {log.name}"
        assert not any(secret in text for secret in kept), log.name


def test_a_terminal_signs_in_by_a_code_that_somebody_enters_in_a_browser(
    process: Callable[..., Process], browser: Browser, tmp_path: Path
) -> None:
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    client = {
        "client_id": TERMINAL,
        "grant_types": [GRANT, "refresh_token"],
        "redirect_uris": [],
        "response_types": [],
        "token_endpoint_auth_method": "none",
    }
    lifetimes = {"IdToken": 300, "AccessToken": 300, "RefreshToken": 3600, "Session": 3600}
    lifetimes |= {"DeviceCode": 600, "Grant": 3600}
    given = {"clients": [client], "lifetimes": lifetimes}
    provider = provider_on(port, tmp_path, given)
    issuers = [{"issuer": issuer, "audience": "chat", "audiences": [TERMINAL]}]
    keep, errors = tmp_path / "sign-in", tmp_path / "errors"

    def run(replica: Process) -> subprocess.Popen[bytes]:
        with errors.open("wb") as file:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "chat.client", f"http://127.0.0.1:{replica.port}/"),
                    *("--sign-in", issuer, "--keep", keep),
                ],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )

    try:
        provider.start()
        replica = process(CHAT_AUTH="required", CHAT_AUTH_ISSUERS=json.dumps(issuers))
        program = run(replica)
        eventually(lambda: "or open " in errors.read_text(), "it shows no code")
        lines = errors.read_text().splitlines()
        page = browser.new_page()
        page.goto(lines[0].split()[4])
        page.locator("[name=user_code]").fill(lines[1].strip())
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="Continue").click()
        page.locator("[name=login]").fill("ada")
        page.locator("[name=password]").fill("x")
        page.get_by_role("button").click()
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_text("Sign-in Success")).to_be_visible()
        out, _ = program.communicate(b"hello\n", timeout=30)
        assert (program.returncode, out.split(b"\t")[1:]) == (0, [b"lobby", b"ada", b"hello\n"])
        # Renewed by what was kept, without anybody.
        program = run(replica)
        out, _ = program.communicate(b"again\n", timeout=30)
        assert (program.returncode, out.split(b"\t")[1:]) == (0, [b"lobby", b"ada", b"again\n"])
        assert errors.read_text() == ""
    finally:
        provider.end()
