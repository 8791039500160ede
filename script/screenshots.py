"""Take the pictures of the page for docs/page.md.

The page is this checkout's, served by `python -m chat`. What is said is canned: a stand-in answers
its WebSocket, and its clock stands still, so that the pictures change only if the page does.

    .venv/bin/python script/screenshots.py
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, WebSocketRoute, sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.chromium import launch

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "page"

# 2026-11-28, 12:00 UTC
NOON = 1_795_867_200_000
MINUTE = 60_000

# Minutes from noon, who, and what.
Talk = list[tuple[int, str, str]]
TALK = [
    (-1500, "Grace", "The new brokers are in. I shall move the partitions tonight."),
    (-95, "Bob", "Did the rollout finish?"),
    (-94, "Bob", "It was at `chat-2` when I left. See https://ci.example/builds/1234"),
    (-12, "Eve", "It did:\n```\n$ kubectl get pods\nchat-0   Running\nchat-1   Running\n```"),
    (-3, "Bob", "> Eve: It did:\nThank you. @Ada, can you check the alerts?"),
]
RIGHT_TO_LEFT = [
    (-9, "دانا", "صباح الخير! هل انتهى التحديث؟"),
    (-8, "Bob", "Yes, at 11:50."),
    (-3, "דוד", "מצוין, תודה! `chat-2` עדיין מתחיל."),
    (-2, "دانا", "سأتحقق من التنبيهات."),
]
# What the chat says in the audit room (chat/audit.py).
CHAT = "e2459dcfd60c2f703a0d45feb2c652a9"
GRACE, EVE, MALLORY, DANA = (f"{digit}{'0' * 31}" for digit in "1234")
AUDIT = [
    (
        -30,
        "audit",
        f"report\nroom: lobby\nmessage: lobby-1\nauthor: {MALLORY} Mallory\n"
        f"reported by: {EVE} Eve\nreason: \n> He does not stop.\ntext: \n> Buy my cheap brokers!",
    ),
    (-28, "audit", f"mute\nroom: lobby\nauthor: {MALLORY}\nseconds: 86400\nby: {GRACE} Grace"),
]
LIMITS = {"frame_bytes": 32768, "text_bytes": 8192, "text_graphemes": 2000, "rooms": 50}


PRIVATE = f"private-3f2a91{'0' * 26}"


class Service:
    """Says what is canned, and refuses what it is told to refuse. `private`: whether Ada has a
    private room. `audit`: whether she reads what people report. `access`: what she may do in all
    other rooms.
    """

    def __init__(
        self, talk: Talk, *, private: bool = False, audit: bool = False, **access: Any
    ) -> None:
        self.talk = talk
        self.private = private
        self.audit = audit
        self.access = access
        self.gone = False

    def route(self, way: WebSocketRoute) -> None:
        if self.gone:
            way.close(code=1012, reason="restart; retry_after=9")
            return
        self.way = way
        way.on_message(lambda text: self.hear(json.loads(text)))

    def say(self, **frame: Any) -> None:
        self.way.send(json.dumps(frame))

    def hear(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "hello":
            welcome = {"protocol": 1, "replica": "chat-1", "limits": LIMITS, "author": "Ada"}
            moderated = dict.fromkeys(("revisions", "sanctions"), bool(self.access))
            moderated["private"] = self.private
            if self.audit:
                welcome |= {"reports": True, "audit": "audit"}
            self.say(type="welcome", user=frame["user"], **welcome, **moderated)
        elif frame["type"] == "join":
            room = frame["room"]
            talk = {"lobby": self.talk, "audit": AUDIT}.get(room, [])
            known = {"recovered": True, "more": False, **self.access}
            messages = [self.message(room, n, *said) for n, said in enumerate(talk)]
            self.say(type="joined", room=room, position="0", messages=messages, **known)
            self.say(type="presence", room=room, count=4, users=["Ada", "Bob", "Eve", "Grace"])
        elif frame["type"] == "send":
            refused = {"code": "bad_text", "message": "A text needs something to see."}
            self.say(type="error", cid=frame["cid"], room=frame["room"], **refused)
        elif frame["type"] in ("mute", "report"):
            self.say(type="ack", cid=frame["cid"], id="")
        elif frame["type"] == "rooms":
            self.say(type="rooms", cid=frame["cid"], rooms=[PRIVATE], owned=[PRIVATE])
        elif frame["type"] == "invite":
            self.say(type="ack", cid=frame["cid"], id="3", token="x")
        elif frame["type"] == "members":
            days = [{"by": "Ada", "until": NOON + n * 1440 * MINUTE, "left": n} for n in (1, 3)]
            invitations = [day | {"id": str(day["left"])} for day in days]
            people = {"owners": ["Ada", "Grace"], "members": ["Bob", DANA], "names": {DANA: "Dana"}}
            people["invitations"] = invitations
            self.say(type="members", cid=frame["cid"], room=frame["room"], **people)

    def message(self, room: str, n: int, minutes: int, user: str, text: str) -> dict[str, Any]:
        ts = NOON + minutes * MINUTE
        kind = {"type": "message", "room": room, "id": f"{room}-{n}", "cid": f"c{n}"}
        author = CHAT if user == "audit" else user
        return kind | {"user": user, "author": author, "text": text, "ts": ts}


@contextmanager
def served() -> Iterator[str]:
    """The page's address."""
    environment = {"CHAT_ADDRESS": "127.0.0.1", "CHAT_PORT": "0", "CHAT_INTERNAL_PORT": "0"}
    with tempfile.NamedTemporaryFile("r") as log:
        chat = subprocess.Popen(
            [sys.executable, "-m", "chat"],
            cwd=ROOT,
            env=os.environ | environment,
            stderr=Path(log.name).open("w"),  # noqa: SIM115
        )
        deadline = time.monotonic() + 30
        try:
            while not (found := re.search(r"page on port (\d+)", log.read())):
                log.seek(0)
                if time.monotonic() > deadline:
                    sys.exit("script/screenshots.py: the chat does not listen")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{found[1]}/"
        finally:
            chat.terminate()
            chat.wait()


