"""How smoothly the page scrolls with 10,000 messages.

The script's own service returns the messages in pages, when the page asks for earlier ones. Then
the page scrolls through all of them and back, a third of its height per frame. It notes when each
frame starts (`requestAnimationFrame`), and how much CPU time each task of the main thread takes
(tracing). On a busy machine, only the latter is meaningful. The page is the checkout's, or with
`--web` another one, to compare two versions in turn.

    .venv/bin/python bench/page_scroll.py
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Page, WebSocketRoute, sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.chromium import launch

ROOT = Path(__file__).parent.parent

# One in twenty has code, as in a room of engineers.
TEXTS = [
    "Hello!",
    "Did the rollout of `chat` finish? See https://ci.example/builds/1234 for its output.",
    "> Bob: did it finish?\nYes. " + "It took a little longer than usual this time. " * 3,
    "مرحبا 👋",
] * 5
TEXTS[7] = "```\nfor host in hosts:\n    print(host)\n```"

# Messages per answer, and frames for scrolling in one direction.
PAGE = 100
TASK = "ThreadControllerImpl::RunTask"
FRAMES = 200

SCROLL = """async ({step, count}) => {
  const box = document.querySelector("#scroll");
  const times = [];
  for (let n = 0; n < count; n += 1) {
    box.scrollTop += step * box.clientHeight;
    times.push(await new Promise(requestAnimationFrame));
  }
  return times.slice(1).map((time, n) => time - times[n]);
}"""


def answer(count: int, way: WebSocketRoute, text: str | bytes) -> None:
    frame = json.loads(text)

    def messages(first: int, last: int) -> list[dict[str, object]]:
        return [
            {
                "type": "message",
                "room": "lobby",
                "id": str(number),
                "user": f"user {number // 3 % 7}",
                "author": f"author {number // 3 % 7}",
                "text": TEXTS[number % len(TEXTS)],
                "ts": 1_795_867_200_000 + 40_000 * number,
                "cid": str(number),
            }
            for number in range(first, last)
        ]

    if frame["type"] == "hello":
        welcome = {"type": "welcome", "protocol": 1, "replica": "bench", "limits": None}
        way.send(json.dumps(welcome | {"user": frame["user"], "author": "author 0"}))
    elif frame["type"] == "join":
        joined = {"type": "joined", "room": "lobby", "position": str(count - 1)}
        recent = {"messages": messages(count - PAGE, count), "more": True, "recovered": False}
        way.send(json.dumps(joined | recent))
    elif frame["type"] == "history":
        last = int(frame["before"])
        first = max(0, last - PAGE)
        page = {"type": "history", "room": "lobby", "before": frame["before"], "more": first > 0}
        way.send(json.dumps(page | {"position": str(first), "messages": messages(first, last)}))
    elif frame["type"] == "ping":
        way.send(json.dumps({"type": "pong"}))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def tasks(trace: Path) -> list[float]:
    """The CPU time of each task of the page's main thread while it scrolled, in milliseconds."""
    events = json.loads(trace.read_text())["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("args", {}).get("name") == "CrRendererMain"
    }
    by_thread: dict[tuple[int, int], list[float]] = {thread: [] for thread in threads}
    for event in events:
        thread = (event["pid"], event["tid"])
        if (
            event["name"] == "ThreadControllerImpl::RunTask"
            and thread in threads
            and "tdur" in event
        ):
            by_thread[thread].append(event["tdur"] / 1000)
    return max(by_thread.values(), key=sum)


def measure(page: Page, origin: str, count: int, folder: Path) -> dict[str, object]:
    page.route_web_socket(
        "**/ws", lambda way: way.on_message(lambda text: answer(count, way, text))
    )
    page.goto(origin)
    page.get_by_label("Name").fill("Ada")
    page.keyboard.press("Enter")
    page.locator(".message").first.wait_for()
    for _ in range(count // PAGE - 1):
        shown = page.locator(".message").count()
        page.locator("#earlier").evaluate("it => it.click()")
        page.wait_for_function(
            "shown => document.querySelectorAll('.message').length > shown", arg=shown
        )
    session = page.context.new_cdp_session(page)
    page.context.browser.start_tracing(  # type: ignore[union-attr]
        page=page, path=str(folder / "trace.json"), categories=["toplevel", "devtools.timeline"]
    )
    frames = page.evaluate(SCROLL, {"step": -1 / 3, "count": FRAMES})
    frames += page.evaluate(SCROLL, {"step": 1 / 3, "count": FRAMES})
    page.context.browser.stop_tracing()  # type: ignore[union-attr]
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"]
    nodes = session.send("Memory.getDOMCounters")["nodes"]
    work = tasks(folder / "trace.json")
    return {
        "messages": page.locator(".message").count(),
        "frames": len(frames),
        "median ms between frames": round(statistics.median(frames), 1),
        "p99 ms": round(statistics.quantiles(frames, n=100)[98], 1),
        "longest ms": round(max(frames), 1),
        "frames later than 17 ms": sum(frame > 17 for frame in frames),
        "main thread: longest task ms": round(max(work), 1),
        "tasks over 16 ms": sum(task > 16 for task in work),
        "heap MB": round(heap / 1e6, 1),
        "nodes": nodes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--web", default=ROOT / "chat" / "web", help="folder of the page")
    parser.add_argument("--count", type=int, default=10_000, help="number of messages (10000)")
    options = parser.parse_args()
    handler = functools.partial(QuietHandler, directory=str(options.web))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.set_default_timeout(60_000)
        origin = f"http://127.0.0.1:{server.server_port}/"
        for name, value in measure(page, origin, options.count, Path(folder)).items():
            print(f"{name:32} {value}")
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
