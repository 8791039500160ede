"""The time from Enter on one person's page until the text is on another's, across replicas.

Two pages in one browser are connected to two replicas, so both use the same clock. One notes when
Enter is pressed, the other when the message is in its document. The next message is sent a tenth of
a second after the last one was seen, because the chat limits the rate of a client. The path
includes both browsers' event loops, the edge, two replicas and Kafka with all its copies. The first
ten messages are for warming up and are not counted.

    script/up
    .venv/bin/python bench/page_latency.py 10.89.0.11
"""

import argparse
import statistics
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.chromium import launch

WARM_UP = 10
PAUSE_MS = 100

NOTE_ENTER = """
window.pressed = {};
document.querySelector("#text").addEventListener("keydown", ({key, target}) => {
  if (key === "Enter") pressed[target.value] = performance.timeOrigin + performance.now();
}, {capture: true});
"""
NOTE_SEEN = """
window.seen = {};
new MutationObserver(() => {
  const last = [...document.querySelectorAll("[role=log] li p")].at(-1);
  if (last) seen[last.innerText] ??= performance.timeOrigin + performance.now();
}).observe(document.querySelector("#logs"), {childList: true, subtree: true, characterData: true});
"""


def open_page(browser: Browser, address: str, name: str) -> tuple[Page, str]:
    """Open a page and connect it. Returns the page and the name of its replica."""
    page = browser.new_context(ignore_https_errors=True).new_page()
    page.goto(f"http://{address}/")
    page.get_by_label("Name").fill(name)
    page.keyboard.press("Enter")
    page.locator("[role=status][data-state=connected]").wait_for()
    return page, page.get_by_role("status").inner_text().removeprefix("Connected to ")


def measure(browser: Browser, address: str, count: int) -> tuple[list[float], list[str]]:
    """Milliseconds per message, and the names of the two replicas."""
    ada, here = open_page(browser, address, "Ada")
    for _ in range(20):
        bob, there = open_page(browser, address, "Bob")
        if there != here:
            break
        bob.context.close()
    else:
        sys.exit(f"{address}: in twenty connections there was only one replica, {here}")
    ada.evaluate(NOTE_ENTER)
    bob.evaluate(NOTE_SEEN)
    taken = []
    for number in range(WARM_UP + count):
        text = f"message {number}"
        ada.locator("#text").fill(text)
        ada.keyboard.press("Enter")
        seen = bob.wait_for_function("text => seen[text]", arg=text, polling=5).json_value()
        ada.wait_for_timeout(PAUSE_MS)
        taken.append(seen - ada.evaluate("text => pressed[text]", text))
    return taken[WARM_UP:], [here, there]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="address of Traefik, for example 10.89.0.11")
    parser.add_argument("--count", type=int, default=200, help="number of messages (200)")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        taken, replicas = measure(browser, options.address, options.count)
        browser.close()
    percentiles = statistics.quantiles(taken, n=100)
    print(
        f"{len(taken)} messages, {replicas[0]} to {replicas[1]}: median {percentiles[49]:.1f} ms, "
        f"p99 {percentiles[98]:.1f} ms, longest {max(taken):.1f} ms"
    )


if __name__ == "__main__":
    main()
