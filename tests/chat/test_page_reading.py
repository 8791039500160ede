"""What one reads on the page: how messages look, what is new, and how one gets to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT, Process, processes
from playwright.sync_api import Page, WebSocketRoute, expect
from test_page import Open, browser, connected, open_page, shows
from test_page_honesty import Frame, Mock, say, take

__all__ = ["browser", "open_page"]

# 2026-11-28, 12:00 UTC
NOON = 1_795_867_200_000
MINUTE = 60_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One for all of these tests: it serves the page, and a `Log` answers instead of it."""
    with processes(tmp_path_factory.mktemp("service")) as start:
        yield start()


class Log(Mock):
    """A service that has something to say: what is in each room, and what others say meanwhile."""

    def __init__(self, **rooms: list[Frame]) -> None:
        super().__init__(lambda _mock, way, frame: take(way, frame, NOON))
        self.rooms = rooms
        # What was said before, in the answers to `history`.
        self.earlier: list[list[Frame]] = []
        self.ways: list[WebSocketRoute] = []

    def hear(self, way: WebSocketRoute, frame: Frame) -> None:
        if frame["type"] == "hello":
            self.ways.append(way)
        if frame["type"] == "history":
            messages = self.earlier.pop()
            answer = frame | {"position": messages[0]["id"], "more": bool(self.earlier)}
            say(way, answer | {"messages": messages})
            return
        if frame["type"] != "join":
            super().hear(way, frame)
            return
        messages = self.rooms.setdefault(frame["room"], [])
        position = messages[-1]["id"] if messages else "empty"
        joined = {"type": "joined", "room": frame["room"], "recovered": True}
        joined |= {"more": bool(self.earlier)}
        say(way, joined | {"position": position, "messages": messages})

    def tell(self, text: str, room: str = "lobby", **fields: Any) -> None:
        message = said(text, room, **fields)
        self.rooms[room].append(message)
        say(self.ways[-1], message)


count = 0


def said(
    text: str, room: str = "lobby", user: str = "Bob", ts: int = NOON, author: str = ""
) -> Frame:
    global count
    count += 1
    message = {"type": "message", "room": room, "id": f"id-{count}", "user": user, "text": text}
    return message | {"ts": ts, "cid": f"c-{count}", "author": author or f"author of {user}"}


Visit = Callable[..., Page]


@pytest.fixture
def visit(service: Process, open_page: Open) -> Visit:
    """Open the page as Ada, at noon, with what a `Log` says."""

    def visit(log: Log, at: int = NOON, **options: object) -> Page:
        def prepare(page: Page) -> None:
            page.clock.install(time=at / 1000)
            page.route_web_socket("**/ws*", log.route)

        options = {"locale": "en-GB", "timezone_id": "UTC"} | options
        return open_page(service, "Ada", prepare, **options)

    return visit


def items(page: Page, css: str = "") -> Any:
    return page.locator(f"#logs .message{css}:visible")


def test_author_and_time_are_said_once_in_a_group_and_each_day_is_named(visit: Visit) -> None:
    page = visit(
        Log(
            lobby=[
                said("yesterday", ts=NOON - 1440 * MINUTE),
                said("one", ts=NOON - 9 * MINUTE),
                said("two", ts=NOON - 6 * MINUTE),
                said("a while later", ts=NOON - 2 * MINUTE),
                said("of another", user="Eve", ts=NOON - 2 * MINUTE),
                said("of a namesake", user="Eve", author="other", ts=NOON - 1 * MINUTE),
            ]
        )
    )
    expect(items(page)).to_have_count(6)
    expect(items(page, ".more").locator("p")).to_have_text(["two"])
    expect(items(page, "[data-day]").locator("p")).to_have_text(["yesterday", "one"])
    assert "Bob" in items(page, ".more").aria_snapshot()
    expect(items(page, ".more").locator("time")).not_to_be_visible()
    items(page, ".more").hover()
    expect(items(page, ".more").locator("time")).to_be_visible()


