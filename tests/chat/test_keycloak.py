"""A real Keycloak as the provider, with the realm of docs/operations/identity.md. `script/test
--faults=all unit` runs it: Keycloak takes a minute of processor time to start, 190 MB of disk and
450 MB of memory.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from conftest import ROOT
from playwright.sync_api import Browser, Page, expect
from test_page import browser, connected, shows, write
from test_sign_in import Program, Site, artifact, enter, eventually, session, signing_in

from tests.kafka_broker import free_port

__all__ = ["browser", "enter"]

pytestmark = [
    pytest.mark.skipif(os.environ.get("FAULTS") != "all", reason="runs with --faults=all"),
    pytest.mark.timeout(900),
]

PAGE = (ROOT / "docs/operations/identity.md").read_text()
(REALM,) = re.findall(r'^```json\n(\{\n  "realm".*?)^```', PAGE, re.DOTALL | re.MULTILINE)
PASSWORD = secrets.token_urlsafe(16)
MAIN = "io.quarkus.bootstrap.runner.QuarkusEntryPoint"
# What the page shows.
SIGNED_OUT = "You are not signed in"


class Keycloak(Program):
    """With an empty database in its memory, and this realm."""

    def __init__(self, folder: Path, port: int, realm: dict[str, Any]) -> None:
        home = artifact("keycloak", "sandbox/optional-artifacts")
        admin = [f"KC_BOOTSTRAP_ADMIN_{name}={PASSWORD}" for name in ("USERNAME", "PASSWORD")]
        # A home in which it may write.
        own = folder / "keycloak"
        own.mkdir()
        for name in ("conf", "lib", "providers", "themes"):
            (own / name).symlink_to(home / name)
        # Its script would start it as a child.
        java = ["-Xmx320m", f"-Dkc.home.dir={own}", f"--class-path={own}/lib/quarkus-run.jar"]
        java += [f"--add-opens=java.base/java.{part}=ALL-UNNAMED" for part in ("util", "lang")]
        self.address = f"http://127.0.0.1:{port}"
        # Without a cluster, it listens on this machine alone.
        listen = ["--http-enabled=true", "--http-host=127.0.0.1", f"--http-port={port}"]
        listen += [f"--hostname={self.address}", "--cache=local"]
        super().__init__(
            ["env", *admin, "java", *java, MAIN, "start", "--optimized", *listen],
            port,
            "/realms/master",
            folder / "keycloak.log",
            patience=300,
        )
        self._realm = realm

    def start(self) -> None:
        super().start()
        self.ask("POST", "", self._realm)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What an administrator may do in the realm, or without a path, with realms."""
        of_admin = {"grant_type": "password", "client_id": "admin-cli"}
        token = self.token("master", username=PASSWORD, password=PASSWORD, **of_admin)
        request = Request(
            f"{self.address}/admin/realms{path and f'/people{path}'}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method=method,
        )
        with urlopen(request) as response:
            return json.loads(response.read() or "null")

    def token(self, realm: str = "people", **given: str) -> str:
        """An access token for one who gives this."""
        path = f"/realms/{realm}/protocol/openid-connect/token"
        with urlopen(f"{self.address}{path}", urlencode(given).encode()) as response:
            token: str = json.load(response)["access_token"]
            return token


