"""The page's main paths in Firefox: two people chat, over a restart, by keyboard alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Process
from test_page_moderation import moderated
from test_page_sign_in import Gate

from tests.firefox import Firefox, Tab, firefox

Start = Callable[..., Process]

STATE = "document.querySelector('#status').dataset.state"
TEXTS = "[...document.querySelectorAll('[role=log]:not([hidden]) .text')].map(it => it.innerText)"
VALUE = "document.querySelector('#text').value"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with firefox(tmp_path_factory.mktemp("firefox")) as browser:
        yield browser


def enter(browser: Firefox, replica: Process, name: str) -> Tab:
    tab = browser.open()
    tab.goto(f"http://127.0.0.1:{replica.port}/")
    tab.sees("document.querySelector('#welcome').open", True)
    tab.press(name, "Enter")
    tab.sees(STATE, "connected")
    return tab


def write(tab: Tab, text: str) -> None:
    tab.evaluate("document.querySelector('#text').focus()")
    tab.press(text, "Enter")


def test_two_people_chat_in_firefox_over_a_restart(process: Start, browser: Firefox) -> None:
    replica = process()
    ada, bob = (enter(browser, replica, name) for name in ("Ada", "Bob"))
    write(ada, "hello **Bob**, see https://a.example and `code`")
    for tab in (ada, bob):
        tab.sees(TEXTS, ["hello **Bob**, see https://a.example and code"])
    drawn = (
        "[...document.querySelectorAll('.text a, .text code, .text mark')].map(it => it.tagName)"
    )
    bob.sees(drawn, ["MARK", "A", "CODE"])
    replica.popen.kill()
    replica.popen.wait()
    ada.sees(STATE, "waiting")
    write(ada, "written meanwhile")
    ada.sees("document.querySelectorAll('#pending li').length", 1)
    process(CHAT_PORT=str(replica.port))
    for tab in (ada, bob):
        tab.sees(STATE, "connected")
        tab.sees(TEXTS, ["written meanwhile"])
    ada.sees("document.querySelectorAll('#pending li').length", 0)
    assert [error for error in browser.errors if "establish a connection" not in error] == []


def test_one_writes_and_quotes_by_keyboard_in_firefox(process: Start, browser: Firefox) -> None:
    ada = enter(browser, process(), "Ada")
    ada.evaluate("document.querySelector('#text').focus()")
    # Emoji are loaded when somebody first names one.
    ada.press("one :tada:")
    ada.sees("document.querySelector('#text').value", "one 🎉")
    ada.press("Enter")
    ada.sees(TEXTS, ["one 🎉"])
    ada.press("two", "Shift", "Enter", "lines", "Enter")
    ada.sees(TEXTS, ["one 🎉", "two\nlines"])
    ada.press("ArrowUp", "ArrowUp", "Enter")
    ada.sees(VALUE, "> Ada: one 🎉\n")
    ada.press("yes", "Enter")
    ada.sees("document.querySelector('blockquote')?.innerText", "Ada: one 🎉")
    ada.press("Escape")
    ada.goto(ada.evaluate("location.href"))
    ada.sees(STATE, "connected")
    ada.sees("document.querySelectorAll('[role=log] .message').length", 3)


def test_a_moderator_mutes_by_keyboard_in_firefox(
    process: Start, browser: Firefox, tmp_path: Path
) -> None:
    with Gate(replica=process(moderated(tmp_path))) as gate:
        ada, mod = browser.open(), browser.open()
        for tab, who in ((ada, "ada"), (mod, "mod")):
            for _ in range(2):
                tab.goto(f"http://127.0.0.1:{gate.port}/")
                tab.evaluate(f"document.cookie = 'who={who}'")
            tab.sees(STATE, "connected")
        write(ada, "rude")
        mod.sees(TEXTS, ["rude"])
        mod.sees("document.querySelector('#moderation') !== null", True)
        mod.evaluate("document.querySelector('#text').focus()")
        mod.press("ArrowUp", "Tab", "Tab", "Enter", "Tab", "Enter")
        mod.sees("document.querySelector('#moderation').innerText.includes('Muted until')", True)
        ada.sees("document.querySelector('#why').innerText.includes('muted you')", True)
        mod.press("Escape")
        mod.sees("document.activeElement.innerText", "Moderate")
