"""docs/protocol.md describes what the service does."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest
from chat_client import ChatClient, Frame
from conftest import ROOT, Replica
from provider import Provider

from chat import protocol
from chat.protocol import CloseCode, ErrorCode
from chat.settings import Settings

DOCUMENT = (ROOT / "docs" / "protocol.md").read_text()
(
    FIRST,
    AGAIN,
    BACK,
    REVISED,
    BANNED,
    BANNED_EVERYWHERE,
    REPORTED,
    PRIVATE,
    ACCEPTED,
    DIRECT,
    BLOCKED,
) = re.findall(r"^```\n(→.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


def table(heading: str) -> list[list[str]]:
    """The rows of the table below a heading, each as a list of its cells."""
    section = DOCUMENT.split(f"## {heading}\n")[1]
    rows = re.findall(r"^\|(.*)\|$", section.split("\n## ")[0], re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]


class Script:
    """Plays an example: sends the frames after →, and compares received frames with those after
    ←.
    """

    def __init__(self) -> None:
        self.positions: dict[str, str] = {}

    async def play(self, client: ChatClient, lines: str) -> None:
        for line in lines.splitlines():
            frame = json.loads(line[2:])
            if line.startswith("→"):
                for field in ("since", "before", "id"):
                    if field in frame:
                        frame[field] = self.positions[frame[field]]
                for field in {"room", "token"} & frame.keys():
                    frame[field] = self.positions.get(frame[field], frame[field])
                await client.say(**frame)
            else:
                self.compare(await client.hear(frame["type"]), frame)

    def compare(self, came: Frame, written: Frame) -> None:
        assert came.keys() == written.keys()
        for field, value in written.items():
            if field in ("id", "position", "before", "author", "by", "token"):
                assert self.positions.setdefault(value, came[field]) == came[field]
            elif field in ("ts", "edited", "until"):
                assert isinstance(came[field], int)
            elif field == "banned":
                assert came[field].keys() == value.keys()
            elif field in ("owners", "rooms"):
                assert [self.positions.setdefault(one, came[field][0]) for one in value] == came[
                    field
                ]
            elif field == "names":
                assert came[field] == {self.positions[one]: name for one, name in value.items()}
            elif field == "room":
                assert came[field] == self.positions.get(value, value)
            elif field in ("messages", "invitations"):
                assert len(came[field]) == len(value)
                for one, other in zip(came[field], value, strict=True):
                    self.compare(one, other)
            else:
                assert came[field] == value


async def test_the_examples_are_what_is_said(replica: Replica) -> None:
    server = await replica(CHAT_REPLICA="chat-7d9f", CHAT_RATE="20", CHAT_BURST="100")
    script = Script()
    async with ChatClient(server.port, user=None) as ada:
        await script.play(ada, FIRST)
    async with ChatClient(server.port, "bob") as bob:
        await bob.join("lobby")
        await bob.send("lobby", "You missed this", cid="77")
    async with ChatClient(server.port, "ada") as ada:
        await script.play(ada, AGAIN)
        await script.play(ada, BACK)
    server = await replica(CHAT_REVISIONS="true")
    async with ChatClient(server.port) as ada:
        await ada.join("lobby")
        await Script().play(ada, REVISED)


async def test_the_examples_of_bans_are_what_happens(replica: Replica, provider: Provider) -> None:
    server = await replica(
        provider.environment(groups_claim="groups"),
        CHAT_ROOMS='[{"rooms": "*", "moderate": ["desk"]}]',
        CHAT_SANCTIONS="true",
        CHAT_MODERATORS='["desk"]',
    )
    headers = provider.headers(groups=["desk"])
    async with ChatClient(server.port, additional_headers=headers) as ada:
        await ada.join("lobby")
        await Script().play(ada, BANNED + BANNED_EVERYWHERE)


async def test_the_example_of_a_report_is_what_happens(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(
        provider.environment(groups_claim="groups"),
        CHAT_ROOMS='[{"rooms": "audit", "read": ["desk"], "write": []}, {"rooms": "*"}]',
        CHAT_AUDIT_ROOM="audit",
    )
    script = Script()
    async with ChatClient(server.port, additional_headers=provider.headers()) as ada:
        await ada.join("lobby")
        script.positions["P1"] = (await ada.send("lobby", "hello"))["id"]
        await script.play(ada, REPORTED)


async def test_the_example_of_a_private_room_is_what_happens(
    replica: Replica, provider: Provider
) -> None:
    server = await replica(provider.environment(), CHAT_PRIVATE_ROOMS="true")
    script = Script()
    for user, lines in (("ada", PRIVATE), ("bob", ACCEPTED), ("bob", DIRECT + BLOCKED)):
        headers = provider.headers(user)
        async with ChatClient(server.port, additional_headers=headers) as client:
            await script.play(client, lines)


def test_every_setting_is_in_the_table_with_its_default_and_meaning() -> None:
    def written(default: Any) -> str:
        if isinstance(default, bool):
            return str(default).lower()
        if isinstance(default, tuple):
            return ",".join(default)
        return f"{default:g}" if isinstance(default, float) else str(default or "")

    def quoted(text: str) -> str:
        return f"`{text}`" if text else ""

    assert table("Running it") == [
        [
            quoted(item.metadata["variable"]),
            quoted(written(item.default)),
            item.metadata["meaning"],
        ]
        for item in fields(Settings)
    ]


def test_every_error_code_is_in_the_table() -> None:
    assert [row[0] for row in table("Errors")] == [f"`{code}`" for code in ErrorCode]


def test_every_close_code_that_says_something_is_in_the_table() -> None:
    said = {int(row[0]) for row in table("When the connection cannot go on")}
    assert said == set(CloseCode)


@pytest.mark.parametrize(
    ("heading", "structs"),
    [
        ("Frames from the client", protocol.ClientFrame),
        ("Frames from the server", protocol.ServerFrame),
    ],
)
def test_every_frame_is_in_a_table_with_its_fields(heading: str, structs: Any) -> None:
    documented = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in table(heading)}
    assert documented == {
        struct.__struct_config__.tag: list(struct.__struct_fields__) for struct in structs.__args__
    }


def test_the_page_needs_nothing_from_elsewhere() -> None:
    web = ROOT / "chat" / "web"
    for path in set(web.iterdir()) - {web / "icon.png"}:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|insertAdjacentHTML|\bstyle=|\bon\w+=", text)
    assert "<script>" not in (web / "index.html").read_text()
