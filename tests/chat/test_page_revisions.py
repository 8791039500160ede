"""Deleting and editing messages on the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from conftest import Process
from playwright.sync_api import Locator, Page, expect
from provider import jwks
from test_page import Open, browser, connected, open_page, shows, write
from test_page_sign_in import KEY, Gate, signed_in

__all__ = ["browser", "open_page"]

Start = Callable[..., Process]


def message(page: Page, text: str) -> Locator:
    return page.locator("#logs .message", has_text=text)


def accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_one_s_own_messages_are_edited_and_deleted_for_all(process: Start, open_page: Open) -> None:
    replica = process(CHAT_REVISIONS="true")
    ada = open_page(replica, "Ada", locale="en-GB")
    bob = open_page(replica, "Bob", locale="de")
    connected(ada)
    write(ada, "helo")
    shows(bob, "helo")
    # Bob has no such buttons on what Ada wrote.
    message(bob, "helo").hover()
    expect(bob.get_by_role("button", name="Zitieren")).to_be_visible()
    expect(bob.get_by_role("button", name="Löschen")).to_have_count(0)
    # By keyboard.
    ada.get_by_label("Message", exact=True).press("ArrowUp")
    ada.keyboard.press("Tab")
    ada.keyboard.press("Tab")
    expect(ada.get_by_role("button", name="Edit")).to_be_focused()
    ada.keyboard.press("Enter")
    field = ada.get_by_label("New text")
    expect(field).to_be_focused()
    accessible(ada)
    field.fill("hello **")
    field.press("Escape")
    expect(field).to_have_count(0)
    expect(message(ada, "helo")).to_be_focused()
    ada.get_by_role("button", name="Edit").click()
    field.fill("hello @Bob `x`")
    field.press("Enter")
    shows(bob, "hello @Bob x")
    expect(message(bob, "hello").locator("code")).to_have_text("x")
    expect(message(bob, "hello")).to_contain_text("bearbeitet")
    expect(field).to_have_count(0)
    expect(message(ada, "hello")).to_contain_text("edited")
    accessible(bob)
    # Once more, and it is gone.
    message(ada, "hello").hover()
    ada.get_by_role("button", name="Delete", exact=True).click()
    ada.get_by_role("button", name="Delete for all?").click()
    for page, words in ((ada, "Message deleted"), (bob, "Nachricht gelöscht")):
        expect(message(page, words)).to_have_count(1)
        assert "hello" not in page.locator("#logs").inner_text()
        accessible(page)
    message(ada, "Message deleted").hover()
    expect(ada.get_by_role("button", name="Delete")).to_be_hidden()
    bob.get_by_role("searchbox").fill("hello")
    expect(bob.locator("#found")).to_contain_text("Nicht in")
    write(ada, "and now?")
    bob.reload()
    connected(bob)
    shows(bob, "and now?")
    expect(bob.locator("#logs .message")).to_have_count(1)


def test_what_was_deleted_and_edited_meanwhile_is_so_for_who_comes_back(
    process: Start, open_page: Open
) -> None:
    replica = process(CHAT_REVISIONS="true")
    ada, bob = open_page(replica, "Ada", locale="en-GB"), open_page(replica, "Bob", locale="en-GB")
    for text in ("one", "two", "three"):
        write(ada, text)
    shows(bob, "one", "two", "three")
    bob.context.set_offline(True)
    bob.evaluate("dispatchEvent(new Event('offline'))")
    message(ada, "one").hover()
    ada.get_by_role("button", name="Delete", exact=True).click()
    ada.get_by_role("button", name="Delete for all?").click()
    expect(message(ada, "Message deleted")).to_have_count(1)
    message(ada, "two").hover()
    ada.get_by_role("button", name="Edit").click()
    ada.get_by_label("New text").fill("four")
    ada.get_by_role("button", name="Save").click()
    expect(message(ada, "four").get_by_text("edited")).to_be_visible()
    bob.context.set_offline(False)
    connected(bob)
    expect(bob.locator("#logs .text")).to_have_text(["Message deleted", "four", "three"])


def test_moderators_delete_what_others_wrote(
    process: Start, open_page: Open, tmp_path: Path
) -> None:
    (tmp_path / "jwks.json").write_bytes(jwks(KEY))
    issuer = {
        "issuer": "edge",
        "audience": "chat",
        "jwks": str(tmp_path / "jwks.json"),
        "groups_claim": "sub",
    }
    rules = [{"rooms": "*", "moderate": ["mod"]}]
    replica = process(
        CHAT_REVISIONS="true",
        CHAT_AUTH="required",
        CHAT_AUTH_ISSUERS=json.dumps([issuer]),
        CHAT_ROOMS=json.dumps(rules),
    )
    with Gate(replica=replica) as gate:
        ada = signed_in(open_page, gate, "ada", locale="en-GB")
        mod = signed_in(open_page, gate, "mod", locale="en-GB")
        write(ada, "rude")
        shows(mod, "rude")
        message(mod, "rude").hover()
        expect(mod.get_by_role("button", name="Edit")).to_be_hidden()
        # Nobody is muted or banned there.
        expect(mod.get_by_role("button", name="Moderate")).to_have_count(0)
        mod.get_by_role("button", name="Delete", exact=True).click()
        mod.get_by_role("button", name="Delete for all?").click()
        for page in (ada, mod):
            expect(message(page, "Message deleted")).to_have_count(1)
