"""Private rooms on the page: people make them, invite others by a link, and remove them. Two people
write to each other alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from conftest import Process
from playwright.sync_api import Locator, Page, Route, WebSocketRoute, expect
from provider import jwks
from test_page import Open, browser, open_page, shows, write
from test_page_access import OUT_OF_REACH, TOO_WIDE
from test_page_honesty import LIMITS, Frame, say, state
from test_page_reading import Log, Visit, said, service, visit
from test_page_revisions import accessible, message
from test_page_sign_in import KEY, SIGN_IN, SIGNED_OUT, Gate, sign_in, signed_in

__all__ = ["browser", "open_page", "service", "visit"]

Start = Callable[..., Process]
NAME = re.compile("^Private [0-9a-f]{6}$")
# Who is removed sees it so soon, also on a busy machine: before the page pings a silent service.
SOON_MS = 3_000
LAPSED = "This invitation does not count: it has ended, was used up or taken back"


class Gatehouse(Gate):
    """It keeps the head of each request, which is all that servers on the way may log."""

    def __init__(self, **replicas: Process) -> None:
        super().__init__(**replicas)
        self.heads: list[str] = []
        self.change = self._keep

    def _keep(self, request: bytes) -> bytes:
        self.heads.append(request.decode())
        return self._change(request)


def private(folder: Path) -> dict[str, str]:
    """The environment of a replica where people make private rooms."""
    (folder / "jwks.json").write_bytes(jwks(KEY))
    issuer = {"issuer": "edge", "audience": "chat", "jwks": str(folder / "jwks.json")}
    return {
        "CHAT_PRIVATE_ROOMS": "true",
        "CHAT_AUTH": "required",
        "CHAT_AUTH_ISSUERS": json.dumps([issuer]),
        "CHAT_AUTH_SIGN_IN_URL": SIGN_IN,
    }


def rooms(page: Page) -> Locator:
    return page.locator("#rooms .enter")


def dialog(page: Page) -> Locator:
    return page.locator("#private")


def says(page: Page, text: str) -> None:
    expect(dialog(page).get_by_role("status")).to_contain_text(text)


def press(page: Page, name: str, question: str = "") -> None:
    """Press a button of the dialog, and again if it asks so."""
    button = dialog(page).get_by_role("button", name=re.compile(f"^{re.escape(name)}"))
    button.click()
    if question:
        says(page, question)
        button.click()


def link(page: Page) -> str:
    """The link to a private room, in whose dialog one is."""
    press(page, "Make a link")
    says(page, "Whoever has this link can come in.")
    return dialog(page).get_by_label("Link", exact=True).input_value()


def accept(page: Page) -> Locator:
    invitation = page.get_by_role("dialog", name="Invitation")
    invitation.get_by_role("button", name="Join").click()
    return invitation


def test_people_make_a_private_room_invite_others_by_a_link_and_remove_them(
    process: Start, open_page: Open, tmp_path: Path
) -> None:
    def at_the_provider(route: Route) -> None:
        sign_in(route.request.frame.page.context, gate, "bob")
        route.fulfill(status=302, headers={"Location": "/"})

    with Gatehouse(replica=process(private(tmp_path))) as gate:
        ada = signed_in(open_page, gate, "ada", permissions=["clipboard-read", "clipboard-write"])
        ada.get_by_role("button", name="New private room").click()
        title = ada.get_by_role("heading", level=2).first
        expect(title).to_have_text(NAME)
        write(ada, "among us")
        shows(ada, "among us")
        name = ada.url.partition("#")[2]
        ada.get_by_role("button", name="Members").click()
        expect(dialog(ada).get_by_role("listitem")).to_have_text(["ada (owner, you)"])
        taken_back = link(ada)
        press(ada, "Take back")
        says(ada, "Taken back.")
        expect(dialog(ada).get_by_label("Link", exact=True)).to_be_hidden()
        invitation = link(ada)
        press(ada, "Copy")
        says(ada, "Copied.")
        assert ada.evaluate("navigator.clipboard.readText()") == invitation

        # Bob signs in first. Before he says so, nobody knows of him.
        bob = open_page(gate, "", lambda page: page.route("**" + SIGN_IN, at_the_provider))
        # He is faster than the module comes.
        held: list[Route] = []
        bob.route("**/private.js", lambda route: held.append(route), times=1)
        bob.goto(invitation)
        expect(bob.get_by_role("status").first).to_have_text(SIGNED_OUT)
        bob.get_by_role("link", name="Sign in").click()
        expect(bob.get_by_role("dialog", name="Invitation")).to_be_visible()
        held.pop().abort()
        accessible(bob)
        expect(dialog(ada).get_by_role("listitem").nth(1)).to_contain_text("1 left")
        accept(bob)
        shows(bob, "among us")
        # His name is known before he writes.
        expect(dialog(ada).get_by_role("listitem").nth(1)).to_have_text(re.compile("^bob"))
        write(bob, "thank you")
        shows(ada, "among us", "thank you")
        token = invitation.rpartition("=")[2].rstrip("/")
        assert name in token
        assert token not in bob.url
        assert all(token not in head for head in gate.heads)

        # Nobody else sees anything of it, with an old link or with the room's name.
        eve = signed_in(open_page, gate, "eve")
        eve.goto(taken_back)
        expect(accept(eve)).to_contain_text(LAPSED)
        expect(accept(eve)).to_contain_text("Ask whoever invited you for a new link.")
        eve.keyboard.press("Escape")
        eve.get_by_label("Join a room").fill(name)
        eve.keyboard.press("Enter")
        expect(eve.locator("#why")).to_contain_text("It is private, and you are no member.")
        shows(eve)

        # It is in the list of all browsers of its members. Who is removed sees nothing any more.
        tab = signed_in(open_page, gate, "bob")
        rooms(tab).filter(has_text="Private").click()
        shows(tab, "among us", "thank you")
        rooms(tab).filter(has_text="lobby").click()
        ada.keyboard.press("Escape")
        ada.get_by_role("button", name="Members").click()
        press(ada, "Remove: bob", "bob will see nothing of this room any more")
        expect(bob.locator("#why")).to_contain_text("no member any more", timeout=SOON_MS)
        expect(tab.locator("#notice")).to_contain_text("no member any more", timeout=SOON_MS)
        rooms(tab).filter(has_text="Private").click()
        for page in (bob, tab):
            shows(page)
            expect(page.locator("#compose")).to_be_hidden()
            expect(page.get_by_role("button", name="Members")).to_be_hidden()
        accessible(bob)
        says(ada, "Removed. All invitations have ended.")
        bob.reload()
        state(bob, "connected")
        expect(bob.locator("#why")).to_contain_text("It is private, and you are no member.")
        bob.get_by_role("button", name="Leave Private").click()
        expect(rooms(bob)).to_have_text(["lobby"])

        # Leaving is for good, so it is asked first.
        ada.keyboard.press("Escape")
        ada.get_by_role("button", name="Leave Private").click()
        says(ada, "the room ends for good. Press again to leave.")
        press(ada, "Leave for good")
        expect(rooms(ada)).to_have_text(["lobby"])
        ada.reload()
        state(ada, "connected")
        expect(rooms(ada)).to_have_text(["lobby"])


def test_nobody_writes_to_one_who_left_until_the_direct_room_is_opened_again(
    process: Start, open_page: Open, tmp_path: Path
) -> None:
    with Gate(replica=process(private(tmp_path))) as gate:
        ada, bob = (signed_in(open_page, gate, who) for who in ("ada", "bob"))
        write(bob, "hello, all")
        shows(ada, "hello, all")
        message(ada, "hello, all").hover()
        ada.get_by_role("button", name="Direct message").click()
        expect(ada.get_by_role("heading", level=2).first).to_have_text("@bob")
        # Bob has seen nothing that she wrote.
        expect(rooms(bob)).to_have_text(["lobby", "@ada"])
        write(ada, "hello, Bob")
        expect(rooms(bob)).to_have_text(["lobby", re.compile("^@ada 1 new")])
        rooms(bob).nth(1).click()
        shows(bob, "hello, Bob")
        message(bob, "hello, Bob").hover()
        expect(bob.get_by_role("button", name="Quote")).to_be_visible()
        expect(bob.get_by_role("button", name="Direct message")).to_be_hidden()
        bob.get_by_role("button", name="Members").click()
        press(bob, "Block", "The other one is not told.")
        says(bob, "Blocked.")
        accessible(bob)
        expect(bob.locator("#why")).to_contain_text("You block this person")
        expect(ada.locator("#why")).to_contain_text("or is not available")
        press(bob, "Unblock")
        says(bob, "Not blocked any more.")
        expect(ada.locator("#compose")).to_be_visible()
        press(bob, "Block", "The other one is not told.")
        expect(dialog(bob).get_by_role("button", name="Unblock")).to_be_focused()
        bob.keyboard.press("Escape")
        message(bob, "hello, Bob").hover()
        bob.get_by_role("button", name="Unblock").click()
        expect(ada.locator("#compose")).to_be_visible()
        bob.get_by_role("button", name="Leave @ada").click()
        says(bob, "The other one may read it, but not write")
        press(bob, "Leave")
        expect(rooms(bob)).to_have_text(["lobby"])
        expect(ada.locator("#why")).to_contain_text("The other one has left")
        expect(ada.locator("#compose")).to_be_hidden()
        # Either of them may open it again.
        rooms(ada).first.click()
        message(ada, "hello, all").hover()
        ada.get_by_role("button", name="Direct message").click()
        expect(ada.locator("#compose")).to_be_visible()
        expect(rooms(bob)).to_have_text(["lobby", "@ada"])


ROOM, OTHER, STRANGE = (f"private-{letter * 32}" for letter in "ace")
# It ends in a letter that looks like the end of a sentence.
TOKEN = f"{OTHER}.{'t' * 31}_"


def address(service: Process) -> str:
    return f"http://127.0.0.1:{service.port}/#invite={TOKEN}/"


ADA, BOB, DAN, FAY = (letter * 32 for letter in "abdf")


class House(Log):
    """A service with a private room of Ada, who is its only owner. She is in another one, which is
    one room too many for it. `refusals`: codes of errors.
    """

    def __init__(self, *refusals: str, **rooms: list[Frame]) -> None:
        super().__init__(**rooms)
        self.refusals = list(refusals)
        self.asked: list[Frame] = []
        self.owners = [ADA]
        self.most = 2
        # Direct rooms, and who the other one is.
        self.direct: dict[str, str] = {}
        # Names under which people came.
        self.names: dict[str, str] = {}
        # How often it refuses to let Ada into the other room, which it does not know of yet.
        self.behind = 0

    def hear(self, way: WebSocketRoute, frame: Frame) -> None:
        cid = {"cid": frame.get("cid")}
        match frame["type"]:
            case "hello":
                self.ways.append(way)
                welcome = {"type": "welcome", "protocol": 1, "replica": "mock"}
                welcome["limits"] = LIMITS | {"rooms": self.most}
                say(way, welcome | {"user": "Ada", "author": ADA, "private": True})
            case "rooms":
                listed = {"rooms": [ROOM, OTHER], "owned": [ROOM], "direct": self.direct}
                listed["names"] = self.names
                say(way, cid | {"type": "rooms"} | listed)
            case "members":
                members = [one for one in (BOB, DAN) if one not in self.owners]
                invitations = [{"id": "i", "by": ADA, "until": 1_795_953_600_000, "left": 200}]
                people = {"owners": self.owners, "members": members, "invitations": invitations}
                people["names"] = self.names
                say(way, cid | {"type": "members", "room": ROOM} | people)
            case "make" | "invite" | "accept" | "revoke" | "remove" | "promote" as kind:
                self.asked.append(frame)
                if self.refusals:
                    error = {"type": "error", "code": self.refusals.pop(0), "message": "English."}
                    say(way, cid | error)
                    return
                if kind == "promote":
                    self.owners.append(frame["author"])
                identity = OTHER if kind == "accept" else frame.get("author", "i")
                say(way, cid | {"type": "ack", "id": identity, "token": TOKEN})
            case "join" if frame["room"] == OTHER and self.behind:
                self.behind -= 1
                error = {"type": "error", "code": "bad_room", "message": "English."}
                say(way, error | {"room": OTHER})
            case _:
                super().hear(way, frame)


def test_owners_are_told_whom_they_name_or_remove_and_why_something_was_not_done(
    visit: Visit, service: Process
) -> None:
    house = House("rate_limited", "not_moderator", **{ROOM: [said("hi", ROOM, author=BOB)]})
    # What one has written last counts.
    house.names = {BOB: "Robert"}
    page = visit(house, viewport={"width": 320, "height": 256})
    expect(page.locator("#notice")).to_have_text(re.compile("more rooms .* which is 2"))
    # Nor do strangers, who open direct rooms, make the list longer.
    say(house.ways[-1], {"type": "direct", "room": STRANGE, "author": DAN})
    rooms(page).filter(has_text="Private aaaaaa").click()
    expect(rooms(page)).to_have_text(["lobby", "Private aaaaaa"])
    presence = {"type": "presence", "room": ROOM, "count": 3, "users": ["Ada", "Bob", "Dan"]}
    say(house.ways[-1], presence)
    page.get_by_role("button", name="Members").click()
    people = dialog(page).get_by_role("listitem")
    expect(people).to_contain_text(["Ada (owner, you)", "Bob", f"({DAN[:6]})", "200 left"])
    expect(dialog(page)).to_contain_text("Here now, and has not written: Dan")
    # At 400 %, all of it is in reach.
    dialog(page).get_by_label("What you call it here").fill("W" * 40)
    press(page, "Save")
    says(page, "Nobody else sees this name.")
    press(page, "Make a link")
    says(page, "Not done. English.")
    press(page, "Make owner: Bob", "Press again to make Bob an owner.")
    says(page, "Not done. You are no owner of this room.")
    assert link(page) == address(service)
    assert house.asked[-1].items() >= {"seconds": 86400, "uses": 1, "room": ROOM}.items()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        accessible(page)
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(OUT_OF_REACH) == []
    press(page, "Make owner: Bob", "Press again to make Bob an owner.")
    expect(people).to_contain_text(["Ada (owner, you)", "Bob (owner)", f"({DAN[:6]})", "200 left"])
    # Dan has the name of another member.
    house.tell("hi", ROOM, author=DAN)
    expect(people).to_contain_text(["Ada", f"Bob ({BOB[:6]}) (owner)", f"Bob ({DAN[:6]})", "left"])
    press(page, f"Remove: Bob ({DAN[:6]})", f"Bob ({DAN[:6]}) will see nothing")
    assert house.asked[-1].items() >= {"type": "remove", "author": DAN}.items()


def test_a_link_leads_into_a_room_and_direct_rooms_show_which_of_two_namesakes_writes(
    visit: Visit, service: Process
) -> None:
    house = House(
        "no_invitation",
        lobby=[said(f"Come in: {address(service)}", user="Eve")],
        **{OTHER: [said("welcome", OTHER, user="Eve")], ROOM: [said("hi", ROOM, author=BOB)]},
    )
    house.behind = 1
    page = visit(house)
    page.get_by_role("link", name=address(service)).click()
    accept(page)
    expect(page.get_by_role("heading", level=2).first).to_have_text("Private cccccc")
    shows(page, "welcome")
    assert [frame["token"] for frame in house.asked] == [TOKEN, TOKEN]
    assert house.behind == 0
    house.behind = 1
    page.reload()
    expect(rooms(page).filter(has_text="Private aaaaaa")).to_be_visible()
    expect(page.get_by_role("dialog", name="Invitation")).to_be_hidden()
    expect(page.locator("#why")).to_contain_text("It is private, and you are no member.")
    # A link of any length is refused like others: too long a frame would close the connection.
    house.refusals = ["no_invitation"] * 2
    page.evaluate("location.hash = `invite=${'<'.repeat(1_000_000)}`")
    expect(accept(page)).to_contain_text(LAPSED)
    assert len(house.asked[-1]["token"]) < 100
    # With a good one, one comes back into a room that is still in the list.
    accept(page)
    shows(page, "welcome")

    house.most = 4
    house.direct = {ROOM: BOB, OTHER: FAY}
    house.names = {FAY: "Fay"}
    house.rooms[STRANGE] = []
    page.reload()
    labels = ["lobby", "@Bob", "@Fay"]
    expect(rooms(page)).to_have_text(labels)
    say(house.ways[-1], {"type": "direct", "room": STRANGE, "author": DAN})
    expect(rooms(page)).to_have_text([*labels, f"@{DAN[:6]}"])
    bob, stranger = rooms(page).nth(1), rooms(page).nth(3)
    # Strangers write under names that look like Bob's, and like what would tell him apart.
    house.tell("it is me", STRANGE, user=f"Bob ({BOB[:6]})", author=DAN)
    expect(stranger).to_contain_text(f"@Bob ({BOB[:6]}) ({DAN[:6]})")
    expect(bob).to_have_text("@Bob")
    house.tell("so am I", user="BO\u200bB", author="e" * 32)
    expect(bob).to_have_text(f"@Bob ({BOB[:6]})")
    house.tell("it is me", STRANGE, author=DAN)
    expect(stranger).to_contain_text(f"@Bob ({DAN[:6]})")

    # A label of one's own stays, also if it looks like one of the page's, until it is deleted.
    bob.click()
    page.get_by_role("button", name="Members").click()
    for label, shown in (("@work", "@work"), ("", f"@Bob ({BOB[:6]})")):
        dialog(page).get_by_label("What you call it here").fill(label)
        press(page, "Save")
        house.tell(f"after {label}", ROOM, author=BOB)
        shows(page, "hi", *["after @work", "after "][: 1 + (label == "")])
        expect(bob).to_have_text(shown)