def test_times_move_and_the_exact_one_is_there_on_hover_and_on_focus(visit: Visit) -> None:
    log = Log(lobby=[said("early", ts=NOON - 120 * MINUTE), said("recent", ts=NOON - 3 * MINUTE)])
    page = visit(log)
    page.clock.pause_at(NOON / 1000 + 5)
    log.tell("just", user="Eve", ts=NOON - 1_000)
    times = items(page).locator("time")
    expect(times).to_have_text(["10:00", "3 min ago", "now"])
    page.clock.run_for(2 * MINUTE)
    expect(times).to_have_text(["10:00", "5 min ago", "2 min ago"])
    page.clock.run_for(56 * MINUTE)
    expect(times).to_have_text(["10:00", "11:57", "58 min ago"])
    exact = "Saturday, 28 November 2026 at 11:57:00"
    expect(times.nth(1)).to_have_attribute("title", exact)
    page.get_by_label("Message", exact=True).focus()
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    after = times.nth(1).evaluate("it => getComputedStyle(it, '::after').content")
    assert after == f'" · {exact}"'


def test_a_clock_that_is_wrong_makes_no_message_of_the_future(visit: Visit) -> None:
    log = Log(lobby=[said("hello", ts=NOON + 60 * MINUTE)])
    page = visit(log)
    expect(items(page).locator("time")).to_have_text("13:00")


def test_what_came_while_one_was_away_is_counted_and_begins_with_a_line(visit: Visit) -> None:
    log = Log(lobby=[said("before")], kafka=[])
    page = visit(log)
    shows(page, "before")
    page.get_by_label("Join a room").fill("kafka")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2, name="kafka")).to_be_visible()
    log.tell("first")
    log.tell("for you, @ada!")
    log.tell("Adam is somebody else")
    other = page.locator("#rooms li").first.get_by_role("button").first
    expect(other).to_have_accessible_name("lobby 3 new 1 mention of you")
    other.click()
    expect(page.locator(".new:visible")).to_have_text("New since you left")
    expect(items(page, ":has(.new)").locator("p")).to_have_text("first")
    expect(items(page, ".mentions").locator("mark")).to_have_text("@ada")
    expect(other).to_have_accessible_name("lobby")
    # Once one has been here, it is no news any more.
    page.get_by_role("button", name="kafka", exact=True).click()
    other.click()
    expect(page.locator(".new")).to_have_count(0)


def test_a_reload_does_not_forget_what_is_new(visit: Visit) -> None:
    log = Log(lobby=[said("seen")], kafka=[said("seen too", "kafka")])
    page = visit(log)
    page.get_by_label("Join a room").fill("kafka")
    page.keyboard.press("Enter")
    shows(page, "seen too")
    page.goto("about:blank")
    log.rooms["lobby"].append(said("missed, Ada"))
    log.rooms["kafka"].append(said("missed here", "kafka"))
    page.go_back()
    connected(page)
    expect(items(page, ":has(.new)").locator("p")).to_have_text("missed here")
    lobby = page.locator("#rooms li").first.get_by_role("button").first
    expect(lobby).to_have_accessible_name("lobby 1 new 1 mention of you")
    lobby.click()
    expect(items(page, ":has(.new)").locator("p")).to_have_text("missed, Ada")


def test_who_reads_further_up_is_told_how_much_came_and_can_jump_to_it(visit: Visit) -> None:
    log = Log(lobby=[said(f"text {number}") for number in range(80)])
    page = visit(log)
    latest = page.get_by_role("button", name="Jump to the latest")
    expect(page.get_by_text("text 79", exact=True)).to_be_in_viewport()
    expect(latest).to_be_hidden()
    page.locator("#scroll").evaluate("box => { box.scrollTop = 0; }")
    expect(latest).to_have_text("Jump to the latest")
    for text in ("one", "two"):
        log.tell(text)
    expect(latest).to_have_text("Jump to the latest (2 new)")
    latest.click()
    expect(page.get_by_text("two", exact=True)).to_be_in_viewport()
    expect(latest).to_be_hidden()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