def enter(browser: Browser, origin: str, service: Service, **options: Any) -> Page:
    options = {"viewport": {"width": 900, "height": 600}, "timezone_id": "UTC"} | options
    page = browser.new_context(service_workers="block", **options).new_page()
    page.clock.install(time=NOON / 1000)
    page.clock.pause_at(NOON / 1000 + 1)
    page.route_web_socket("**/ws", service.route)
    page.goto(origin)
    page.locator("#name").fill("Ada")
    page.keyboard.press("Enter")
    page.locator("#status[data-state=connected]").wait_for()
    page.locator("#room").fill("kafka")
    page.keyboard.press("Enter")
    page.locator("#rooms button").first.click()
    for n, text in enumerate(("Broker 3 is back.", "Ada: its log is clean.")):
        service.say(**service.message("kafka", n, 0, "Grace", text))
    page.locator("#rooms .mentioned:visible").wait_for()
    return page


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    phone = {"viewport": {"width": 390, "height": 700}}
    # Text of 200 %: half as many CSS pixels, each of twice the size.
    large = {"viewport": {"width": 450, "height": 350}, "device_scale_factor": 2}
    with sync_playwright() as playwright, served() as origin:
        browser = launch(playwright)

        def take(page: Page, name: str) -> None:
            page.evaluate("document.fonts.ready")
            page.screenshot(path=FOLDER / f"{name}.png", animations="disabled", caret="hide")

        def entered(
            talk: Talk = TALK,
            access: dict[str, Any] | None = None,
            private: bool = False,
            audit: bool = False,
            **options: Any,
        ) -> tuple[Page, Service]:
            service = Service(talk, private=private, audit=audit, **access or {})
            return enter(browser, origin, service, **options), service

        page, service = entered()
        take(page, "light")
        page.locator("#text").fill("\u3164")
        page.keyboard.press("Enter")
        page.locator("#pending .failed").wait_for()
        take(page, "failed")
        page.get_by_role("button", name="Discard").click()
        page.locator("#help").click()
        take(page, "dialog")
        page.keyboard.press("Escape")
        service.gone = True
        service.way.close(code=1012, reason="restart; retry_after=9")
        page.locator("#status[data-state=waiting]").wait_for()
        page.locator("#text").fill("Yes, at once.")
        page.keyboard.press("Enter")
        take(page, "reconnecting")
        take(entered(color_scheme="dark")[0], "dark")
        take(entered(color_scheme="dark", locale="de-DE", **phone)[0], "phone")
        take(entered(RIGHT_TO_LEFT, **phone)[0], "rtl")
        take(entered(**large)[0], "large")
        page, _ = entered(access={"moderator": True})
        page.locator("#logs .message:visible").nth(1).hover()
        page.get_by_role("button", name="Moderate").click()
        page.get_by_role("button", name="Mute").click()
        page.get_by_text("Muted until").wait_for()
        take(page, "moderating")
        muted = {"read_only": True, "until": NOON + 60 * MINUTE}
        page, _ = entered(access=muted, color_scheme="dark", **phone)
        page.get_by_text("has muted you").wait_for()
        take(page, "muted")
        page, _ = entered(private=True, viewport={"width": 900, "height": 840})
        page.get_by_role("button", name="Private 3f2a91", exact=True).click()
        page.get_by_role("button", name="Members").click()
        page.get_by_role("button", name="Make a link").click()
        page.get_by_text("Whoever has this link").wait_for()
        # Its address is another one each time.
        page.evaluate("document.getElementById('private-link').value = 'https://chat.example/#in…'")
        take(page, "private")
        page, _ = entered(private=True, color_scheme="dark", **phone)
        page.evaluate("location.hash = 'invite=x'")
        page.get_by_role("dialog", name="Invitation").wait_for()
        take(page, "invited")
        page, _ = entered(audit=True, color_scheme="dark", **phone)
        page.locator("#logs .message:visible").nth(1).hover()
        page.get_by_role("button", name="Report", exact=True).click()
        page.get_by_label("Your reason").fill("He does not stop.")
        take(page, "reporting")
        page, _ = entered(audit=True)
        page.get_by_role("button", name="Reports").click()
        page.locator(".audit:visible").first.hover()
        page.get_by_role("button", name="Show message").wait_for()
        take(page, "reports")
        browser.close()


if __name__ == "__main__":
    main()
