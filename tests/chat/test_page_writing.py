"""How one writes on the page, by which keys, and in which language it speaks."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect
from test_page import browser, connected, open_page, shows, write
from test_page_honesty import pass_until, say
from test_page_reading import MINUTE, NOON, Log, Visit, items, said, service, visit

__all__ = ["browser", "open_page", "service", "visit"]


def field(page: Page) -> Any:
    return page.get_by_role("textbox", name="Message")


def test_a_name_between_colons_becomes_an_emoji(visit: Visit) -> None:
    page = visit(Log())
    field(page).press_sequentially("hi :tad")
    offers = page.get_by_role("option")
    expect(offers).to_have_text("🎉 :tada:")
    field(page).press_sequentially("a: x:nope: 12:30:")
    expect(field(page)).to_have_value("hi 🎉 x:nope: 12:30:")
    # Whoever meant the name gets it back.
    field(page).fill("")
    field(page).press_sequentially(":+1:")
    expect(field(page)).to_have_value("👍")
    page.keyboard.press("Control+Z")
    expect(field(page)).to_have_value(":+1:")
    field(page).fill("")
    field(page).press_sequentially("so :tad")
    page.keyboard.press("Tab")
    expect(field(page)).to_have_value("so 🎉")


def test_emoji_are_loaded_when_somebody_names_one_and_that_name_becomes_one(visit: Visit) -> None:
    asked: list[Route] = []
    page = visit(Log())
    page.route("**/emoji.js", lambda route: asked.append(route))
    field(page).press_sequentially("hello, Bob")
    assert not asked
    field(page).press_sequentially(": :tada:")
    expect(field(page)).to_have_value("hello, Bob: :tada:")
    pass_until(page, lambda: bool(asked))
    asked[0].continue_()
    expect(field(page)).to_have_value("hello, Bob: 🎉")


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_picture_is_refused_with_a_sentence(visit: Visit, event: str) -> None:
    page = visit(Log())
    taken = page.evaluate(
        """event => {
            const data = new DataTransfer();
            data.items.add(new File(["x"], "x.png", { type: "image/png" }));
            const field = document.querySelector("#text");
            const options = { bubbles: true, cancelable: true };
            if (event === "paste") {
                options.clipboardData = data;
                return field.dispatchEvent(new ClipboardEvent(event, options));
            }
            options.dataTransfer = data;
            return document.body.dispatchEvent(new DragEvent(event, options));
        }""",
        event,
    )
    assert not taken
    expect(page.get_by_role("alert").filter(has_text="cannot be sent here")).to_be_visible()


def test_what_is_left_is_said_near_the_end_of_what_fits(visit: Visit) -> None:
    page = visit(Log())
    hint = page.locator("#hint")
    for text, words in [
        ("x" * 1799, "Enter sends, Shift+Enter starts a new line"),
        ("x" * 1801, "199 characters left"),
        ("x" * 1999, "1 character left"),
        ("x" * 2003, "3 characters too many"),
        # One character, 25 bytes.
        ("👩\u200d👩\u200d👧\u200d👦" * 300, "692 bytes left"),
    ]:
        field(page).fill(text)
        expect(hint).to_have_text(words)


def test_on_touch_enter_begins_a_line_and_the_button_sends(visit: Visit) -> None:
    page = visit(Log(), has_touch=True, is_mobile=True, viewport={"width": 390, "height": 760})
    field(page).press_sequentially("one")
    page.keyboard.press("Enter")
    field(page).press_sequentially("two")
    expect(field(page)).to_have_value("one\ntwo")
    page.get_by_role("button", name="Send").tap()
    shows(page, "one\ntwo")


def test_the_keys_are_listed_and_do_what_is_listed(visit: Visit) -> None:
    page = visit(Log(lobby=[said("hello")], kafka=[]))
    connected(page)
    keys = page.get_by_role("dialog", name="Keyboard shortcuts")
    page.keyboard.press("?")
    expect(keys).to_contain_text("Shift Enter")
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(keys).to_be_visible()
    keys.get_by_role("button", name="Close").press("Enter")
    expect(keys).to_be_hidden()
    # In a text it is a question mark.
    field(page).press_sequentially("why?")
    expect(field(page)).to_have_value("why?")
    expect(keys).to_be_hidden()
    page.keyboard.press("Control+K")
    page.keyboard.type("kafka")
    page.keyboard.press("Enter")
    heading = page.get_by_role("heading", level=2).first
    expect(heading).to_have_text("kafka")
    page.keyboard.press("Alt+ArrowUp")
    expect(heading).to_have_text("lobby")
    page.keyboard.press("Alt+ArrowDown")
    expect(heading).to_have_text("kafka")


def test_everything_that_can_be_pressed_is_reached_by_keyboard(visit: Visit) -> None:
    def refuse(_mock: Any, way: Any, frame: Any) -> None:
        say(way, {"type": "error", "code": "bad_text", "message": "no", "cid": frame["cid"]})

    log = Log(lobby=[said("https://a.example"), *(said(f"text {n}") for n in range(60))], kafka=[])
    log.answer = refuse
    page = visit(log)
    page.get_by_label("Join a room").fill("kafka")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="lobby", exact=True).click()
    write(page, "refused")
    expect(page.locator("#pending .failed")).to_be_visible()
    say(log.ways[-1], {"type": "presence", "room": "lobby", "count": 1, "users": ["Ada"]})
    all_controls = """() => [...document.querySelectorAll("a, button, input, textarea, summary")]
        // Escape leads to the latest, too; to get past the messages is to be there.
        .filter(it => it.checkVisibility() && !it.closest(".tools, dialog, #below"))
        .forEach((it, n) => { it.dataset.control = n; })"""
    page.evaluate(all_controls)
    controls = page.locator("[data-control]").count()
    assert controls > 12
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(3 * controls):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement?.dataset.control"))
    assert len(reached - {None}) == controls


def test_the_room_that_one_was_in_is_shown_again(visit: Visit) -> None:
    page = visit(Log())
    for room in ("x", "y"):
        page.get_by_label("Join a room").fill(room)
        page.keyboard.press("Enter")
    page.get_by_role("button", name="x", exact=True).click()
    page.goto(page.url.split("#")[0] + "?")
    connected(page)
    expect(page.get_by_role("heading", level=2).first).to_have_text("x")


def test_it_speaks_german_with_those_whose_browser_does(visit: Visit) -> None:
    log = Log(lobby=[said("hallo", ts=NOON - 3 * MINUTE)])
    log.answer = lambda _mock, way, frame: say(
        way, {"type": "error", "code": "bad_text", "message": "English", "cid": frame["cid"]}
    )
    page = visit(log, locale="de-DE")
    expect(page.get_by_role("status").first).to_have_text("Verbunden mit mock")
    expect(items(page).locator("time")).to_have_text("vor 3 Min.")
    say(log.ways[-1], {"type": "presence", "room": "lobby", "count": 1234})
    expect(page.locator("#count")).to_have_text("1.234 Personen")
    page.get_by_role("textbox", name="Nachricht").fill("x")
    page.get_by_role("button", name="Senden").click()
    expect(page.locator("#pending .state")).to_have_text(
        "Nicht gesendet. Darin ist nichts zu sehen, oder ein Zeichen hat zu viele Akzente."
    )
    assert page.evaluate("document.documentElement.lang") == "de-DE"
    page.get_by_role("button", name="Tastenkürzel").click()
    # Nothing that is English, in any of its texts, is left over.
    english = page.evaluate(
        "document.body.textContent.match(/\\b(the|you|your|message|room|to)\\b/gi)"
    )
    assert english is None


def test_it_speaks_english_with_everybody_else(visit: Visit) -> None:
    page = visit(Log(), locale="fr-FR")
    expect(page.get_by_role("status").first).to_have_text("Connected to mock")
    assert page.evaluate("document.documentElement.lang") == "en"


def test_axe_finds_nothing_where_one_writes(visit: Visit) -> None:
    page = visit(Log(lobby=[said("hello")]))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (360, 1100):
            page.set_viewport_size({"width": width, "height": 740})
            for text in ("x" * 2001, ":smi", ""):
                field(page).fill(text)
                field(page).press("ArrowDown")
                if not text:
                    page.get_by_role("button", name="Keyboard shortcuts").click()
                found = Axe().run(page)
                what = f"{scheme}, {width}, {text[:5]}: {found.generate_report()}"
                assert found.violations_count == 0, what
            page.keyboard.press("Escape")


def test_people_who_are_here_are_offered_after_an_at_sign(visit: Visit) -> None:
    log = Log(lobby=[])
    page = visit(log)
    connected(page)
    names = ["Ada", "Zoë", "Zöe Müller", "Bob", *(f"Zo {n}" for n in range(9))]
    say(log.ways[-1], {"type": "presence", "room": "lobby", "count": 13, "users": names})
    offers = page.get_by_role("listbox", name="Suggestions").get_by_role("option")
    field(page).press_sequentially("mail a@zo, hi @ZO")
    expect(offers).to_have_count(5)
    expect(page.locator("#offered")).to_have_text("5 suggestions: arrows choose, Tab takes one")
    field(page).press_sequentially("e")
    expect(offers).to_have_text(["@Zoë", "@Zöe Müller"])
    # Where one goes by the arrows is told to screen readers.
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option", selected=True)).to_have_text("@Zöe Müller")
    chosen = page.get_by_role("option", selected=True).get_attribute("id")
    expect(field(page)).to_have_attribute("aria-activedescendant", chosen or "none")
    page.keyboard.press("Enter")
    expect(field(page)).to_have_value("mail a@zo, hi @Zöe Müller ")
    expect(offers).to_have_count(0)
    # Tab takes the first, a pointer any, and Escape none; what one undoes is as it was.
    field(page).press_sequentially("@z")
    page.keyboard.press("Tab")
    expect(field(page)).to_have_value("mail a@zo, hi @Zöe Müller @Zo 0 ")
    page.keyboard.press("Control+Z")
    expect(field(page)).to_have_value("mail a@zo, hi @Zöe Müller @z")
    page.keyboard.press("End")
    field(page).press_sequentially("o")
    offers.last.click()
    expect(field(page)).to_have_value("mail a@zo, hi @Zöe Müller @Zo 4 ")
    field(page).press_sequentially("@b")
    expect(offers).to_have_text("@Bob")
    page.keyboard.press("Escape")
    expect(offers).to_have_count(0)
    # Whoever chose nothing sends; oneself is not offered.
    field(page).fill("")
    field(page).press_sequentially("@ad")
    expect(offers).to_have_count(0)
    field(page).press_sequentially(" @bo")
    expect(offers).to_have_count(1)
    page.keyboard.press("Enter")
    shows(page, "@ad @bo")
