"""The page where the service wants tokens: a proxy turns the cookie of its browser into one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Process
from edge import Edge
from playwright.sync_api import BrowserContext, Page, Request, Route, expect
from provider import ec_key, jwks, signed
from test_page import Open, browser, connected, open_page, shows, write
from test_page_honesty import state

__all__ = ["browser", "open_page"]

Start = Callable[..., Process]
KEY = ec_key("first")
SIGN_IN = "/oauth2/start?rd=/"
SIGN_OUT = "/oauth2/sign_out?rd=/&x=y"
SIGNED_OUT = "You are not signed in"
# Of a token, from now on; one that ended so long ago counts for a second more.
LIFE = 300.0
NEARLY = -59.0


class Gate(Edge):
    """The edge with its proxy: the cookie `who` has the name, and becomes a token."""

    def __init__(self, **replicas: Process) -> None:
        super().__init__(**replicas)
        self.change = self._change
        self.life = LIFE
        # When tokens are issued, from now on.
        self.issued = -60.0
        # The first lines of all requests for the session.
        self.asked: list[str] = []

    def _change(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        if "/api/session" in lines[0]:
            self.asked.append(lines[0].removesuffix(" HTTP/1.1"))
        if not any(line.lower() == "upgrade: websocket" for line in lines):
            # Each has a connection of its own, so that each is seen here.
            lines = [line for line in lines if not line.lower().startswith("connection:")]
            lines.append("Connection: close")
        if who := re.search(r"\bwho=(\w+)", head.decode()):
            lines.append(f"Authorization: Bearer {self._token(who[1])}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def _token(self, user: str) -> str:
        now = time.time()
        claims = {"iss": "edge", "aud": "chat", "sub": user, "iat": now + self.issued}
        name = user.removesuffix("_too")
        return signed(claims | {"preferred_username": name, "exp": now + self.life}, KEY)


@pytest.fixture
def gate(process: Start, tmp_path: Path) -> Iterator[Gate]:
    (tmp_path / "jwks.json").write_bytes(jwks(KEY))
    issuers = [{"issuer": "edge", "audience": "chat", "jwks": str(tmp_path / "jwks.json")}]
    replica = process(
        CHAT_AUTH="required",
        CHAT_AUTH_ISSUERS=json.dumps(issuers),
        CHAT_AUTH_SIGN_IN_URL=SIGN_IN,
        CHAT_AUTH_SIGN_OUT_URL=SIGN_OUT,
        CHAT_PING_SECONDS="1",
        CHAT_PONG_SECONDS="0.5",
    )
    with Gate(replica=replica) as gate:
        yield gate


def sign_in(context: BrowserContext, gate: Gate, who: str) -> None:
    """As another tab may have done it."""
    context.add_cookies([{"name": "who", "value": who, "url": f"http://127.0.0.1:{gate.port}"}])


def come_back(page: Page) -> None:
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def signed_in(open_page: Open, gate: Gate, who: str, **options: Any) -> Page:
    page = open_page(gate, "", lambda page: sign_in(page.context, gate, who), **options)
    state(page, "connected")
    return page


def cut_off_while_writing(gate: Gate, open_page: Open) -> Page:
    """The page of Ada, whose token has ended, with a message that was not sent."""
    gate.life = NEARLY
    ada = signed_in(open_page, gate, "ada")
    ada.context.clear_cookies()
    expect(ada.get_by_role("status").first).to_have_text(SIGNED_OUT)
    write(ada, "of Ada")
    return ada


def test_who_is_not_signed_in_is_led_there_and_writes_under_the_name_of_the_token(
    gate: Gate, open_page: Open
) -> None:
    def at_the_provider(route: Route) -> None:
        sign_in(route.request.frame.page.context, gate, "ada")
        route.fulfill(status=302, headers={"Location": "/"})

    ada = open_page(
        gate, "", lambda page: page.route("**" + SIGN_IN, at_the_provider), locale="en-GB"
    )
    expect(ada.get_by_role("status").first).to_have_text(SIGNED_OUT)
    expect(ada.get_by_role("dialog")).to_be_hidden()
    assert (gate.asked, gate.ways) == (["GET /api/session"], []), "nothing that would be refused"
    ada.keyboard.press("Tab")
    expect(ada.get_by_role("link", name="Sign in")).to_be_focused()
    ada.get_by_label("Message", exact=True).focus()
    expect(ada.get_by_label("Message", exact=True)).not_to_be_focused()
    found = Axe().run(ada)
    assert found.violations_count == 0, found.generate_report()
    ada.get_by_role("link", name="Sign in").click()
    connected(ada)
    expect(ada.get_by_role("banner")).to_contain_text("ada")
    expect(ada.get_by_role("link", name="Sign in")).to_be_hidden()
    expect(ada.locator("#rename")).to_have_count(0)
    leave = ada.get_by_role("link", name="Sign out")
    expect(leave).to_have_attribute("href", SIGN_OUT)
    assert leave.evaluate("it => it.getBoundingClientRect().height") >= 24
    found = Axe().run(ada)
    assert found.violations_count == 0, found.generate_report()
    write(ada, "hello")
    bob = signed_in(open_page, gate, "bob", locale="de", viewport={"width": 390, "height": 760})
    shows(bob, "hello")
    expect(bob.locator("[role=log] .user")).to_have_text(["ada"])
    expect(bob.get_by_role("link", name="Abmelden")).to_be_in_viewport(ratio=1)


def test_it_waits_if_the_service_cannot_say_who_it_is_and_asks_before_each_attempt(
    gate: Gate, open_page: Open
) -> None:
    def prepare(page: Page) -> None:
        sign_in(page.context, gate, "ada")
        page.route("**/api/session", lambda route: route.fulfill(status=500))

    ada = open_page(gate, "", prepare)
    state(ada, "waiting")
    assert gate.ways == []
    ada.unroute("**/api/session")
    connected(ada)
    assert gate.asked == ["GET /api/session"]
    gate.mute = "replica"
    ada.context.set_offline(True)
    state(ada, "offline")
    ada.context.set_offline(False)
    gate.mute = ""
    connected(ada)
    assert len(gate.ways) == gate.asked.count("GET /api/session") == 2


def test_it_renews_its_token_and_stays_connected(gate: Gate, open_page: Open) -> None:
    gate.life = 3.0
    answers: list[int] = []

    def note(request: Request) -> None:
        response = request.response()
        if request.method == "POST" and response:
            answers.append(response.json()["until"])

    ada = signed_in(open_page, gate, "ada")
    ada.on("requestfinished", note)
    ada.wait_for_event("requestfinished", lambda request: request.method == "POST")
    ada.wait_for_event("requestfinished", lambda request: request.method == "POST")
    first, second = answers[:2]
    assert 1_000 < second - first < 3_000, "before it ended, and not again and again"
    assert len(gate.ways) == 1


def test_a_token_that_has_ended_is_replaced_and_then_its_owner_signs_in_again(
    gate: Gate, open_page: Open
) -> None:
    gate.life = NEARLY
    ada = signed_in(open_page, gate, "ada")
    write(ada, "one")
    shows(ada, "one")
    gate.life = LIFE
    # The service closes the first with 4401, and it is not the end.
    while len(gate.ways) < 2:
        ada.wait_for_timeout(20)
    connected(ada)
    assert gate.ways[0].end - gate.ways[0].begin < 10
    gate.life = NEARLY
    ada.reload()
    connected(ada)
    ada.context.clear_cookies()
    expect(ada.get_by_role("status").first).to_have_text(SIGNED_OUT)
    write(ada, "two")
    count = len(gate.ways)
    gate.life = LIFE
    sign_in(ada.context, gate, "ada")
    come_back(ada)
    shows(ada, "one", "two")
    assert len(gate.ways) == count + 1


def test_what_somebody_wrote_is_sent_by_nobody_else_at_this_browser(
    gate: Gate, open_page: Open
) -> None:
    ada = cut_off_while_writing(gate, open_page)
    ada.get_by_label("Message", exact=True).fill("a draft of Ada")
    gate.life = LIFE
    sign_in(ada.context, gate, "bob")
    come_back(ada)
    expect(ada.get_by_role("banner")).to_contain_text("bob")
    write(ada, "of Bob")
    shows(ada, "of Bob")
    expect(ada.get_by_label("Message", exact=True)).to_have_value("")
    # Nor is it lost.
    sign_in(ada.context, gate, "ada")
    ada.reload()
    expect(ada.get_by_label("Message", exact=True)).to_have_value("a draft of Ada")
    shows(ada, "of Bob", "of Ada")


def test_who_signs_in_while_it_connects_sends_nothing_of_somebody_else(
    gate: Gate, open_page: Open
) -> None:
    ada = cut_off_while_writing(gate, open_page)
    author = json.loads(ada.evaluate("localStorage['chat.author']"))
    answer = {"user": "ada", "author": author, "until": 0}
    ada.route("**/api/session", lambda route: route.fulfill(json=answer), times=1)
    gate.life = LIFE
    sign_in(ada.context, gate, "bob")
    come_back(ada)
    expect(ada.get_by_role("banner")).to_contain_text("bob")
    write(ada, "of Bob")
    shows(ada, "of Bob")


def test_who_has_signed_out_leaves_no_page_to_write_in(gate: Gate, open_page: Open) -> None:
    def at_the_proxy(route: Route) -> None:
        route.request.frame.page.context.clear_cookies()
        route.fulfill(status=302, headers={"Location": "/"})

    ada = signed_in(open_page, gate, "ada")
    ada.route("**" + SIGN_OUT, at_the_proxy)
    field = ada.get_by_label("Message", exact=True)
    field.fill("a draft of Ada")
    other = open_page(gate, "", lambda page: sign_in(page.context, gate, "ada"))
    connected(other)
    ada.get_by_role("link", name="Sign out").click()
    expect(ada.get_by_role("status").first).to_have_text(SIGNED_OUT)
    # Her cookie is still in that browser.
    expect(other.get_by_role("status").first).to_have_text(SIGNED_OUT)
    assert "DELETE /api/session" in gate.asked
    # The next one at this browser would write in her name, and she would send it.
    field.focus()
    expect(field).not_to_be_focused()
    expect(field).to_have_value("")
    gate.issued = 30
    sign_in(ada.context, gate, "ada")
    come_back(ada)
    connected(ada)
    expect(field).to_have_value("a draft of Ada")


def test_who_is_banned_from_the_chat_is_told_until_when_and_asks_again_when_they_want(
    gate: Gate, open_page: Open
) -> None:
    page = signed_in(open_page, gate, "ada")
    why = "you are banned from this chat until 2026-12-01T13:00:00+00:00"
    page.route("**/api/session", lambda route: route.fulfill(status=403, json={"error": why}))
    # The same code closes the connections of those who are banned.
    page.request.delete(f"http://127.0.0.1:{gate.port}/api/session")
    state(page, "refused")
    expect(page.get_by_role("status").first).to_contain_text(why)
    page.unroute("**/api/session")
    gate.issued = 1.0
    page.get_by_role("button", name="Now").click()
    state(page, "connected")


@pytest.mark.parametrize("status", [404, 409])
def test_it_connects_again_if_its_connection_cannot_be_renewed(
    gate: Gate, open_page: Open, status: int
) -> None:
    gate.life = 1.5
    urls: list[str] = []

    def prepare(page: Page) -> None:
        sign_in(page.context, gate, "ada")
        page.on("websocket", lambda way: urls.append(way.url.rpartition("/")[2]))
        page.route("**/api/session?*", lambda route: route.fulfill(status=status))

    ada = open_page(gate, "", prepare)
    connected(ada)
    ada.wait_for_event("websocket")
    assert urls[:2] == ["ws", "ws"], "to the replica that its cookie names"


def test_who_has_the_name_of_another_one_cannot_choose_one(gate: Gate, open_page: Open) -> None:
    signed_in(open_page, gate, "ada")
    other = signed_in(open_page, gate, "ada_too")
    expect(other.locator("#why")).to_contain_text("You are not in this room")
    expect(other.locator("#why").get_by_role("button")).to_have_text(["Join again"])
    expect(other.get_by_role("dialog")).to_be_hidden()


def test_where_nobody_signs_in_nothing_is_asked(process: Start, open_page: Open) -> None:
    asked: list[str] = []
    page = open_page(
        process(), "Ada", lambda page: page.on("request", lambda it: asked.append(it.url))
    )
    assert [url for url in asked if re.search(r"session|sign_in", url)] == []
    expect(page.locator("header a")).to_have_count(0)
