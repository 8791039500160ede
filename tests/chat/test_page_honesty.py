"""The page says what it knows: of the connection, and of what was sent."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT, Process
from playwright.sync_api import Page, Route, WebSocketRoute, expect
from test_page import Open, browser, connected, open_page, shows, write

__all__ = ["browser", "open_page"]

Start = Callable[..., Process]
Frame = dict[str, Any]

LIMITS = {"frame_bytes": 32768, "text_bytes": 8192, "text_graphemes": 2000, "rooms": 50}


class Network:
    """The way between a page and the service: it passes all on, or goes silent."""

    def __init__(self) -> None:
        self.silent = False
        # Of the ways that were opened so far.
        self.urls: list[str] = []

    @property
    def count(self) -> int:
        return len(self.urls)

    def route(self, way: WebSocketRoute) -> None:
        self.urls.append(way.url)
        if self.silent:
            # A handshake that is answered, and then nothing.
            return
        service = way.connect_to_server()
        way.on_message(lambda text: None if self.silent else service.send(text))
        service.on_message(lambda text: None if self.silent else way.send(text))
        # Neither side hears of the other one's end, either.
        way.on_close(lambda _code, _reason: None if self.silent else service.close())
        service.on_close(
            lambda code, reason: None if self.silent else way.close(code=code, reason=reason)
        )


class Mock:
    """A service of the test's own, which keeps what it was sent and answers as it is told."""

    def __init__(self, answer: Callable[[Mock, WebSocketRoute, Frame], None]) -> None:
        self.answer = answer
        self.count = 0
        self.sent: list[Frame] = []

    def route(self, way: WebSocketRoute) -> None:
        self.count += 1
        way.on_message(lambda text: self.hear(way, json.loads(text)))

    def hear(self, way: WebSocketRoute, frame: Frame) -> None:
        if frame["type"] == "hello":
            welcome = {"type": "welcome", "protocol": 1, "replica": "mock", "limits": LIMITS}
            say(way, welcome | {"user": frame["user"]})
        elif frame["type"] == "join":
            joined = {"type": "joined", "room": frame["room"], "recovered": True, "position": "1"}
            say(way, joined | {"messages": [], "more": False})
        elif frame["type"] == "ping":
            say(way, {"type": "pong"})
        elif frame["type"] == "send":
            self.sent.append(frame)
            self.answer(self, way, frame)

    @property
    def texts(self) -> list[str]:
        return [frame["text"] for frame in self.sent]


def say(way: WebSocketRoute, frame: Frame) -> None:
    way.send(json.dumps(frame))


def take(way: WebSocketRoute, frame: Frame, ts: int = 0) -> None:
    """As the service takes a message: it is shown, and acknowledged."""
    identity = f"id-{frame['cid']}"
    message = frame | {"type": "message", "id": identity, "user": "Ada", "ts": ts}
    say(way, message)
    say(way, {"type": "ack", "cid": frame["cid"], "id": identity})


def begin(page: Page, name: str = "Ada") -> None:
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    connected(page)


def state(page: Page, name: str) -> None:
    expect(page.get_by_role("status").first).to_have_attribute("data-state", name)


def paused(page: Page) -> None:
    """Time passes in the page only as the test says, from its next load on."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


def reload_through(way: Network | Mock, page: Page, *, stop_time: bool = False) -> None:
    """Load the page again, whose connections now go this way."""
    page.route_web_socket("**/ws*", way.route)
    if stop_time:
        paused(page)
    page.reload()


def open_mocked(
    process: Start,
    open_page: Open,
    answer: Callable[[Mock, WebSocketRoute, Frame], None],
    *,
    stop_time: bool = False,
    **context: Any,
) -> tuple[Mock, Page]:
    """A service that answers so, and Ada's page, which talks to it."""
    mock = Mock(answer)
    ada = open_page(process(), **context)
    reload_through(mock, ada, stop_time=stop_time)
    begin(ada)
    return mock, ada


def pass_until(page: Page, condition: Callable[[], bool]) -> None:
    """Let time pass in the page until something has come about, for a minute at most."""
    for _ in range(120):
        if condition():
            return
        page.clock.run_for(500)
    raise AssertionError("not within a minute of the page's time")


