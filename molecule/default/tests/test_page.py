"""The page through Traefik: one person in Chromium, one in Firefox, on different replicas."""

import uuid
from pathlib import Path

from hosts import address, group
from playwright.sync_api import Browser, Page, expect, sync_playwright
from replicas import MOST_TRIES

from tests.chromium import launch
from tests.firefox import Firefox, Tab, firefox

EDGE = address(group("microk8s")[0])


STATUS = "document.querySelector('#status')"
LAST = "[...document.querySelectorAll('[role=log]:not([hidden]) li p')].at(-1)?.innerText"


def in_chromium(browser: Browser, room: str, name: str) -> tuple[Page, str]:
    """A connected page without cookies, and its status line, which names the replica."""
    # This browser trusts only the system's authorities. test_https.py tests the certificate.
    page = browser.new_context(ignore_https_errors=True).new_page()
    page.goto(f"https://{EDGE}/#{room}")
    page.get_by_label("Name").fill(name)
    page.keyboard.press("Enter")
    status = page.locator("#status")
    expect(status).to_have_attribute("data-state", "connected", timeout=30_000)
    return page, status.inner_text()


def in_firefox(browser: Firefox, room: str, name: str) -> tuple[Tab, str]:
    """As in_chromium."""
    tab = browser.open()
    tab.goto(f"https://{EDGE}/#{room}")
    tab.sees("document.querySelector('#welcome').open", True)
    tab.press(name, "Enter")
    tab.sees(f"{STATUS}.dataset.state", "connected")
    return tab, tab.evaluate(f"{STATUS}.innerText")


def test_two_browsers_on_different_replicas_exchange_messages(tmp_path: Path) -> None:
    with sync_playwright() as playwright, firefox(tmp_path) as fox:
        browser = launch(playwright)
        # A name in a room stays with the first page that used it, so each attempt has a new one.
        room = f"room-{uuid.uuid4()}"
        ada, here = in_chromium(browser, room, "Ada")
        people = (in_firefox(fox, room, f"Bob {n}") for n in range(MOST_TRIES))
        bob = next(tab for tab, there in people if there != here)
        last = ada.locator("[role=log]:visible li p").last
        ada.get_by_label("Message", exact=True).fill("Hello from here")
        ada.keyboard.press("Enter")
        expect(last).to_have_text("Hello from here")
        bob.sees(LAST, "Hello from here")
        bob.evaluate("document.querySelector('#text').focus()")
        bob.press("And from there", "Enter")
        expect(last).to_have_text("And from there")
        bob.sees(LAST, "And from there")
        assert fox.errors == []
        browser.close()
