"""The page through Traefik, in a real browser, for two people on different replicas."""

import uuid

from hosts import address, group
from playwright.sync_api import Browser, Page, expect, sync_playwright
from replicas import MOST_TRIES

from tests.chromium import launch

EDGE = address(group("microk8s")[0])


def open_page(browser: Browser, room: str, name: str) -> tuple[Page, str]:
    """A connected page without anybody's cookie, and what it says of its replica."""
    # test_https.py checks the certificate; this browser knows the system's authorities alone.
    page = browser.new_context(ignore_https_errors=True).new_page()
    page.goto(f"https://{EDGE}/#{room}")
    page.get_by_label("Name").fill(name)
    page.keyboard.press("Enter")
    status = page.locator("#status")
    expect(status).to_have_attribute("data-state", "connected", timeout=30_000)
    return page, status.inner_text()


def test_what_one_writes_the_other_reads_on_another_replica() -> None:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        # In a room, a name belongs to the first page that came with it, also after that has gone.
        room = f"room-{uuid.uuid4()}"
        ada, here = open_page(browser, room, "Ada")
        people = (open_page(browser, room, f"Bob {n}") for n in range(MOST_TRIES))
        bob = next(page for page, there in people if there != here)
        for page, text in ((ada, "Hello from here"), (bob, "And from there")):
            page.get_by_label("Message", exact=True).fill(text)
            page.keyboard.press("Enter")
            for each in (ada, bob):
                expect(each.locator("[role=log]:visible li p").last).to_have_text(text)
        browser.close()
