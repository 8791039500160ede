"""People sign in at the site's provider, through Traefik and oauth2-proxy in the cluster.

Only the uninstallation runs after these tests, because the chat keeps requiring tokens.
"""

import asyncio
import json
import os
import secrets
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from cluster import deployed_image, kubectl
from drill import on_demand, ready_replicas
from hosts import CA_FILE, ROOT, address, eventually, group, virtual_ip
from joserfc import jwt
from joserfc.jwk import ECKey
from openid import Provider
from playwright.sync_api import Page, expect, sync_playwright
from servers import address_towards

from chat.client import Message, connect
from playbooks import run
from tests.chromium import launch, sign_in

pytestmark = on_demand

URL = f"https://{virtual_ip()}/"
# Lifetime of ID tokens, in seconds.
LIFE = 20
KEY = ECKey.generate_key("P-256", {"kid": "bots"})
IMAGE = "oauth2-proxy"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def bot_token() -> str:
    now = int(time.time())
    claims = {"iss": "bots", "aud": "chat", "sub": "bot", "preferred_username": "bot"}
    header = {"alg": "ES256", "kid": "bots"}
    return jwt.encode(header, claims | {"iat": now, "exp": now + 600}, KEY)


def ask(path: str, url: str = URL, **headers: str) -> requests.Response:
    return requests.get(
        url + path, headers=headers, timeout=10, verify=str(CA_FILE), allow_redirects=False
    )


def in_registry(folder: Path) -> str:
    """Push the image that the tests build to the cluster's registry; return its name by digest."""
    settings = {"CONTAINERS_CONF": str(ROOT / "sandbox" / "hosts" / "containers.conf")}

    def podman(*arguments: str | Path) -> str:
        command = ["podman", *arguments]
        environment = os.environ | settings
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    archive = ROOT / ".artifacts" / "oauth2-proxy" / "oauth2-proxy.tar"
    name = podman("load", "--quiet", "--input", archive).split()[-1]
    digest = folder / "digest"
    registry, _, _ = deployed_image().partition("/")
    there = f"{registry.replace('localhost', address(group('microk8s')[0]))}/{IMAGE}"
    podman("push", "--quiet", "--tls-verify=false", "--digestfile", digest, name, there)
    podman("rmi", name)
    return f"{registry}/{IMAGE}@{digest.read_text().strip()}"


@pytest.fixture(scope="module", autouse=True)
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder = tmp_path_factory.mktemp("provider")
    with Provider(folder, address_towards(virtual_ip()), URL, LIFE) as running:
        cookie_secret = secrets.token_urlsafe(32)
        public = {"keys": [KEY.as_dict(private=False)]}
        issuers = [
            {"issuer": running.issuer, "audience": "chat"},
            {"issuer": "bots", "audience": "chat", "jwks": "/run/secrets/chat/bots.json"},
        ]
        deployed = run(
            "playbooks/chat.yml",
            {
                "chat_sign_in": True,
                "chat_config": {
                    "CHAT_AUTH": "required",
                    "CHAT_AUTH_ISSUERS": issuers,
                    "CHAT_AUTH_CA_FILE": "/run/secrets/chat/provider.crt",
                },
                "chat_files": {
                    "provider.crt": running.ca_file.read_text(),
                    # A text that looks like JSON would become a dictionary.
                    "bots.json": json.dumps(public) + "\n",
                },
                "oauth2_proxy_image": in_registry(folder),
                "oauth2_proxy_ca": running.ca_file.read_text(),
                "oauth2_proxy_client_secret": running.client_secret,
                "oauth2_proxy_cookie_secret": cookie_secret,
                "oauth2_proxy_token_seconds": LIFE,
            },
        )
        assert deployed.succeeded, deployed.said
        for secret in (running.client_secret, cookie_secret):
            assert secret not in deployed.said
            assert secret not in kubectl("get deployments,pods,configmaps --output yaml")
        yield running


Enter = Callable[[str], Page]


