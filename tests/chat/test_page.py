"""The page, in a real browser, as people use it: by keyboard, on two replicas, across a restart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from conftest import Process
from edge import Edge
from playwright.sync_api import Browser, Page, WebSocketRoute, expect, sync_playwright

from tests.chromium import launch

Start = Callable[..., Process]
Open = Callable[..., Page]

PATIENCE_MS = 30_000
EXCUSED = re.compile(
    "WebSocket connection|/api/session|"
    "ERR_(NETWORK_CHANGED|INTERNET_DISCONNECTED|CONNECTION_REFUSED)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a replica's page as somebody. It may log no error and ask nobody else for anything."""
    pages: list[Page] = []
    trouble: list[str] = []

    def open_page(
        replica: Process | Edge,
        name: str = "",
        prepare: Callable[[Page], object] = lambda _page: None,
        **options: object,
    ) -> Page:
        options = {"service_workers": "block"} | options
        page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
        prepare(page)
        page.set_default_timeout(PATIENCE_MS)
        origin = f"//127.0.0.1:{replica.port}/"
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on(
            "console",
            lambda line: (
                trouble.append(line.text)
                # The browser reports a connection that fails, or who is not signed in, and gives up
                # requests when other tests on this machine add a network; the page goes on.
                if line.type == "error"
                and not EXCUSED.search(f"{line.text} {line.location['url']}")
                else None
            ),
        )
        page.on("request", lambda it: trouble.append(it.url) if origin not in it.url else None)
        page.goto(f"http:{origin}")
        if name:
            expect(page.get_by_role("dialog")).to_be_visible()
            page.keyboard.type(name)
            page.keyboard.press("Enter")
            connected(page)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert not trouble


def connected(page: Page) -> None:
    expect(page.get_by_role("status")).to_have_attribute("data-state", "connected")


def write(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def lines(page: Page) -> list[str]:
    return page.locator("[role=log]:visible li p").all_inner_texts()


def shows(page: Page, *texts: str) -> None:
    """The room's messages are these, in this order, and none of them waits."""
    expect(page.locator("[role=log]:visible li p")).to_have_text(list(texts))
    expect(page.locator("#pending li")).to_have_count(0)


def test_two_people_on_two_replicas_chat(
    process: Start, kafka: dict[str, str], open_page: Open
) -> None:
    one = process(kafka, CHAT_REPLICA="chat-one")
    other = process(kafka, CHAT_REPLICA="chat-two")
    ada = open_page(one, "Ada")
    bob = open_page(other, "Bob", viewport={"width": 390, "height": 760})
    expect(ada.get_by_role("status")).to_have_text("Connected to chat-one")
    expect(bob.get_by_role("status")).to_have_text("Connected to chat-two")
    said = ["Hello!", "<b>not bold</b> & <img src=x>", "two\nlines", "مرحبا 👋"]
    for page, text in zip((ada, bob, ada, bob), said, strict=True):
        write(page, text)
        for each in (ada, bob):
            expect(each.locator("[role=log] li p").last).to_have_text(text)
    shows(ada, *said)
    shows(bob, *said)
    authors = ada.locator("[role=log] .user").all_inner_texts()
    assert authors == ["Ada", "Bob", "Ada", "Bob"]


def test_a_restart_loses_nothing_and_shows_nothing_twice(
    process: Start, kafka: dict[str, str], open_page: Open
) -> None:
    going, staying = process(kafka), process(kafka)
    ada, bob = open_page(going, "Ada"), open_page(staying, "Bob")
    write(ada, "before")
    shows(bob, "before")
    going.popen.terminate()
    assert going.popen.wait(20) == 0
    expect(ada.get_by_role("status")).to_have_attribute("data-state", "waiting")
    write(ada, "while away")
    write(bob, "missed")
    expect(ada.locator("#pending li")).to_have_count(1)
    shows(bob, "before", "missed")
    process(kafka, CHAT_PORT=str(going.port))
    connected(ada)
    for page in (ada, bob):
        shows(page, "before", "missed", "while away")
        expect(page.locator(".gap")).to_have_count(0)


def test_a_killed_replica_is_noticed_and_what_was_missed_is_marked(
    process: Start, open_page: Open
) -> None:
    """An island forgets when it ends: the page must not pretend that nothing was missed."""
    island = process()
    ada = open_page(island, "Ada")
    write(ada, "soon forgotten")
    shows(ada, "soon forgotten")
    island.popen.kill()
    island.popen.wait()
    process(CHAT_PORT=str(island.port))
    connected(ada)
    expect(ada.get_by_text("You were away for longer")).to_be_visible()
    write(ada, "anew")
    expect(ada.locator("[role=log] li p")).to_have_text(["anew"])


def test_what_comes_twice_is_shown_once_and_what_is_unknown_is_ignored(
    process: Start, open_page: Open
) -> None:
    """A server may say more than this page knows, and a message again after a gap."""

    def answer(route: WebSocketRoute, text: str | bytes) -> None:
        frame = json.loads(text)
        said = {
            "type": "message",
            "room": "lobby",
            "user": "bob",
            "text": "hi",
            "ts": 0,
            "cid": "c",
        }
        if frame["type"] == "hello":
            welcome = {"type": "welcome", "protocol": 1, "replica": "mock", "limits": {}}
            say(route, welcome | {"user": frame["user"]})
        elif frame["type"] == "join":
            joined = {"type": "joined", "room": "lobby", "recovered": False, "new": "field"}
            say(route, joined | {"position": "1", "messages": [said | {"id": "1"}]})
            for known in ({"type": "weather"}, {"type": "constructor"}, said | {"id": "1"}):
                say(route, known)
            say(route, said | {"id": "2", "text": "there"})

    def say(route: WebSocketRoute, frame: dict[str, object]) -> None:
        route.send(json.dumps(frame))

    page = open_page(process())
    page.route_web_socket(
        "**/ws*", lambda route: route.on_message(lambda text: answer(route, text))
    )
    page.reload()
    page.keyboard.type("Ada")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Connected to mock")
    shows(page, "hi", "there")


def test_several_rooms_with_what_is_new_in_each(process: Start, open_page: Open) -> None:
    island = process()
    ada, bob = open_page(island, "Ada"), open_page(island, "Bob")
    for page in (ada, bob):
        page.get_by_label("Join a room").fill("kafka")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=2, name="kafka")).to_be_visible()
    bob.get_by_role("button", name="lobby", exact=True).click()
    write(ada, "one")
    write(ada, "two")
    expect(bob.get_by_role("button", name="kafka 2 new")).to_be_visible()
    assert bob.title() == "(2) Chat"
    assert lines(bob) == []
    bob.get_by_role("button", name="kafka 2 new").click()
    shows(bob, "one", "two")
    expect(bob).to_have_title("Chat")
    bob.get_by_role("button", name="Leave kafka").click()
    expect(bob.get_by_role("button", name="kafka", exact=True)).to_have_count(0)