def test_a_silent_network_is_noticed_within_10_s_and_what_was_missed_comes(
    process: Start, open_page: Open
) -> None:
    island, network = process(), Network()
    ada = open_page(island)
    reload_through(network, ada, stop_time=True)
    begin(ada)
    bob = open_page(island, "Bob")
    write(bob, "before")
    shows(ada, "before")
    network.silent = True
    write(bob, "missed")
    ada.clock.run_for(9_900)
    state(ada, "connected")
    ada.clock.run_for(200)
    state(ada, "waiting")
    expect(ada.locator("#countdown")).to_have_text("again in 1 s")
    network.silent = False
    ada.get_by_role("button", name="Now").click()
    connected(ada)
    shows(ada, "before", "missed")
    # The edge is to choose another replica than the one that went silent.
    assert [url.rpartition("/")[2] for url in network.urls] == ["ws", "ws?again=1"]


@pytest.mark.parametrize("event", ["online", "visibilitychange"])
def test_a_page_that_comes_back_asks_at_once(process: Start, open_page: Open, event: str) -> None:
    network = Network()
    ada = open_page(process())
    reload_through(network, ada, stop_time=True)
    begin(ada)
    network.silent = True
    ada.evaluate(
        "event => (event === 'online' ? window : document).dispatchEvent(new Event(event))", event
    )
    ada.clock.run_for(3_000)
    state(ada, "waiting")
    network.silent = False
    ada.clock.run_for(1_000)
    connected(ada)


def test_a_handshake_without_an_answer_is_tried_again_after_10_s(
    process: Start, open_page: Open
) -> None:
    network = Network()
    network.silent = True
    ada = open_page(process())
    reload_through(network, ada, stop_time=True)
    ada.keyboard.type("Ada")
    ada.keyboard.press("Enter")
    state(ada, "connecting")
    ada.clock.run_for(9_900)
    state(ada, "connecting")
    network.silent = False
    ada.clock.run_for(1_000)
    connected(ada)
    assert network.count == 2


def test_a_page_that_came_in_part_is_loaded_again(process: Start, open_page: Open) -> None:
    given_up = iter([True, True, False])

    def pass_on(route: Route) -> None:
        if next(given_up, False):
            route.abort("internetdisconnected")
        else:
            route.continue_()

    ada = open_page(process(), prepare=lambda page: page.route("**/rooms.js", pass_on))
    begin(ada)
    assert ada.evaluate("sessionStorage.getItem('chat.boots')") is None


def test_close_codes_are_taken_for_what_they_say(process: Start, open_page: Open) -> None:
    """Whoever is refused for good does not come back by itself; whoever restarts says when."""
    codes = iter([(4001, "this name was banned"), (1012, "restart; retry_after=7")])

    def close(_mock: Mock, way: WebSocketRoute, _frame: Frame) -> None:
        code, reason = next(codes)
        way.close(code=code, reason=reason)

    mock, ada = open_mocked(process, open_page, close, stop_time=True)
    write(ada, "hello")
    state(ada, "refused")
    expect(ada.get_by_role("status").first).to_contain_text("this name was banned")
    # Nor if the computer's network comes and goes.
    ada.evaluate("window.dispatchEvent(new Event('online'))")
    ada.clock.run_for(120_000)
    assert mock.count == 1
    ada.get_by_role("button", name="Now").click()
    state(ada, "waiting")
    expect(ada.locator("#countdown")).to_have_text("again in 7 s")
    expect(ada.get_by_role("status").first).to_contain_text("The service restarts")
    # A dialog that is cancelled changes nothing about that.
    ada.locator("#rename").click()
    ada.keyboard.press("Escape")
    expect(ada.get_by_role("dialog")).to_be_hidden()
    ada.clock.run_for(6_000)
    state(ada, "waiting")
    assert mock.count == 2


def test_its_times_are_the_documented_ones(process: Start, open_page: Open) -> None:
    page = open_page(process())
    times = page.evaluate("async () => (await import('./connection.js')).TIMERS")
    document = (ROOT / "docs" / "protocol.md").read_text().split("## Timers")[1]
    rows = re.findall(r"^\| (\w+) \| ([0-9.]+)(?: to ([0-9.]+))? \|", document, re.MULTILINE)
    assert times == {
        name: [1000 * float(least), 1000 * float(most)] if most else 1000 * float(least)
        for name, least, most in rows
    }


def test_a_message_that_the_service_hangs_up_on_fails_once_and_holds_nobody_up(
    process: Start, open_page: Open
) -> None:
    def hang_up(_mock: Mock, way: WebSocketRoute, frame: Frame) -> None:
        if frame["text"] == "poison":
            way.close(code=1009, reason="too big")
        else:
            take(way, frame)

    mock, ada = open_mocked(process, open_page, hang_up)
    write(ada, "poison")
    write(ada, "after it")
    failed = ada.locator("#pending .failed")
    expect(failed).to_contain_text("Not sent. It is too long for the service.")
    expect(ada.locator("[role=log] li p")).to_have_text(["after it"])
    assert mock.texts.count("poison") == 1
    write(ada, "meanwhile")
    failed.get_by_role("button", name="Edit").click()
    expect(ada.get_by_label("Message", exact=True)).to_have_value("poison")
    expect(ada.locator("#pending li")).to_have_count(0)