FENCE = "```"

# What is written, and what is drawn: (element, text, address) each; text alone is left out.
MARKUP: list[tuple[str, list[tuple[str, ...]]]] = [
    ("see https://a.example/b?c=d#e.", [("a", "https://a.example/b?c=d#e")]),
    ("(https://a.example/x_(y)), then", [("a", "https://a.example/x_(y)")]),
    ("HTTP://A.example", [("a", "HTTP://A.example")]),
    # Nothing but the web, and nothing that says one host and leads to another.
    ("javascript:alert(1) data:text/html,x vbscript:x file:///etc/passwd", []),
    ("https://bank.example@evil.example/ https://a:b@evil.example", []),
    ("https:// http://[ https://a.example:99999/", []),
    ("javascript:https://a.example/", [("a", "https://a.example/")]),
    ("https://a.example/\u202egpj.exe", [("a", "https://a.example/")]),
    ("https://a.example/<b>x</b>", [("a", "https://a.example/")]),
    ('https://a.example/" onclick="x', [("a", "https://a.example/")]),
    ("<img src=x onerror=alert(1)> <b>&amp;", []),
    # By their name: a look-alike, an address in one number.
    ("https://\u0430pple.example/", [("a", "https://\u0430pple.example/", "xn--pple-43d.example")]),
    ("http://2130706433/", [("a", "http://2130706433/", "127.0.0.1")]),
    ("run `rm -rf *` or ``a`b`` or ` x `", [("code", "rm -rf *"), ("code", "a`b"), ("code", "x")]),
    ("`https://a.example` @Ada", [("code", "https://a.example"), ("mark", "@Ada")]),
    ("`not\nclosed` ` here", [("code", " ")]),
    (f"{FENCE}py\n  if <b>:\n@Ada\n{FENCE}\nafter", [("pre", "  if <b>:\n@Ada")]),
    (f"{FENCE}\nnot closed", []),
    (f"> {FENCE}\n> https://a.example\nyes", [("blockquote", "```\nhttps://a.example"),
                                             ("a", "https://a.example")]),
    ("Adam, ADA, ada_, @@ada", [("mark", "ADA")]),
]  # fmt: skip

# As long as a text may be, of what could take long to look through.
LONG = [
    "`" * 8000,
    "`a``b" * 1600,
    "https://" + "." * 7900 + "a",
    "https://a.example/" + "()" * 3900,
    "https://a.example/" + ")" * 7900,
    ("> " + "`" * 10 + "\n") * 600,
    f"{FENCE}\n" * 2000,
    "@ada" * 2000,
    " \n" * 4000 + "x",
]


def test_links_code_and_quotes_are_drawn_and_everything_else_is_text(visit: Visit) -> None:
    page = visit(Log(lobby=[said(text) for text, _ in MARKUP] + [said(text) for text in LONG]))
    expect(items(page)).to_have_count(len(MARKUP) + len(LONG))
    drawn = items(page).evaluate_all(
        """all => all.map(item => [...item.querySelectorAll(".text *")]
            .filter(it => it.tagName !== "P" && !it.matches("pre code"))
            .map(it => [it.tagName.toLowerCase(), it.textContent,
                        ...(it.dataset.host ? [it.dataset.host] : [])]))"""
    )
    for (text, expected), found in zip(MARKUP, drawn, strict=False):
        assert [tuple(one) for one in found] == expected, text
    links = items(page).locator("a")
    assert set(links.evaluate_all("all => all.map(a => a.rel + a.target)")) == {
        "noopener noreferrer nofollow_blank"
    }
    addresses = links.evaluate_all("all => all.map(a => new URL(a.href).protocol)")
    assert set(addresses) == {"https:", "http:"}
    plain = items(page).nth(10).locator("p")
    expect(plain).to_have_text("<img src=x onerror=alert(1)> <b>&amp;")


