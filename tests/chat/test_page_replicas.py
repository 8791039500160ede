"""Two people in two browsers, on two replicas of which one dies: nothing is lost, nothing comes
twice, and what the page said of its connection was so.
"""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Callable

from conftest import Process
from edge import Edge
from playwright.sync_api import Page, expect
from test_page import Open, browser, lines, open_page, write

__all__ = ["browser", "open_page"]

Start = Callable[..., Process]

# A connection that broke is seen by its end, or by silence so much later (docs/protocol.md).
NOTICED_SECONDS = 10
# Between the clocks of the browser, which has milliseconds, and of the test.
CLOCKS_SECONDS = 0.01

# What the page says of its connection, and since when.
RECORD = """
window.said = [];
new MutationObserver(() => {
  const { state, replica } = document.querySelector("#status").dataset;
  const words = `${state} ${replica ?? ""}`.trim();
  if (said.at(-1)?.[1] !== words) said.push([Date.now() / 1000, words]);
}).observe(document, { subtree: true, attributeFilter: ["data-state", "data-replica"] });
"""


def what_it_said_was_so(page: Page, edge: Edge) -> list[str]:
    """What the page said of its connection, which is compared with what the edge knows."""
    said = page.evaluate("said")
    ends = [since for since, _ in said[1:]] + [page.evaluate("Date.now() / 1000")]
    for (since, words), until in zip(said, ends, strict=True):
        what = f"{words}, from {since} to {until}, with {edge.ways}"
        state, _, replica = words.partition(" ")
        if state == "connected":
            assert any(
                way.replica == replica
                and way.begin <= since + CLOCKS_SECONDS
                and until <= way.end + NOTICED_SECONDS
                for way in edge.ways
            ), what
        elif state == "waiting":
            assert all(
                way.end <= since + CLOCKS_SECONDS or until <= way.begin + CLOCKS_SECONDS
                for way in edge.ways
            ), what
    return [words for _, words in said]


def test_replicas_are_killed_while_both_type_and_nothing_is_lost_twice_or_untrue(
    process: Start, kafka: dict[str, str], open_page: Open
) -> None:
    one = process(kafka, CHAT_REPLICA="one")
    other = process(kafka, CHAT_REPLICA="other")

    def enter(edge: Edge, name: str) -> Page:
        return open_page(edge, name, lambda page: page.add_init_script(RECORD))

    with Edge(one=one, other=other) as to_one, Edge(other=other, one=one) as to_other:
        ada, bob = enter(to_one, "Ada"), enter(to_other, "Bob")
        wrote: dict[str, list[str]] = {"Ada": [], "Bob": []}

        def both_write() -> None:
            for _ in range(3):
                for name, page in (("Ada", ada), ("Bob", bob)):
                    wrote[name].append(f"{name} {len(wrote[name])}")
                    write(page, wrote[name][-1])

        def all_there() -> None:
            for page in (ada, bob):
                expect(page.locator("[role=log] li p")).to_have_count(sum(map(len, wrote.values())))
                expect(page.locator("#pending li")).to_have_count(0)

        both_write()
        all_there()
        # The log takes what she writes next, and its acknowledgement dies with the replica.
        to_one.mute = "one"
        both_write()
        expect(bob.get_by_text(wrote["Ada"][3], exact=True)).to_be_visible()
        expect(ada.locator("#pending li").first).to_have_text("Ada 3Sending…")
        one.popen.kill()
        both_write()
        expect(ada.get_by_role("status")).to_have_text("Connected to other")
        all_there()
        to_one.mute = ""
        process(kafka, CHAT_REPLICA="one", CHAT_PORT=str(one.port))
        # What they write next dies with the replica.
        other.popen.send_signal(signal.SIGSTOP)
        both_write()
        other.popen.kill()
        both_write()
        for page in (ada, bob):
            expect(page.get_by_role("status")).to_have_text("Connected to one")
        all_there()

        assert lines(ada) == lines(bob)
        for name, texts in wrote.items():
            assert [text for text in lines(bob) if text.startswith(name)] == texts
        with urllib.request.urlopen(
            f"http://127.0.0.1:{one.port}/api/rooms/lobby/messages"
        ) as answer:
            assert [it["text"] for it in json.load(answer)["messages"]] == lines(bob)
        lost = ["waiting", "connecting"]
        to_the_other, back = ["connected other"], ["connected one"]
        assert what_it_said_was_so(ada, to_one) == [
            "connecting", *back, *lost, *to_the_other, *lost, *back,
        ]  # fmt: skip
        assert what_it_said_was_so(bob, to_other) == ["connecting", *to_the_other, *lost, *back]