def test_in_slow_mode_a_message_goes_when_it_may(process: Start, open_page: Open) -> None:
    why = "Slow mode: each person sends at most one message in 30 s. Yours may go in 4 s."

    def answer(mock: Mock, way: WebSocketRoute, frame: Frame) -> None:
        if len(mock.sent) == 1:
            error = {"type": "error", "code": "rate_limited", "message": why, "retry_after": 4}
            say(way, error | {"cid": frame["cid"], "room": frame["room"]})
        else:
            take(way, frame)

    mock, ada = open_mocked(process, open_page, answer, stop_time=True)
    write(ada, "first")
    write(ada, "second")
    expect(ada.locator("#pending li").first).to_contain_text(f"Not sent yet. {why}")
    # Longer than after other refusals, and not so long that the page gives the connection up: a
    # busy machine may not bring the answer to its ping in time.
    ada.clock.run_for(3_500)
    assert mock.texts == ["first"]
    ada.clock.run_for(1_000)
    expect(ada.locator("[role=log] li p")).to_have_text(["first", "second"])
    assert mock.texts == ["first", "first", "second"]
    assert mock.sent[0] == mock.sent[1]


def test_what_is_too_long_is_said_offline_too(process: Start, open_page: Open) -> None:
    island = process()
    ada = open_page(island, "Ada")
    island.popen.kill()
    island.popen.wait()
    state(ada, "waiting")
    for text in ("x" * 40_000, "x" + "\x01" * 8_000 + "x"):
        write(ada, text)
        expect(ada.get_by_role("alert").filter(has_text="can go.")).to_be_visible()
        expect(ada.get_by_label("Message", exact=True)).to_have_value(text)
    expect(ada.locator("#pending li")).to_have_count(0)


def unacknowledged(process: Start, open_page: Open) -> tuple[Mock, Page]:
    """A service that takes messages from the page's second connection on, and the page."""
    return open_mocked(
        process,
        open_page,
        lambda mock, way, frame: take(way, frame) if mock.count > 1 else None,
    )


def test_what_was_written_offline_outlives_a_reload_under_its_cid(
    process: Start, open_page: Open
) -> None:
    """An answer that got lost: the service has it, and the page cannot know."""
    mock, ada = unacknowledged(process, open_page)
    write(ada, "first")
    write(ada, "second")
    expect(ada.locator("#pending li")).to_have_count(2)
    ada.reload()
    shows(ada, "first", "second")
    assert mock.texts == ["first", "first", "second"]
    assert mock.sent[0]["cid"] == mock.sent[1]["cid"]
    assert ada.evaluate("Object.keys(localStorage).filter(key => /outbox/.test(key))") == []


def test_what_may_have_been_sent_long_ago_is_sent_again_only_by_its_author(
    process: Start, open_page: Open
) -> None:
    """The next day, the service does not know any more that it has this message."""
    mock, ada = unacknowledged(process, open_page)
    write(ada, "perhaps")
    expect(ada.locator("#pending")).to_contain_text("Sending…")
    ada.goto("about:blank")
    ada.clock.install(time=time.time() + 86_400)
    ada.go_back()
    failed = ada.locator("#pending .failed")
    expect(failed).to_contain_text("It may have been sent before the connection broke")
    write(ada, "today")
    expect(ada.locator("[role=log] li p")).to_have_text(["today"])
    assert mock.texts == ["perhaps", "today"]
    failed.get_by_role("button", name="Try again").click()
    shows(ada, "today", "perhaps")


def test_two_tabs_send_it_once_and_one_takes_what_the_other_left(
    process: Start, open_page: Open
) -> None:
    mock = Mock(lambda mock, way, frame: take(way, frame) if mock.count > 2 else None)
    one = open_page(process())
    one.context.route_web_socket("**/ws*", mock.route)
    one.reload()
    begin(one)
    write(one, "once")
    expect(one.locator("#pending")).to_contain_text("Sending…")
    # It asks whose it is, is told, and leaves it alone.
    other = one.context.new_page()
    paused(other)
    other.goto(one.url)
    connected(other)
    # Answers keep the order of the questions: after this one, the page has its own.
    other.evaluate("""() => new Promise(resolve => {
        const [cid] = Object.keys(localStorage).filter(key => key.startsWith("chat.outbox."));
        const tabs = new BroadcastChannel("chat.tabs");
        tabs.onmessage = ({ data }) => data.here && resolve();
        tabs.postMessage({ ask: JSON.parse(localStorage.getItem(cid)).tab });
    })""")
    other.clock.run_for(5_000)
    expect(other.locator("#pending li")).to_have_count(0)
    assert mock.texts == ["once"]
    mock.count = 3
    one.goto("about:blank")
    pass_until(other, lambda: len(mock.texts) == 2)
    shows(other, "once")
    assert mock.texts == ["once", "once"]
    assert len({frame["cid"] for frame in mock.sent}) == 1


