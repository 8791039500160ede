"""What five tasks cost a person who sees the page for the first time, on a phone.

The page and the service are this checkout's. Others wrote 71 messages, and the page believes that
this was yesterday. The script counts taps, keystrokes (one per letter of a text) and the seconds in
which the machine works or waits, without the time people need to read, think and type. A task is
done when the page shows the wanted result. The script fails if it never does, or if a tap target is
out of sight or smaller than 24 pixels (WCAG 2.2, 2.5.8).

    .venv/bin/python bench/page_tasks.py
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from chat.client import connect
from script.screenshots import served
from tests.chromium import launch

PHONE = {"viewport": {"width": 390, "height": 700}, "has_touch": True, "is_mobile": True}
ROOM = "kafka"
DAY_SECONDS = 86_400
LEAST_PIXELS = 24


async def talk(origin: str) -> None:
    url = origin.replace("http", "ws") + "ws"
    async with connect(url, "Grace") as grace, connect(url, "Bob") as bob:
        for one in (grace, bob):
            await one.room(ROOM).joined()
        await grace.send(ROOM, "I shall move the partitions tonight.")
        for number in range(70):
            await bob.send(ROOM, f"Broker {number} is back.")


class Thumb:
    """Performs actions, and counts them."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.taps = self.keys = 0

    def tap(self, what: Locator) -> None:
        expect(what).to_be_in_viewport(ratio=1)
        box = what.bounding_box()
        assert box, f"{what} is nowhere"
        assert min(box["width"], box["height"]) >= LEAST_PIXELS, f"{what} is too small: {box}"
        what.tap()
        self.taps += 1

    def write(self, text: str) -> None:
        self._page.keyboard.type(text)
        self.keys += len(text)


Task = Callable[[Page, Thumb], None]


def join(page: Page, thumb: Thumb) -> None:
    """join a room from a link"""
    thumb.write("Ada")
    thumb.tap(page.get_by_role("button", name="Start"))
    expect(page.locator("#status")).to_have_attribute("data-state", "connected")
    expect(page.get_by_text("Broker 69 is back.")).to_be_in_viewport()


def answer(page: Page, thumb: Thumb) -> None:
    """answer the last message, with a quote"""
    last = page.locator("[role=log]:visible .message").last
    thumb.tap(last)
    thumb.tap(last.get_by_role("button", name="Quote"))
    thumb.write("Thanks!")
    thumb.tap(page.get_by_role("button", name="Send"))
    expect(page.locator("[role=log]:visible .message").last).to_contain_text("Thanks!")
    expect(page.locator("#pending li")).to_have_count(0)


def find(page: Page, thumb: Thumb) -> None:
    """find yesterday's message"""
    thumb.tap(page.get_by_role("searchbox"))
    thumb.write("partitions")
    expect(page.locator("#found")).to_contain_text("Enter looks further back")
    page.keyboard.press("Enter")
    thumb.keys += 1
    expect(page.locator("#found")).to_have_text("1 of 1")
    expect(page.locator(".hit")).to_contain_text("I shall move")
    expect(page.locator(".hit")).to_be_in_viewport(ratio=1)


def notice(page: Page, _thumb: Thumb) -> None:
    """notice that one is offline"""
    page.context.set_offline(True)
    expect(page.locator("#status")).to_have_text("You are offline")
    expect(page.locator("#status")).to_be_in_viewport(ratio=1)
    page.context.set_offline(False)
    expect(page.locator("#status")).to_have_attribute("data-state", "connected")


def rename(page: Page, thumb: Thumb) -> None:
    """change one's name"""
    thumb.tap(page.get_by_role("button", name="Ada"))
    thumb.write("Grace H")
    thumb.tap(page.get_by_role("button", name="Start"))
    expect(page.get_by_role("button", name="Grace H")).to_be_in_viewport(ratio=1)
    expect(page.locator("#status")).to_have_attribute("data-state", "connected")


@contextmanager
def counted(name: str, page: Page) -> Iterator[Thumb]:
    thumb = Thumb(page)
    begin = time.monotonic()
    yield thumb
    seconds = time.monotonic() - begin
    print(f"| {name} | {thumb.taps} | {thumb.keys} | {seconds:.1f} |")


def do_all(browser: Browser, origin: str) -> None:
    page = browser.new_context(**PHONE).new_page()
    page.clock.install(time=time.time() + DAY_SECONDS)
    with counted(str(join.__doc__), page) as thumb:
        page.goto(f"{origin}#{ROOM}")
        join(page, thumb)
    tasks: list[Task] = [answer, find, notice, rename]
    for task in tasks:
        with counted(str(task.__doc__), page) as thumb:
            task(page, thumb)


def main() -> None:
    with served() as origin:
        # Playwright occupies the thread's event loop once it runs.
        asyncio.run(talk(origin))
        print("| task | taps | keystrokes | seconds |\n|---|---|---|---|")
        with sync_playwright() as playwright:
            browser = launch(playwright)
            do_all(browser, origin)
            browser.close()


if __name__ == "__main__":
    main()