def test_name_and_rooms_are_there_after_a_reload(process: Start, open_page: Open) -> None:
    island = process()
    ada = open_page(island, "Ada")
    ada.get_by_label("Join a room").fill("kafka")
    ada.keyboard.press("Enter")
    write(ada, "still there")
    shows(ada, "still there")
    ada.reload()
    connected(ada)
    shows(ada, "still there")
    expect(ada.get_by_role("button", name="Ada")).to_be_visible()
    expect(ada.get_by_role("button", name="lobby", exact=True)).to_be_visible()


def test_a_name_that_is_refused_can_be_given_again(process: Start, open_page: Open) -> None:
    page = open_page(process())
    page.keyboard.type("\u202eadmin")
    page.keyboard.press("Enter")
    expect(page.locator("#refused")).to_have_text(
        "A name has no control characters: leave them out."
    )
    page.get_by_label("Name").fill("Ada")
    page.keyboard.press("Enter")
    connected(page)


def test_what_is_refused_stays_and_says_why(process: Start, open_page: Open) -> None:
    ada = open_page(process(), "Ada")
    write(ada, "x" * 2001)
    expect(ada.get_by_role("alert").filter(has_text="2001 characters")).to_be_visible()
    expect(ada.get_by_label("Message", exact=True)).to_have_value("x" * 2001)
    write(ada, "\u3164")
    expect(ada.locator("#pending .failed")).to_contain_text("nothing to see")
    ada.get_by_role("button", name="Discard").click()
    write(ada, "fine")
    shows(ada, "fine")


def test_what_is_too_fast_is_sent_a_little_later(process: Start, open_page: Open) -> None:
    ada = open_page(process(CHAT_RATE="10", CHAT_BURST="5"), "Ada")
    for number in range(12):
        write(ada, f"text {number}")
    shows(ada, *(f"text {number}" for number in range(12)))


def test_a_hundred_messages_keep_the_last_in_sight(process: Start, open_page: Open) -> None:
    island = process()
    ada, bob = open_page(island, "Ada"), open_page(island, "Bob", color_scheme="dark")
    for number in range(60):
        write(ada, f"text {number}")
    expect(bob.get_by_text("text 59", exact=True)).to_be_in_viewport()
    # Whoever reads what was before is not torn away from it.
    bob.locator("#scroll").evaluate("box => { box.scrollTop = 0; }")
    write(ada, "the end")
    expect(bob.get_by_text("the end")).to_have_count(1)
    expect(bob.get_by_text("text 0", exact=True)).to_be_in_viewport()


