"""Moderators on the page: muting and banning the author of a message, and what these people see."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from conftest import Process
from playwright.sync_api import Locator, Page, WebSocketRoute, expect
from provider import jwks
from test_page import Open, browser, open_page, shows, write
from test_page_honesty import LIMITS, Frame, say, state
from test_page_reading import Log, Visit, said, service, visit
from test_page_revisions import accessible, message
from test_page_sign_in import KEY, Gate, signed_in

__all__ = ["browser", "open_page", "service", "visit"]

Start = Callable[..., Process]
RULES = [{"rooms": "lobby", "moderate": ["mod"]}, {"rooms": "*"}]


def moderated(folder: Path) -> dict[str, str]:
    """The environment of a replica where mod moderates the lobby."""
    (folder / "jwks.json").write_bytes(jwks(KEY))
    issuer = {"issuer": "edge", "audience": "chat", "jwks": str(folder / "jwks.json")}
    return {
        "CHAT_SANCTIONS": "true",
        "CHAT_AUTH": "required",
        "CHAT_AUTH_ISSUERS": json.dumps([issuer | {"groups_claim": "sub"}]),
        "CHAT_ROOMS": json.dumps(RULES),
    }


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Moderate: ")


def does(page: Page, name: str, outcome: str) -> None:
    dialog(page).get_by_role("button", name=name).click()
    expect(dialog(page).get_by_role("status")).to_contain_text(outcome)


@contextlib.contextmanager
def rude(open_page: Open, replica: Process, moderator: str) -> Iterator[tuple[Page, Page]]:
    """The pages of Ada, who has written something rude, and of a moderator."""
    with Gate(replica=replica) as gate:
        ada = signed_in(open_page, gate, "ada", locale="en-GB")
        other = signed_in(open_page, gate, moderator, locale="en-GB")
        write(ada, "rude")
        shows(other, "rude")
        yield ada, other


def test_moderators_mute_and_ban_and_lift_it_and_people_see_what_is_so_and_until_when(
    process: Start, open_page: Open, tmp_path: Path
) -> None:
    with rude(open_page, process(moderated(tmp_path)), "mod") as (ada, mod):
        loaded: list[str] = []
        ada.on("request", lambda request: loaded.append(request.url.rpartition("/")[2]))
        expect(mod.locator("#moderation")).to_be_attached()
        # By keyboard, and back to where one was.
        mod.get_by_label("Message", exact=True).press("ArrowUp")
        mod.keyboard.press("Tab")
        mod.keyboard.press("Tab")
        expect(mod.get_by_role("button", name="Moderate")).to_be_focused()
        mod.keyboard.press("Enter")
        expect(dialog(mod)).to_contain_text("In lobby only.")
        expect(mod.get_by_label("For how long")).to_be_focused()
        accessible(mod)
        mod.keyboard.press("Escape")
        expect(mod.get_by_role("button", name="Moderate")).to_be_focused()
        mod.keyboard.press("Enter")
        mod.get_by_label("For how long").select_option("1 week")
        does(mod, "Mute", "Muted until ")
        end = mod.evaluate("Date.now()") + 7 * 86_400_000
        why = ada.locator("#why")
        expect(why).to_contain_text("A moderator has muted you in this room until ")
        # The two clocks were asked some seconds after one another.
        ends = ada.evaluate(
            """end => [end, end - 60_000].map(ts => new Intl.DateTimeFormat(
                "en-GB", { dateStyle: "medium", timeStyle: "short" }).format(ts))""",
            end,
        )
        assert any(one in why.inner_text() for one in ends)
        expect(ada.locator("#compose")).to_be_hidden()
        accessible(ada)
        ada.reload()
        expect(why).to_contain_text("has muted you in this room until ")
        does(mod, "Ban", "Banned until ")
        expect(why).to_contain_text("You are not in this room. A moderator has banned you")
        accessible(ada)
        # The service says it once. (It answers one after the other.)
        ada.get_by_role("button", name="Join again").click()
        ada.get_by_label("Join a room").fill("garden")
        ada.keyboard.press("Enter")
        expect(ada.locator("#count")).to_have_text("1 person")
        ada.get_by_role("button", name="lobby", exact=True).click()
        expect(why).to_contain_text("has banned you from it until ")
        does(mod, "Lift", "Neither muted nor banned any more.")
        ada.get_by_role("button", name="Join again").click()
        expect(why).to_be_hidden()
        write(ada, "sorry")
        shows(mod, "rude", "sorry")
        # Nothing of it is for those who are no moderators.
        message(ada, "rude").hover()
        expect(ada.get_by_role("button", name="Moderate")).to_have_count(0)
        assert {"moderation.js", "actions.js"}.isdisjoint(loaded)
        mod.get_by_role("button", name="Close").click()
        expect(mod.get_by_role("button", name="Moderate")).to_be_focused()
        write(mod, "thank you")
        shows(mod, "rude", "sorry", "thank you")
        message(mod, "thank you").hover()
        expect(mod.get_by_role("button", name="Moderate")).to_be_hidden()


def test_who_may_ban_people_from_the_whole_chat_does_so_from_a_room_they_do_not_moderate(
    process: Start, open_page: Open, tmp_path: Path
) -> None:
    replica = process(moderated(tmp_path), CHAT_MODERATORS='["head"]')
    with rude(open_page, replica, "head") as (ada, head):
        message(head, "rude").hover()
        head.get_by_role("button", name="Moderate").click()
        expect(dialog(head).get_by_role("button", name="Mute")).to_be_hidden()
        expect(dialog(head)).not_to_contain_text("In lobby only.", use_inner_text=True)
        accessible(head)
        head.get_by_label("For how long").select_option("1 week")
        does(head, "Ban from the whole chat", "Banned from the whole chat until ")
        expect(ada.get_by_role("status").first).to_contain_text("banned")
        ada.reload()
        expect(ada.get_by_role("status").first).to_contain_text("banned")
        does(head, "Lift for the whole chat", "Not banned from the whole chat any more.")
        ada.reload()
        state(ada, "connected")
        write(ada, "sorry")
        shows(head, "rude", "sorry")


def test_who_may_not_write_any_more_still_deletes_what_they_wrote(
    process: Start, open_page: Open, tmp_path: Path
) -> None:
    replica = process(moderated(tmp_path), CHAT_REVISIONS="true")
    with rude(open_page, replica, "mod") as (ada, mod):
        write(mod, "Take it back.")
        shows(ada, "rude", "Take it back.")
        message(mod, "rude").hover()
        mod.get_by_role("button", name="Moderate").click()
        does(mod, "Mute", "Muted until ")
        expect(ada.locator("#why")).to_contain_text("has muted you")
        message(ada, "Take it back.").hover()
        expect(ada.get_by_role("button", name="Quote")).to_be_visible()
        expect(ada.get_by_role("button", name="Delete")).to_be_hidden()
        message(ada, "rude").hover()
        expect(ada.get_by_role("button", name="Edit")).to_be_hidden()
        ada.get_by_role("button", name="Delete", exact=True).click()
        ada.get_by_role("button", name="Delete for all?").click()
        for page in (ada, mod):
            expect(message(page, "Message deleted")).to_have_count(1)


class Desk(Log):
    """A service where one is a moderator, and is answered so. None: not yet."""

    def __init__(self, *answers: Frame | None, **rooms: list[Frame]) -> None:
        super().__init__(**rooms)
        self.answers = list(answers)
        self.asked: list[Frame] = []

    def hear(self, way: WebSocketRoute, frame: Frame) -> None:
        if frame["type"] == "hello":
            self.ways.append(way)
            welcome = {"type": "welcome", "protocol": 1, "replica": "mock", "limits": LIMITS}
            say(way, welcome | {"user": frame["user"], "sanctions": True})
        elif frame["type"] in ("mute", "ban"):
            self.asked.append(frame)
            if not self.answers:
                way.close(code=1012, reason="restart; retry_after=30")
            elif answer := self.answers.pop(0):
                say(way, answer | {"cid": frame["cid"], "room": frame["room"]})
        else:
            super().hear(way, frame)
            if frame["type"] == "join":
                access = {"type": "access", "read_only": False, "moderator": True}
                say(way, access | {"room": frame["room"]})


def test_moderators_are_told_why_something_was_not_done_or_that_it_is_not_known(
    visit: Visit,
) -> None:
    refusals = {
        "rate_limited": "Not done. Too fast.",
        "not_moderator": "Not done. No moderator.",
        "unavailable": "It may be done, or not. The service does not reach its store.",
    }
    texts = ("Too fast.", "No moderator.", "It may count, or not: no broker.")
    desk = Desk(
        None,
        *(
            {"type": "error", "code": code, "message": text}
            for code, text in zip(refusals, texts, strict=True)
        ),
        lobby=[said("rude", author="b" * 32)],
    )
    page = visit(desk, viewport={"width": 320, "height": 500})
    message(page, "rude").hover()
    page.get_by_role("button", name="Moderate").click()
    # Who does not wait is told all the same.
    does(page, "Ban", "Sending")
    page.keyboard.press("Escape")
    expect(dialog(page)).to_be_hidden()
    say(desk.ways[-1], {"type": "ack", "cid": desk.asked[0]["cid"], "id": "b" * 32})
    notice = page.locator("#notice")
    expect(notice).to_contain_text("Bob: Banned until ")
    page.get_by_role("button", name="Moderate").click()
    for outcome in refusals.values():
        does(page, "Ban", outcome)
    assert desk.asked[0].items() >= {"author": "b" * 32, "seconds": 600, "room": "lobby"}.items()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    accessible(page)
    does(page, "Lift", "It may be done, or not. Connection lost")
    assert desk.asked[-1]["seconds"] == 0
    does(page, "Mute", "Not done. Connection lost")
    assert len(desk.asked) == 5
    expect(notice).not_to_contain_text("done")


def test_nobody_can_be_muted_or_banned_in_a_private_room(visit: Visit) -> None:
    private = f"private-{'a' * 32}"
    desk = Desk(lobby=[said("rude")], **{private: [said("also rude", private)]})
    page = visit(desk)
    message(page, "rude").hover()
    expect(page.get_by_role("button", name="Moderate")).to_be_visible()
    page.get_by_label("Join a room").fill(private)
    page.keyboard.press("Enter")
    message(page, "also rude").hover()
    expect(page.get_by_role("button", name="Moderate")).to_be_hidden()
