"""Who signs out, here or at the provider, is signed out of all replicas, also after these restart:
Traefik, oauth2-proxy, a real provider, and two replicas of the chat that share a log.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import environment_of, make_topics
from kafka import KafkaAdminClient
from playwright.sync_api import Page, Response, expect
from test_page import browser
from test_sign_in import (
    UNVERIFIED,
    Program,
    Site,
    cookie_of,
    enter,
    eventually,
    provider_on,
    registered,
    session,
    signing_in,
)
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.chromium import sign_in
from tests.kafka_broker import KafkaBroker, free_port
from tests.traefik import PATIENCE_SECONDS

__all__ = ["browser", "enter"]

REPLICAS = 2


@pytest.fixture(scope="module")
def site(kafka_broker: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with contextlib.closing(
        KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap_servers)
    ) as admin:
        kafka = environment_of(kafka_broker, make_topics(admin))
    port, provider_port = free_port(), free_port()

    def provider(client: dict[str, str]) -> Program:
        uri = f"https://localhost:{port}/api/backchannel-logout"
        one = registered(
            client, backchannel_logout_uri=uri, backchannel_logout_session_required=True
        )
        lifetimes = dict.fromkeys(("IdToken", "AccessToken", "RefreshToken", "Session"), 3600)
        return provider_on(provider_port, folder, {"clients": [one], "lifetimes": lifetimes})

    issuers = [{"issuer": f"http://127.0.0.1:{provider_port}", "audience": "chat"}]
    with signing_in(
        folder,
        port,
        provider,
        issuers,
        replicas=REPLICAS,
        kafka=kafka,
        oauth2_proxy_token_seconds=3600,
    ) as site:
        eventually(lambda: statuses(site) == {401}, "the replicas do not become ready")
        yield site


def statuses(site: Site, cookie: str = "") -> set[int]:
    """What all replicas say of a session: Traefik asks them in turn."""
    headers = {"Cookie": cookie} if cookie else {}
    return {site.ask("/api/session", **headers)[0] for _ in range(2 * REPLICAS)}


@contextlib.contextmanager
def sockets(site: Site, cookie: str) -> Iterator[dict[str, ClientConnection]]:
    """Connections of somebody with this cookie, one to each replica."""
    found: dict[str, ClientConnection] = {}
    with contextlib.ExitStack() as closing:
        for _ in range(REPLICAS):
            socket = closing.enter_context(
                connect(
                    f"wss://localhost:{site.port}/ws",
                    ssl=UNVERIFIED,
                    additional_headers={"Cookie": cookie},
                    open_timeout=PATIENCE_SECONDS,
                )
            )
            socket.send(json.dumps({"type": "hello", "user": ""}))
            found[json.loads(socket.recv())["replica"]] = socket
        assert len(found) == REPLICAS
        yield found


def end(sockets: dict[str, ClientConnection]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    for replica, socket in sockets.items():
        try:
            while True:
                socket.recv(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            pytest.fail(f"replica {replica} does not close the connection")
        except ConnectionClosed:
            assert socket.close_code == 4403


def by_the_page(page: Page, _site: Site) -> None:
    def deletion(response: Response) -> bool:
        return response.request.method == "DELETE"

    with page.expect_response(deletion) as deleted:
        page.get_by_role("link", name="Sign out").click()
    assert deleted.value.status == 204


def at_the_provider(page: Page, site: Site) -> None:
    other = page.context.new_page()
    other.goto(f"http://127.0.0.1:{site.provider.port}/session/end")
    other.get_by_role("button", name="Yes").click()
    line = "back-channel logout of "
    eventually(
        lambda: any(line in chat.log.read_text() for chat in site.chats),
        "the provider does not tell the chat",
    )


def test_a_session_that_has_ended_counts_on_no_replica_also_after_they_restart(
    site: Site, enter: Callable[[], Page]
) -> None:
    """Browsers of one person: one signs out on the page, one at the provider, and one stays."""
    first, second, staying = (sign_in(enter(), "ada") for _ in range(3))
    ended: list[str] = []
    for page, sign_out in ((first, by_the_page), (second, at_the_provider)):
        ended.append(cookie_of(page))
        assert statuses(site, ended[-1]) == {200}
        with sockets(site, ended[-1]) as both:
            sign_out(page, site)
            end(both)
        assert statuses(site, ended[-1]) == {401}
        expect(page.get_by_role("status").first).to_have_text("You are not signed in")
    site.restart_chats()

    def ready() -> bool:
        answers = {status for cookie in ended for status in statuses(site, cookie)}
        assert 200 not in answers, "it took somebody before it knew who has signed out"
        return answers == {401}

    eventually(ready, "the replicas do not become ready again")
    assert session(staying) == 200