def test_two_who_write_under_one_name_are_shown_as_two(process: Start, open_page: Open) -> None:
    replica = process(CHAT_NAME_HOLD_SECONDS="0")
    mallory = open_page(replica, "Ada")
    write(mallory, "I am Ada")
    shows(mallory, "I am Ada")
    bob = open_page(replica, "Bob")
    shows(bob, "I am Ada")
    marks = bob.locator("[role=log] .author:visible")
    expect(marks).to_have_count(0)
    mallory.close()
    ada = open_page(replica)
    # Until the service has noticed that the other one went, the name is taken.
    expect(bob.locator("#count")).to_have_text("1 person")
    ada.keyboard.type("Ada")
    ada.keyboard.press("Enter")
    connected(ada)
    write(ada, "So am I")
    write(bob, "Who?")
    for page in (ada, bob):
        shows(page, "I am Ada", "So am I", "Who?")
        marks = page.locator("[role=log] .author:visible")
        expect(marks).to_have_text(["(1)", "(2)"])
    expect(ada.locator("[role=log] .mine p")).to_have_text(["So am I"])


def test_who_is_here_and_who_is_typing_is_shown(process: Start, open_page: Open) -> None:
    island = process()
    ada, bob = open_page(island, "Ada"), open_page(island, "<b>Bob</b>")
    expect(ada.locator("#count")).to_have_text("2 people")
    ada.locator("#count").click()
    expect(ada.locator("#names li")).to_have_text(["<b>Bob</b>", "Ada"])
    bob.get_by_label("Message", exact=True).press_sequentially("hello")
    expect(ada.locator("#typing")).to_have_text("<b>Bob</b> is typing…")
    bob.keyboard.press("Enter")
    shows(ada, "hello")
    expect(ada.locator("#typing")).to_have_text("")
    bob.get_by_role("button", name="Leave lobby").click()
    expect(ada.locator("#count")).to_have_text("1 person")


def test_earlier_messages_come_as_one_scrolls_back_and_nothing_jumps(
    process: Start, open_page: Open
) -> None:
    island = process(CHAT_RECENT="20", CHAT_PAGE="15")
    ada = open_page(island, "Ada")
    texts = [f"text {number}" for number in range(60)]
    for text in texts:
        write(ada, text)
    expect(ada.locator("#pending li")).to_have_count(0)
    bob = open_page(island, "Bob", viewport={"width": 800, "height": 600})
    expect(bob.locator("#logs li:visible p")).to_have_text(texts[40:])
    bob.locator("#scroll").evaluate("box => { box.scrollTop = 0; }")
    expect(bob.locator("#logs li:visible p")).to_have_text(texts[25:])
    expect(bob.get_by_text("text 40", exact=True)).to_be_in_viewport()
    # By keyboard, too: what is focused is in sight, and then it can be pressed.
    bob.get_by_role("button", name="Show earlier messages").focus()
    expect(bob.locator("#logs li:visible p")).to_have_text(texts[10:])
    bob.keyboard.press("Enter")
    expect(bob.locator("#logs li:visible p")).to_have_text(texts)
    expect(bob.locator("#earlier")).to_be_hidden()
    # What is new goes on being new, and is the only thing that is read out.
    write(ada, "new")
    expect(bob.locator("#logs li:visible p")).to_have_text([*texts, "new"])
    expect(bob.locator("[role=log] li p")).to_have_text([*texts[40:], "new"])


def test_it_comes_back_when_it_was_asked_to(process: Start, open_page: Open) -> None:
    """By itself, it would wait twice as long each time."""
    came = 0

    def answer(route: WebSocketRoute, text: str | bytes) -> None:
        nonlocal came
        hello = json.loads(text)
        if hello["type"] != "hello":
            return
        came += 1
        if came == 1:
            # Too many from one address: a moment later.
            error = {"type": "error", "code": "rate_limited", "message": "Too many of you."}
            route.send(json.dumps(error))
        elif came < 8:
            route.send(json.dumps({"type": "bye", "reason": "restart", "retry_after": 0.01}))
            route.close(code=1012, reason="restart")
        else:
            welcome = {"type": "welcome", "protocol": 1, "replica": "mock", "limits": {}}
            route.send(json.dumps(welcome | {"user": hello["user"]}))

    page = open_page(process())
    page.route_web_socket(
        "**/ws*", lambda route: route.on_message(lambda text: answer(route, text))
    )
    page.reload()
    page.keyboard.type("Ada")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Connected to mock", timeout=10_000)


def test_an_address_that_names_no_room_leads_to_the_rooms_one_has(
    process: Start, open_page: Open
) -> None:
    replica = process({})
    ada = open_page(replica, "Ada")
    connected(ada)
    ada.goto(f"http://127.0.0.1:{replica.port}/#100%")
    ada.reload()
    connected(ada)
    write(ada, "still here")
    shows(ada, "still here")
