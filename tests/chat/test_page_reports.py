"""Reports on the page: people report a message, and those who read the audit room act on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from conftest import Process
from playwright.sync_api import Locator, Page, WebSocketRoute, expect
from provider import jwks
from test_page import Open, browser, open_page, shows, write
from test_page_access import OUT_OF_REACH, TOO_WIDE
from test_page_honesty import LIMITS, Frame, say
from test_page_reading import Log, Visit, said, service, visit
from test_page_revisions import accessible, message
from test_page_sign_in import KEY, Gate, signed_in

from chat.audit import AUTHOR

__all__ = ["browser", "open_page", "service", "visit"]

Start = Callable[..., Process]
RULES = [
    {"rooms": "audit", "read": ["mod"], "write": []},
    {"rooms": "*", "moderate": ["mod"]},
]
BOB = "b" * 32
PRIVATE = f"private-{'a' * 32}"


def audited(folder: Path) -> dict[str, str]:
    """The environment of a replica where mod reads what people report."""
    (folder / "jwks.json").write_bytes(jwks(KEY))
    issuer = {"issuer": "edge", "audience": "chat", "jwks": str(folder / "jwks.json")}
    return {
        "CHAT_AUDIT_ROOM": "audit",
        "CHAT_REVISIONS": "true",
        "CHAT_AUTH": "required",
        "CHAT_AUTH_ISSUERS": json.dumps([issuer | {"groups_claim": "sub"}]),
        "CHAT_ROOMS": json.dumps(RULES),
    }


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Report: ")


def report(page: Page, text: str, reason: str, outcome: str) -> None:
    """Report a message; the dialog stays open."""
    message(page, text).hover()
    page.get_by_role("button", name="Report", exact=True).click()
    dialog(page).get_by_label("Your reason").fill(reason)
    dialog(page).get_by_role("button", name="Report").click()
    expect(dialog(page).get_by_role("status")).to_contain_text(outcome)


def test_what_people_report_leads_moderators_to_the_message_and_nobody_else_sees_it(
    process: Start, open_page: Open, tmp_path: Path
) -> None:
    with Gate(replica=process(audited(tmp_path))) as gate:
        ada = signed_in(open_page, gate, "ada", locale="en-GB")
        bob = signed_in(open_page, gate, "bob", locale="en-GB")
        loaded: list[str] = []
        bob.on("request", lambda request: loaded.append(request.url.rpartition("/")[2]))
        write(ada, "rude")
        shows(bob, "rude")
        # By keyboard, and back to where one was.
        expect(bob.locator("#report")).to_be_attached()
        bob.get_by_label("Message", exact=True).press("ArrowUp")
        bob.get_by_role("button", name="Report", exact=True).press("Enter")
        expect(dialog(bob)).to_contain_text("Moderators will see this message")
        expect(dialog(bob).get_by_text("need not be members")).to_be_hidden()
        expect(dialog(bob).get_by_label("Your reason")).to_be_focused()
        accessible(bob)
        bob.keyboard.press("Escape")
        expect(bob.get_by_role("button", name="Report", exact=True)).to_be_focused()
        report(bob, "rude", "He threatens me.\nauthor: me", "Reported.")
        accessible(bob)
        dialog(bob).get_by_role("button", name="Close").click()
        message(ada, "rude").hover()
        expect(ada.get_by_role("button", name="Delete")).to_be_visible()
        expect(ada.get_by_role("button", name="Report", exact=True)).to_be_hidden()

        mod = signed_in(open_page, gate, "mod", locale="en-GB")
        mod.get_by_role("button", name="Reports").click()
        expect(mod.get_by_role("heading", name="audit")).to_be_visible()
        entry = mod.locator(".audit:visible").first
        for text in ("Reported", "lobby", "ada", "bob", "rude", "He threatens me.\nauthor: me"):
            expect(entry).to_contain_text(text)
        accessible(mod)
        entry.hover()
        expect(mod.get_by_role("button", name="Quote")).to_be_visible()
        for name in ("Report", "Delete"):
            expect(mod.get_by_role("button", name=name, exact=True)).to_be_hidden()
        mod.get_by_role("button", name="Show message").click()
        expect(message(mod, "rude").filter(visible=True)).to_be_focused()
        mod.get_by_role("button", name="Delete", exact=True).click()
        mod.get_by_role("button", name="Delete for all?").click()
        expect(message(ada, "Message deleted")).to_have_count(1)
        mod.get_by_role("button", name="audit").first.click()
        expect(mod.locator(".audit:visible").nth(1)).to_contain_text("Deleted by")
        # Of this room, others are told nothing.
        expect(bob.get_by_role("button", name="Reports")).to_have_count(0)
        assert "audit.js" not in loaded


class Desk(Log):
    """A service where one may report, and reads reports. `answers`: to reports."""

    def __init__(self, *answers: Frame, **rooms: list[Frame]) -> None:
        super().__init__(**rooms)
        self.answers = list(answers)
        self.asked: list[Frame] = []
        self.audit: Frame = {"audit": "audit"}

    def hear(self, way: WebSocketRoute, frame: Frame) -> None:
        if frame["type"] == "hello":
            self.ways.append(way)
            welcome = {"type": "welcome", "protocol": 1, "replica": "mock", "limits": LIMITS}
            say(way, welcome | {"user": frame["user"], "reports": True} | self.audit)
        elif frame["type"] == "report":
            self.asked.append(frame)
            say(way, self.answers.pop(0) | {"cid": frame["cid"], "room": frame["room"]})
        else:
            super().hear(way, frame)


def test_who_reports_is_told_why_it_was_not_done_and_may_send_it_again(visit: Visit) -> None:
    codes = ("unavailable", "rate_limited", "no_message")
    desk = Desk(
        *({"type": "error", "code": code, "message": "English."} for code in codes),
        {"type": "ack", "id": "1"},
        lobby=[],
        **{PRIVATE: [said("rude " * 200, PRIVATE, author=BOB)]},
    )
    page = visit(desk, viewport={"width": 320, "height": 256})
    page.get_by_label("Join a room").fill(PRIVATE)
    page.keyboard.press("Enter")
    send = dialog(page).get_by_role("button", name="Report")
    status = dialog(page).get_by_role("status")
    report(page, "rude", "He threatens me.", "It may be done, or not. The service does not reach")
    expect(dialog(page).get_by_text("Moderators need not be members")).to_be_visible()
    send.click()
    expect(status).to_have_text("Not done. English.")
    first, again = desk.asked
    assert first == again, "the service takes it for the same report"
    dialog(page).get_by_label("Your reason").fill("He threatens us.")
    send.click()
    expect(status).to_have_text("Not done. The message is not there any more.")
    assert desk.asked[-1]["cid"] != first["cid"]
    # At 400 %, all of it is in reach.
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        accessible(page)
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(OUT_OF_REACH) == []
    send.click()
    expect(status).to_have_text("Reported.")
    expect(send).to_be_hidden()
    expect(dialog(page).get_by_role("button", name="Close")).to_be_focused()


def entry(of: str, room: str = "lobby") -> Frame:
    """As the chat says what was reported."""
    people = f"author: {BOB} Bob\nreported by: {'c' * 32} Cy"
    text = f"report\nroom: {room}\nmessage: {of}\n{people}\nreason: \n> no\ntext: \n> rude"
    return said(text, "audit", user="audit", author=AUTHOR)


def test_a_report_leads_to_a_message_that_is_not_loaded_or_says_so(visit: Visit) -> None:
    old, earlier, last = (said(text) for text in ("rude", "one", "two"))
    mute = f"mute\nroom: *\nauthor: {BOB}\nseconds: 0\nby: {'c' * 32} Cy\nlater: more"
    gone, secret = entry("gone"), entry(old["id"], PRIVATE)
    audit = [entry(old["id"]), gone, secret, said(mute, "audit", user="audit", author=AUTHOR)]
    desk = Desk(lobby=[last], audit=audit)
    page = visit(desk, viewport={"width": 320, "height": 700})
    reports = page.get_by_role("button", name="Reports")
    reports.click()
    expect(reports).to_be_hidden()
    entries = page.locator(".audit:visible")
    expect(entries).to_have_count(4)
    for text in ("Muted", "everywhere", "lifted", BOB, "later"):
        expect(entries.nth(3)).to_contain_text(text)
    # Whoever bans people from the whole chat copies their author.
    entries.first.get_by_text(BOB, exact=True).dblclick()
    assert page.evaluate("getSelection().toString().trim()") == BOB
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    show = page.get_by_role("button", name="Show message")
    for without in (2, 3):
        entries.nth(without).hover()
        expect(page.get_by_role("button", name="Quote")).to_be_visible()
        expect(show).to_be_hidden()
    desk.earlier = [[old], [earlier]]
    page.get_by_role("button", name="Leave lobby").click()
    page.get_by_role("button", name="audit").first.click()
    entries.first.hover()
    show.click()
    expect(message(page, "rude").filter(visible=True)).to_be_focused()
    assert desk.earlier == []
    page.get_by_role("button", name="audit").first.click()
    entries.nth(1).hover()
    show.click()
    expect(page.locator("#notice")).to_contain_text("among earlier messages than the 3")
    # Who may not read them any more has no button.
    page.get_by_role("button", name="Leave audit").click()
    expect(reports).to_be_visible()
    desk.audit = {}
    desk.ways[-1].close(code=1012, reason="restart; retry_after=0.1")
    expect(reports).to_have_count(0)