def person(name: str, *groups: str) -> dict[str, Any]:
    return {
        "username": name,
        "enabled": True,
        # Without these, it asks for them at the first sign-in.
        "email": f"{name}@example.org",
        "firstName": name,
        "lastName": name,
        "credentials": [{"type": "password", "value": PASSWORD}],
        "groups": groups,
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    port, provider_port = free_port(), free_port()
    issuer = f"http://127.0.0.1:{provider_port}/realms/people"

    def provider(client: dict[str, str]) -> Keycloak:
        text = REALM.replace("HOST", f"localhost:{port}").replace(
            '"SECRET"', json.dumps(client["secret"])
        )
        people = [person("ada", "/staff"), person("bob")]
        return Keycloak(folder, provider_port, json.loads(text) | {"users": people})

    with signing_in(
        folder,
        port,
        provider,
        [
            {"issuer": issuer, "audience": "chat", "groups_claim": "groups"}
            | {"audiences": ["chat-terminal"]}
        ],
        chat_rooms=[{"rooms": "staff-*", "read": ["/staff"]}, {"rooms": "*"}],
        oauth2_proxy_end_session_url=f"{issuer}/protocol/openid-connect/logout",
    ) as site:
        # Keycloak does not trust the certificate that Traefik has here.
        keycloak = site.provider
        assert isinstance(keycloak, Keycloak)
        (client,) = keycloak.ask("GET", "/clients?clientId=chat")
        url = f"http://127.0.0.1:{site.chats[0].port}/api/backchannel-logout"
        client["attributes"]["backchannel.logout.url"] = url
        keycloak.ask("PUT", f"/clients/{client['id']}", client)
        yield site


@pytest.fixture(scope="module")
def keycloak(site: Site) -> Keycloak:
    assert isinstance(site.provider, Keycloak)
    return site.provider


def sign_in(page: Page, who: str) -> Page:
    page.get_by_role("link", name="Sign in").click()
    give_password(page, who)
    connected(page)
    return page


def give_password(page: Page, who: str) -> None:
    page.locator("#username").fill(who)
    page.locator("#password").fill(PASSWORD)
    page.locator("#kc-login").click()


def signed_out(page: Page) -> None:
    expect(page.get_by_role("status").first).to_have_text(SIGNED_OUT)
    assert session(page) == 401


def test_who_signs_in_has_the_name_and_the_rooms_of_their_groups(
    site: Site, enter: Callable[[], Page]
) -> None:
    ada, bob = (sign_in(enter(), who) for who in ("ada", "bob"))
    expect(ada.get_by_role("banner")).to_contain_text("ada")
    write(ada, "hello")
    shows(bob, "hello")
    staff = f"{site.address}api/rooms/staff-1/messages"
    assert [page.request.get(staff).status for page in (ada, bob)] == [200, 400]


def test_sessions_that_an_administrator_ends_are_ended_in_the_chat(
    keycloak: Keycloak, enter: Callable[[], Page]
) -> None:
    ada, bob = (sign_in(enter(), who) for who in ("ada", "bob"))
    (person,) = keycloak.ask("GET", "/users?username=ada&exact=true")
    keycloak.ask("POST", f"/users/{person['id']}/logout")
    signed_out(ada)
    assert session(bob) == 200
    sign_in(ada, "ada")


def test_who_signs_out_has_signed_out_of_keycloak(enter: Callable[[], Page]) -> None:
    ada = sign_in(enter(), "ada")
    other = ada.context.new_page()
    other.goto(ada.url)
    connected(other)
    ada.get_by_role("link", name="Sign out").click()
    signed_out(ada)
    signed_out(other)
    # It asks for the password again.
    sign_in(ada, "ada")


def test_tokens_with_a_new_key_count_and_those_with_the_old_one_do_so_on(
    keycloak: Keycloak, enter: Callable[[], Page]
) -> None:
    ada = sign_in(enter(), "ada")
    config = {"priority": ["1000"], "keySize": ["2048"], "algorithm": ["RS256"]}
    key = {"providerType": "org.keycloak.keys.KeyProvider", "providerId": "rsa-generated"}
    before = keycloak.ask("GET", "/keys")["active"]["RS256"]
    keycloak.ask("POST", "/components", key | {"name": "new", "config": config})
    assert keycloak.ask("GET", "/keys")["active"]["RS256"] != before
    bob = sign_in(enter(), "bob")
    assert (session(ada), session(bob)) == (200, 200)


def test_a_program_brings_a_token_of_a_client_of_its_own(site: Site, keycloak: Keycloak) -> None:
    bot = {"grant_type": "client_credentials", "client_id": "chat-bot", "client_secret": "BOT"}
    token = keycloak.token(**bot)
    assert site.ask("/api/session", Authorization=f"Bearer {token}") == (200, "")


def test_a_terminal_signs_in_by_a_code_that_somebody_confirms_in_a_browser(
    site: Site, keycloak: Keycloak, browser: Browser, tmp_path: Path
) -> None:
    errors = tmp_path / "errors"
    command = ["-m", "chat.client", f"http://127.0.0.1:{site.chats[0].port}/"]
    command += ["--sign-in", f"{keycloak.address}/realms/people", "--keep", str(tmp_path / "kept")]
    pipe = subprocess.PIPE
    with errors.open("wb") as file:
        program = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=file
        )
    try:
        shown = re.compile(r"or open (\S+)")
        eventually(lambda: shown.search(errors.read_text()), "it shows no code")
        page = browser.new_page()
        page.goto(shown.findall(errors.read_text())[0])
        give_password(page, "ada")
        page.get_by_role("button", name="Yes").click()
        expect(page.get_by_text("Device Login Successful")).to_be_visible()
        out, _ = program.communicate(b"from a terminal\n", timeout=60)
    finally:
        program.kill()
    assert out.split(b"\t")[1:] == [b"lobby", b"ada", b"from a terminal\n"]
