"""The page for those who see it larger, or in colours of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, WebSocketRoute, expect
from test_page import browser, open_page, write
from test_page_honesty import Frame, Mock, say, state
from test_page_reading import FENCE, Log, Visit, said, service, visit

__all__ = ["browser", "open_page", "service", "visit"]

# What scrolls sideways, besides code, or is cut off, besides one's own name and what is for screen
# readers alone.
TOO_WIDE = """() => [document.documentElement, ...document.body.querySelectorAll("*")]
    .filter(it => it.checkVisibility() && it.scrollWidth > it.clientWidth + 1
        && (it === document.documentElement || getComputedStyle(it).overflowX !== "visible")
        && !it.matches("pre, input, #rename")
        && getComputedStyle(it).clipPath === "none")
    .map(it => it.outerHTML.slice(0, 80))"""

# What can be pressed, but is not in sight once one has come to it, or is covered, or too small
# (WCAG 2.2, 2.5.8; links in a text may be).
OUT_OF_REACH = """() => {
    const dialog = document.querySelector("dialog[open]") ?? document;
    const controls = dialog.querySelectorAll("a, button, input, textarea, summary");
    return [...controls].filter(it => it.checkVisibility() && !it.closest(".tools"))
        .filter(it => {
            it.scrollIntoView({ block: "center", inline: "nearest" });
            // A link has one for each of its lines.
            const boxes = it.getClientRects();
            const { left, right, top, bottom } = boxes[boxes.length >> 1];
            const hit = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
            return left < 0 || right > innerWidth || !it.contains(hit)
                || !it.matches("a") && Math.min(right - left, bottom - top) < 24;
        })
        .map(it => it.outerHTML.slice(0, 80));
}"""


def refuse(_mock: Mock, way: WebSocketRoute, frame: Frame) -> None:
    say(way, {"type": "error", "code": "bad_text", "message": "no", "cid": frame["cid"]})


def full(visit: Visit, **options: object) -> tuple[Page, Log]:
    """A page with all that it can show: long names, code, a mention, several rooms."""
    texts = [f"{FENCE}\n{'x' * 200}\n{FENCE}", "https://a.example/" + "y" * 200, "@Ada " * 20]
    log = Log(lobby=[said(text, user="W" * 32) for text in [*texts, *map(str, range(40))]])
    log.answer = refuse
    page = visit(log, **options)
    for room in ("W" * 64, "kafka", "lobby"):
        page.get_by_label("Join a room").fill(room)
        page.keyboard.press("Enter")
    log.tell("Ada, and nobody else", "kafka")
    people = ["Ada", "Bob", "W" * 32, *(f"person {number}" for number in range(20))]
    presence = {"type": "presence", "room": "lobby", "count": len(people), "users": people}
    say(log.ways[-1], presence)
    expect(page.locator("#rooms .mentioned:visible")).to_have_count(1)
    expect(page.locator("#count")).to_be_visible()
    return page, log


def in_each_state(page: Page, log: Log) -> Iterator[str]:
    """Bring the page about, and say each time what it shows."""
    yield "conversation"
    page.locator("#scroll").evaluate("box => { box.scrollTop = 0; }")
    expect(page.locator("#latest")).to_be_visible()
    yield "further up"
    write(page, "refused " + "z" * 200)
    expect(page.locator("#pending .failed")).to_be_visible()
    yield "failed"
    for button in ("#help", "#rename"):
        page.locator(button).click()
        # The list of keys is loaded first.
        expect(page.get_by_role("dialog")).to_be_visible()
        yield button
        page.keyboard.press("Escape")
    log.ways[-1].close(code=1012, reason="restart; retry_after=30")
    state(page, "waiting")
    yield "waiting"


def all_is_in_reach(page: Page, log: Log) -> None:
    page.locator("#count").click()
    page.locator("#names").scroll_into_view_if_needed()
    assert page.evaluate(TOO_WIDE) == [], "people"
    expect(page.locator("#names")).to_be_in_viewport(ratio=0.95)
    page.locator("#count").click()
    for what in in_each_state(page, log):
        assert page.evaluate(TOO_WIDE) == [], what
        assert page.evaluate(OUT_OF_REACH) == [], what


def test_nothing_scrolls_sideways_and_all_is_in_reach_at_400_percent(visit: Visit) -> None:
    """A screen of 1280 by 1024 at 400 % has 320 by 256 (WCAG 2.2, 1.4.10)."""
    page, log = full(visit, viewport={"width": 320, "height": 256})
    expect(page.get_by_label("Message", exact=True)).to_be_in_viewport(ratio=1)
    page.keyboard.press("Alt+ArrowUp")
    expect(page.get_by_label("Message", exact=True)).to_be_in_viewport(ratio=1)
    page.keyboard.press("Alt+ArrowDown")
    all_is_in_reach(page, log)


@pytest.mark.parametrize("width", [390, 1280])
def test_text_is_as_large_as_the_browser_is_set_to_and_all_is_in_reach(
    visit: Visit, width: int
) -> None:
    """Of 200 %, without zoom (WCAG 2.2, 1.4.4)."""
    page, log = full(visit, viewport={"width": width, "height": 800})
    size = "getComputedStyle(document.querySelector('.text')).fontSize"
    assert page.evaluate(size) == "16px"
    sizes = {"fontSizes": {"standard": 32, "fixed": 26}}
    page.context.new_cdp_session(page).send("Page.setFontSizes", sizes)
    page.wait_for_function(f"() => {size} === '32px'")
    all_is_in_reach(page, log)


def test_with_forced_colours_focus_and_states_are_seen_and_axe_finds_nothing(visit: Visit) -> None:
    page, log = full(visit, viewport={"width": 1100, "height": 740}, forced_colors="active")
    # Shadows and backgrounds are gone: what has the focus has an outline.
    outlines = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        outlines.add(
            page.evaluate(
                """() => {
                    const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
                    return `${document.activeElement.localName} ${outlineStyle} ${outlineWidth}`;
                }"""
            )
        )
    focused = {"button", "input", "textarea", "summary", "div", "pre", "a"}
    assert outlines - {"body none 3px"} == {f"{name} solid 3px" for name in focused}
    for what in in_each_state(page, log):
        if what in ("further up", "failed", "waiting"):
            found = Axe().run(page)
            assert found.violations_count == 0, f"{what}: {found.generate_report()}"
    # The room that is shown is not one by its background alone.
    shown = page.locator("#rooms [aria-current]")
    assert shown.evaluate("it => getComputedStyle(it).backgroundColor") == page.evaluate(
        """() => {
            const box = document.body.appendChild(document.createElement("p"));
            box.style.cssText = "forced-color-adjust: none; background: Highlight";
            const { backgroundColor } = getComputedStyle(box);
            box.remove();
            return backgroundColor;
        }"""
    )