def test_what_one_tab_has_shown_is_new_in_no_other(process: Start, open_page: Open) -> None:
    island = process()
    one = open_page(island, "Ada")
    other = one.context.new_page()
    other.goto(f"http://127.0.0.1:{island.port}/#x")
    connected(other)
    expect(other.get_by_role("heading", level=2, name="x")).to_be_visible()
    bob = open_page(island, "Bob")
    for text in ("first", "second", "third"):
        write(bob, text)
    shows(one, "first", "second", "third")
    expect(other.locator("#logs [aria-label='Messages in lobby'] li")).to_have_count(3)
    expect(other.locator("#rooms .count:visible")).to_have_count(0)
    expect(other).to_have_title("Chat")


def test_half_a_character_is_mended_and_indentation_is_kept(
    process: Start, open_page: Open
) -> None:
    ada = open_page(process(), "Ada")
    ada.evaluate("document.querySelector('#text').value = 'half \\ud83d'")
    ada.locator("#text").press("Enter")
    write(ada, "\n    if x:\n        y\n")
    expect(ada.locator("[role=log] li p")).to_have_count(2)
    texts = ada.locator("[role=log] li p").evaluate_all("all => all.map(p => p.textContent)")
    assert texts == ["half \ufffd", "    if x:\n        y"]


def test_a_half_composed_word_is_not_sent(process: Start, open_page: Open) -> None:
    ada = open_page(process(), "Ada")
    text = ada.get_by_label("Message", exact=True)
    text.fill("にほ")
    text.dispatch_event("keydown", {"key": "Enter", "keyCode": 229, "isComposing": False})
    expect(text).to_have_value("にほ")
    expect(ada.locator("#pending li")).to_have_count(0)


def test_a_draft_belongs_to_its_room_and_outlives_a_reload(process: Start, open_page: Open) -> None:
    ada = open_page(process(), "Ada")
    text = ada.get_by_label("Message", exact=True)
    text.fill("for the lobby")
    ada.get_by_label("Join a room").fill("x")
    ada.keyboard.press("Enter")
    expect(text).to_have_value("")
    ada.reload()
    expect(text).to_have_value("")
    ada.get_by_role("button", name="lobby", exact=True).click()
    expect(text).to_have_value("for the lobby")


def test_the_first_dialog_stays_and_a_rename_is_confirmed_first(
    process: Start, open_page: Open
) -> None:
    ada = open_page(process())
    dialog = ada.get_by_role("dialog")
    for _ in range(3):
        ada.keyboard.press("Escape")
        expect(dialog).to_be_visible()
    begin(ada)
    ada.get_by_role("button", name="Ada").click()
    expect(dialog).to_be_visible()
    state(ada, "connected")
    ada.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(ada.get_by_role("button", name="Ada")).to_be_visible()
    state(ada, "connected")
    ada.get_by_role("button", name="Ada").click()
    ada.get_by_label("Name").fill("Grace")
    ada.keyboard.press("Enter")
    expect(ada.get_by_role("button", name="Grace")).to_be_visible()
    connected(ada)


def test_who_is_put_out_of_a_room_is_told_why(process: Start, open_page: Open) -> None:
    """Another token says that its person may not read this room any more."""

    def answer(_mock: Mock, way: WebSocketRoute, frame: Frame) -> None:
        take(way, frame)
        error = {
            "type": "error",
            "code": "bad_room",
            "message": "It is not for you.",
            "room": "lobby",
        }
        say(way, error)
        say(way, {"type": "left", "room": "lobby"})

    _, ada = open_mocked(process, open_page, answer)
    write(ada, "hello")
    shows(ada, "hello")
    expect(ada.locator("#why")).to_contain_text("You are not in this room. It is not for you.")