def test_a_link_to_a_room_opens_it_here(visit: Visit, service: Process) -> None:
    page = visit(Log(lobby=[said(f"see http://127.0.0.1:{service.port}/#kafka")]))
    items(page).locator("a").click()
    expect(page.get_by_role("heading", level=2, name="kafka")).to_be_visible()
    assert len(page.context.pages) == 1
    # It is one of one's rooms from then on, and the one that is shown after a reload.
    page.goto(f"http://127.0.0.1:{service.port}/")
    connected(page)
    expect(page.get_by_role("heading", level=2, name="kafka")).to_be_visible()


def test_what_is_copied_is_what_was_written(visit: Visit) -> None:
    texts = ["a `code`", f"{FENCE}\n  x = 1\n{FENCE}", "> Ada: b\nlast word"]
    page = visit(Log(lobby=[said(text) for text in texts]))
    expect(items(page)).to_have_count(3)

    def copied(first: str, last: str) -> str:
        page.evaluate(
            """([first, last]) => {
                const [from, to] = [first, last].map(css => document.querySelector(css).firstChild);
                getSelection().setBaseAndExtent(from, 0, to, to.length);
            }""",
            [first, last],
        )
        page.keyboard.press("Control+C")
        page.get_by_label("Message", exact=True).fill("")
        page.keyboard.press("Control+V")
        return page.get_by_label("Message", exact=True).input_value()

    first, last = "#logs li:nth-child(1) p", "#logs li:nth-child(3) p"
    assert copied(first, last) == "\n".join(texts)
    assert copied("#logs .head bdi", "#logs li:nth-child(1) code") == texts[0]
    assert copied(last, last) == "last word"
    assert copied("#logs li:nth-child(1) code", "#logs li:nth-child(1) code") == "code"


def test_messages_are_reached_and_quoted_by_keyboard(visit: Visit) -> None:
    log = Log(lobby=[said("one"), said("two\n> not this\nmore " + "x" * 300)])
    page = visit(log)
    expect(items(page)).to_have_count(2)
    text = page.get_by_label("Message", exact=True)
    text.focus()
    page.keyboard.press("ArrowUp")
    expect(items(page).last).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(items(page).first).to_be_focused()
    page.keyboard.press("Escape")
    expect(text).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(text).to_have_value(f"> Bob: two\n> more {'x' * 195}…\n")
    expect(text).to_be_focused()
    text.fill("mine")
    items(page).first.hover()
    page.get_by_role("button", name="Quote").click()
    expect(text).to_have_value("> Bob: one\n\nmine")
    page.keyboard.press("Enter")
    expect(items(page).last.locator("blockquote")).to_have_text("Bob: one")


def test_only_a_block_of_code_scrolls_sideways(visit: Visit) -> None:
    texts = [f"{FENCE}\n{'x' * 200}\n{FENCE}", "`" + "y" * 200 + "`", "> " + "z" * 300]
    page = visit(
        Log(lobby=[said(text, user="W" * 32) for text in texts]),
        viewport={"width": 360, "height": 740},
    )
    expect(items(page)).to_have_count(3)
    widths = page.evaluate(
        """() => [document.documentElement, document.querySelector("#scroll")]
            .map(it => it.scrollWidth)"""
    )
    assert widths == [360, 360]
    assert page.locator("pre").evaluate("it => it.scrollWidth > it.clientWidth")


def test_what_is_written_from_right_to_left_is_read_so(visit: Visit) -> None:
    page = visit(Log(lobby=[said("שלום, Bob!", user="דוד"), said("hello\u202eolleh")]))
    directions = (
        items(page).locator("p").evaluate_all("all => all.map(p => getComputedStyle(p).direction)")
    )
    assert directions == ["rtl", "ltr"]