@pytest.fixture(scope="module")
def enter() -> Iterator[Enter]:
    """Opens the page in a new browser context and signs in under the given name."""
    with sync_playwright() as playwright:
        browser = launch(playwright)

        def enter(who: str) -> Page:
            page = browser.new_context(ignore_https_errors=True).new_page()
            page.set_default_timeout(30_000)
            page.goto(URL)
            return sign_in(page, who)

        yield enter
        browser.close()


@pytest.fixture(scope="module")
def ada(enter: Enter) -> Page:
    return enter("ada")


def write(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def shows(page: Page, text: str) -> None:
    expect(page.locator("[role=log]:visible li p", has_text=text)).to_have_count(1, timeout=30_000)
    expect(page.locator("#pending li")).to_have_count(0)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cookie": "__Host-chat_session=forged"},
        {"Authorization": "Bearer forged"},
        {"X-Forwarded-User": "ada", "X-Auth-Request-User": "ada", "X-Forwarded-Groups": "all"},
    ],
    ids=lambda headers: "+".join(headers) or "nothing",
)
def test_requests_without_sign_in_get_401_and_no_redirect(headers: dict[str, str]) -> None:
    for answer in (
        ask("api/session", **headers),
        ask("ws", **headers, **UPGRADE),
        ask("api/rooms/lobby/messages", **headers),
    ):
        assert (answer.status_code, answer.headers.get("Location")) == (401, None), answer.text
    assert ask("").status_code == 200, "the page itself is public"
    plain = ask("api/session", url=URL.replace("https", "http"), **headers)
    assert plain.headers["Location"].startswith(URL)


def test_people_write_under_the_names_in_their_tokens(ada: Page, enter: Enter) -> None:
    text = f"hello {uuid.uuid4()}"
    write(ada, text)
    bob = enter("bob")
    shows(bob, text)
    line = bob.locator("[role=log]:visible li", has_text=text)
    expect(line.locator(".user")).to_have_text("ada")


@pytest.mark.timeout(900)
def test_nobody_has_to_sign_in_again_while_replicas_and_oauth2_proxy_restart(ada: Page) -> None:
    """Ada writes for five lifetimes of a token. All replicas and one oauth2-proxy are replaced."""
    ends = time.monotonic() + 5 * LIFE
    proxy = kubectl("get pods --selector app.kubernetes.io/name=oauth2-proxy --output name")
    kubectl(f"delete {proxy.split()[0]} --wait=false")
    kubectl("rollout restart deployment chat")
    texts = []
    while time.monotonic() < ends:
        texts.append(f"message {uuid.uuid4()}")
        write(ada, texts[-1])
        shows(ada, texts[-1])
    kubectl("rollout status deployment chat --timeout=180s")
    eventually(lambda: len(ready_replicas()) == 2, within=90, what="the old replicas are gone")
    for text in texts:
        shows(ada, text)
    # The browser's cookie was renewed, too.
    assert ada.request.get(f"{URL}api/session").status == 200


async def chat_as_a_bot() -> None:
    async with connect(URL, token=bot_token) as bot:
        room = bot.room(f"room-{uuid.uuid4()}")
        await room.joined()
        sent = await room.send("nobody else is there")
        event = await anext(room)
        assert isinstance(event, Message)
        assert (event.id, event.user) == (sent, "bot")


@pytest.mark.timeout(300)
def test_programs_need_neither_the_provider_nor_oauth2_proxy(provider: Provider) -> None:
    provider.end()
    kubectl("scale deployment oauth2-proxy --replicas=0")
    kubectl("wait pod --selector app.kubernetes.io/name=oauth2-proxy --for=delete --timeout=60s")
    # Traefik may first wait 30 s on a connection that it kept open to a deleted pod.
    eventually(lambda: ask("api/session").status_code == 500, within=60, what="browsers get 500")
    # In another thread, because Playwright's event loop runs in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, chat_as_a_bot()).result()


def test_oauth2_proxy_and_the_chat_cannot_read_secrets_from_the_api() -> None:
    for account in ("oauth2-proxy", "chat"):
        name = f"system:serviceaccount:chat:{account}"
        for verb, what in (("list", "secrets"), ("get", "secret/chat-tls"), ("create", "pods")):
            assert kubectl(f"auth can-i {verb} {what} --as {name} || true") == "no"
