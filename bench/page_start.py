"""How soon the page shows something, and the last message of a room.

A service without Kafka has a room with 70 messages. A browser visits it for the first time and
enters a name. Then it returns, with a remembered name and a filled cache. Times count from the
start of navigation, by the browser's own clock, and are medians. With `--against`, another
checkout's page and service are visited in turn.

    .venv/bin/python bench/page_start.py --against ../before
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from chat.client import connect
from tests.chromium import launch

ROOT = Path(__file__).parent.parent
ROOM = "kafka"
LAST = "Broker 69 is back."
# Makes the page note when it first shows the last message.
WATCH = f"""
new MutationObserver((_, watch) => {{
  if (!document.body?.innerText.includes("{LAST}")) return;
  window.shown = performance.now();
  watch.disconnect();
}}).observe(document, {{childList: true, subtree: true, characterData: true}});
"""
SHOWN = "window.shown"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
PATIENCE_SECONDS = 30.0


class Visit(NamedTuple):
    """Milliseconds until the first paint, and until the last message was shown."""

    painted: float
    shown: float


@contextmanager
def served(tree: Path, folder: Path) -> Iterator[str]:
    """The address of a checkout's service, with messages in its room."""
    environment = os.environ | {
        "KAFKA_ENABLED": "false",
        "CHAT_ADDRESS": "127.0.0.1",
        "CHAT_PORT": "0",
        "CHAT_INTERNAL_PORT": "0",
    }
    log = folder / "chat.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "chat"]
        process = subprocess.Popen(command, cwd=tree, env=environment, stderr=output)
    try:
        while not (found := re.search(r"page on port (\d+)", log.read_text())):
            if process.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.05)
        asyncio.run(talk(f"ws://127.0.0.1:{found[1]}/ws"))
        yield f"http://127.0.0.1:{found[1]}/#{ROOM}"
    finally:
        process.terminate()
        process.wait()


async def talk(url: str) -> None:
    async with connect(url, "Bob") as bob:
        await bob.room(ROOM).joined()
        for broker in range(70):
            await bob.send(ROOM, f"Broker {broker} is back.")


def noted(page: Page, expression: str) -> float:
    """What the page has noted, as soon as it has. Its policy forbids Playwright's own way of
    waiting.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := page.evaluate(expression)) is None:
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)
    return float(found)


def visit(browser: Browser, url: str, name: str) -> tuple[float, Visit]:
    """The time of the first visit's first paint, and the second visit."""
    context = browser.new_context()
    context.add_init_script(WATCH)
    page = context.new_page()
    page.goto(url)
    first = noted(page, PAINTED)
    page.get_by_label("Name").fill(name)
    page.keyboard.press("Enter")
    noted(page, SHOWN)
    page.close()
    page = context.new_page()
    page.goto(url)
    again = Visit(shown=noted(page, SHOWN), painted=noted(page, PAINTED))
    context.close()
    return first, again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, to compare with")
    parser.add_argument("--rounds", type=int, default=10, help="visits of each (10)")
    options = parser.parse_args()
    trees = [ROOT, *([options.against] if options.against else [])]
    visits: dict[Path, list[tuple[float, Visit]]] = {tree: [] for tree in trees}
    with ExitStack() as ending:
        urls = {}
        for tree in trees:
            folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
            urls[tree] = ending.enter_context(served(tree, folder))
        # Its event loop would get in the way of others.
        browser = launch(ending.enter_context(sync_playwright()))
        for number in range(options.rounds):
            for tree, url in urls.items():
                # A name belongs to the first person who used it.
                visits[tree].append(visit(browser, url, f"Ada {number}"))
        browser.close()
    for tree, found in visits.items():
        first = statistics.median(one for one, _ in found)
        again = Visit(
            statistics.median(it.painted for _, it in found),
            statistics.median(it.shown for _, it in found),
        )
        print(
            f"{tree.resolve().name}: first visit paints after {first:.0f} ms, the next one after"
            f" {again.painted:.0f} ms and shows the last message after {again.shown:.0f} ms"
        )


if __name__ == "__main__":
    main()