def test_a_room_that_one_may_only_read_has_no_place_to_write(
    process: Start, open_page: Open
) -> None:
    ways: list[WebSocketRoute] = []
    _, ada = open_mocked(
        process, open_page, lambda _mock, way, frame: (ways.append(way), take(way, frame))[1]
    )
    write(ada, "hello")
    shows(ada, "hello")
    place, why = ada.get_by_label("Message", exact=True), ada.locator("#why")
    place.fill("not yet sent")
    say(ways[0], {"type": "access", "room": "lobby", "read_only": True})
    expect(place).to_be_hidden()
    expect(why).to_have_text("You may read this room, but not write in it.")
    found = Axe().run(ada)
    assert found.violations_count == 0, found.generate_report()
    ada.get_by_label("Join a room").fill("other")
    ada.keyboard.press("Enter")
    expect(place).to_be_visible()
    expect(why).to_be_hidden()
    ada.get_by_role("button", name="lobby", exact=True).click()
    expect(place).to_be_hidden()
    say(ways[0], {"type": "access", "room": "lobby", "read_only": False})
    expect(place).to_have_value("not yet sent")
    expect(place).to_be_visible()
    joined = {"type": "joined", "room": "lobby", "recovered": True, "position": "1"}
    say(ways[0], joined | {"messages": [], "more": False, "read_only": True})
    expect(place).to_be_hidden()


def test_a_room_that_is_not_joined_says_why_and_is_joined_when_there_is_a_place(
    process: Start, open_page: Open
) -> None:
    ada = open_page(process(CHAT_ROOMS_PER_CLIENT="1"), "Ada")
    ada.get_by_label("Join a room").fill("x")
    ada.keyboard.press("Enter")
    expect(ada.locator("#why")).to_contain_text("You are not in this room. You are in 1 rooms")
    write(ada, "later")
    expect(ada.locator("#pending li")).to_have_count(1)
    ada.get_by_role("button", name="Leave lobby").click()
    shows(ada, "later")
    expect(ada.locator("#why")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_scrolls_sideways_on_a_phone(process: Start, open_page: Open, scheme: str) -> None:
    size = {"width": 360, "height": 740}
    ada = open_page(process(), "W" * 32, viewport=size, color_scheme=scheme)
    ada.get_by_label("Join a room").fill("W" * 64)
    ada.keyboard.press("Enter")
    write(ada, "https://" + "w" * 300)
    expect(ada.locator("[role=log]:visible li")).to_have_count(1)
    write(ada, "\u3164")
    expect(ada.locator("#pending .failed")).to_be_visible()
    wide = (
        "document.documentElement.scrollWidth + ' ' + document.querySelector('#scroll').scrollWidth"
    )
    assert ada.evaluate(wide) == "360 360"


def test_each_day_is_named_and_the_exact_time_is_there_on_demand(
    process: Start, open_page: Open
) -> None:
    days = iter([86_400_000, 86_400_001, 3 * 86_400_000])
    _, ada = open_mocked(
        process,
        open_page,
        lambda _mock, way, frame: take(way, frame, next(days)),
        locale="en-GB",
        timezone_id="UTC",
    )
    for text in ("one", "two", "three"):
        write(ada, text)
    shows(ada, "one", "two", "three")
    days_shown = ada.locator("[role=log] li").evaluate_all("all => all.map(li => li.dataset.day)")
    assert days_shown == ["Friday, 2 January 1970", None, "Sunday, 4 January 1970"]
    ada.locator("[role=log] time").first.click()
    exact = "Friday, 2 January 1970 at 00:00:00"
    expect(ada.locator("[role=log] time").first).to_have_text(exact)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_axe_finds_nothing_in_any_state(
    process: Start, open_page: Open, scheme: str, width: int
) -> None:
    island = process(CHAT_ROOMS_PER_CLIENT="1")
    size = {"width": width, "height": 740}
    ada = open_page(island, viewport=size, color_scheme=scheme)

    def check(what: str) -> None:
        found = Axe().run(ada)
        assert found.violations_count == 0, f"{what}: {found.generate_report()}"

    check("first dialog")
    begin(ada)
    write(ada, "hello")
    shows(ada, "hello")
    write(ada, "\u3164")
    expect(ada.locator("#pending .failed")).to_be_visible()
    check("live, with a message that failed")
    ada.get_by_role("button", name="Ada").click()
    check("dialog")
    ada.keyboard.press("Escape")
    ada.get_by_label("Join a room").fill("x")
    ada.keyboard.press("Enter")
    expect(ada.locator("#why")).to_be_visible()
    check("not joined")
    island.popen.kill()
    island.popen.wait()
    state(ada, "waiting")
    check("reconnecting")
    ada.context.set_offline(True)
    state(ada, "offline")
    check("offline")