def test_axe_finds_nothing_in_what_one_reads(visit: Visit) -> None:
    texts = ["hello @Ada", "https://\u0430pple.example `code`", f"{FENCE}\n{'x' * 200}\n{FENCE}"]
    log = Log(lobby=[said(f"text {number}") for number in range(30)], kafka=[])
    page = visit(log)
    page.get_by_label("Join a room").fill("kafka")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2, name="kafka")).to_be_visible()
    for text in [*texts, "> quoted\nanswer"]:
        log.tell(text, user="Eve")
        log.tell("Ada!", "kafka")
    page.get_by_role("button", name="lobby").first.click()
    log.tell("in kafka, Ada", "kafka")
    expect(page.locator("#rooms .mentioned:visible")).to_have_count(1)
    page.locator("#scroll").evaluate("box => { box.scrollTop = 0; }")
    log.tell("below")
    expect(page.locator("#latest")).to_contain_text("1 new")
    page.get_by_label("Message", exact=True).focus()
    for scheme in ("light", "dark"):
        for width in (360, 1100):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 740})
            page.keyboard.press("ArrowUp")
            for where in ("0", "box.scrollHeight"):
                page.locator("#scroll").evaluate(f"box => {{ box.scrollTop = {where}; }}")
                found = Axe().run(page)
                what = f"{scheme}, {width}, {where}: {found.generate_report()}"
                assert found.violations_count == 0, what


def test_the_arrows_between_the_modules_of_the_page_point_one_way() -> None:
    web = ROOT / "chat" / "web"
    imports = {
        path.name: set(re.findall(r'^import .+ from "\./(.+)";', path.read_text(), re.M))
        for path in web.glob("*.js")
    }
    left = imports
    while leaves := [name for name in left if not left[name] & left.keys()]:
        left = {name: left[name] for name in left.keys() - leaves}
    assert not left, "these import each other"
    scripts = "".join(path.read_text() for path in web.glob("*.js"))
    loaded = re.findall(
        r'(?:modulepreload" href|script src)="(.+?)"', (web / "index.html").read_text()
    )
    # A type in a comment goes on with a dot.
    later = set(re.findall(r'import\("./([^"]+)"\)(?!\.)', scripts))
    later |= {one for name in later for one in imports[name]} - set(loaded)
    assert sorted([*loaded, "sw.js", *later]) == sorted(path.name for path in web.glob("*.js"))


def test_words_are_found_in_what_is_loaded_from_the_newest_on(visit: Visit) -> None:
    texts = ["Crème brûlée", *(f"text {number}" for number in range(100)), "creme"]
    log = Log(lobby=[said(text) for text in texts], kafka=[])
    page = visit(log)
    connected(page)
    expect(items(page)).to_have_count(102)
    page.keyboard.press("/")
    page.keyboard.type("CREME")
    found = page.locator("#found")
    expect(found).to_have_text("1 of 2")
    expect(page.locator(".hit")).to_have_text(re.compile("creme"))
    page.keyboard.press("Enter")
    expect(found).to_have_text("2 of 2")
    expect(page.locator(".hit")).to_have_text(re.compile("Crème brûlée"))
    expect(page.locator(".hit")).to_be_in_viewport()
    page.keyboard.press("Shift+Enter")
    expect(found).to_have_text("1 of 2")
    page.keyboard.type("x")
    expect(found).to_have_text("Not in the 102 messages that are loaded")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": 360, "height": 740})
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.keyboard.press("Escape")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    expect(page.locator(".hit")).to_have_count(0)
    expect(found).to_have_text("")


def test_what_is_not_loaded_is_looked_for_further_back(visit: Visit) -> None:
    log = Log(lobby=[said(f"text {number}") for number in range(30)])
    log.earlier = [[said("what was planned")], [said(f"older {n}") for n in range(30)]]
    page = visit(log)
    expect(items(page)).to_have_count(30)
    page.get_by_role("searchbox").fill("planned")
    found = page.locator("#found")
    further = "messages that are loaded: Enter looks further back"
    expect(found).to_have_text(f"Not in the 30 {further}")
    page.keyboard.press("Enter")
    expect(found).to_have_text(f"Not in the 60 {further}")
    page.keyboard.press("Enter")
    expect(found).to_have_text("1 of 1")
    expect(page.locator(".hit")).to_be_in_viewport()
    page.get_by_role("searchbox").fill("not planned")
    expect(found).to_have_text("Not in the 61 messages that are loaded")
