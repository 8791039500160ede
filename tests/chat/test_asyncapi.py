"""docs/asyncapi.yaml is valid AsyncAPI 3, and describes the frames that are really sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from chat_client import ChatClient
from conftest import ROOT, Replica
from provider import Provider

from chat import protocol
from chat.protocol import CloseCode, ErrorCode
from chat.relay.base import partition_of

DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]


def struct_of(message: dict[str, Any]) -> str:
    name: str = message["payload"]["$ref"].removeprefix("#/components/schemas/")
    return name


def test_it_is_asyncapi_3() -> None:
    # As in the package @asyncapi/specs 6.11.1 of npm (Apache License 2.0), compressed.
    packed = ROOT / "tests" / "chat" / "asyncapi-3.0.0.schema.json.gz"
    jsonschema.validate(DOCUMENT, json.loads(gzip.decompress(packed.read_bytes())))


def test_every_reference_leads_somewhere() -> None:
    def check(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                found = DOCUMENT
                for step in part["$ref"].removeprefix("#/").split("/"):
                    found = found[step]
            for one in part.values():
                check(one)
        elif isinstance(part, list):
            for one in part:
                check(one)

    check(DOCUMENT)


def test_the_schemas_are_those_of_the_frames() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "script" / "asyncapi.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_frame_is_a_message_that_is_received_or_sent() -> None:
    assert DOCUMENT["channels"]["chat"]["messages"].keys() == MESSAGES.keys()
    directions: dict[str, set[str]] = {"receive": set(), "send": set()}
    for operation in DOCUMENT["operations"].values():
        replies = operation.get("reply", {}).get("messages", [])
        for reference in operation["messages"]:
            name = reference["$ref"].rpartition("/")[2]
            directions[operation["action"]].add(struct_of(MESSAGES[name]))
        directions["send"] |= {
            struct_of(MESSAGES[one["$ref"].rpartition("/")[2]]) for one in replies
        }
    assert directions == {
        "receive": {struct.__name__ for struct in get_args(protocol.ClientFrame)},
        "send": {struct.__name__ for struct in get_args(protocol.ServerFrame)},
    }


def test_every_error_and_close_code_is_there() -> None:
    assert DOCUMENT["components"]["schemas"]["ErrorCode"]["enum"] == sorted(ErrorCode)
    said = set(DOCUMENT["channels"]["chat"]["x-close-codes"])
    assert said == set(CloseCode)


async def test_what_is_said_fits_its_schema(replica: Replica, provider: Provider) -> None:
    rules = [{"rooms": "lobby", "write": ["talkers"], "moderate": ["talkers"]}, {"rooms": "*"}]
    server = await replica(
        provider.environment(groups_claim="groups"),
        CHAT_ROOMS=json.dumps(rules),
        CHAT_REVISIONS="true",
        CHAT_SANCTIONS="true",
        CHAT_PRIVATE_ROOMS="true",
    )
    heard = []
    async with (
        ChatClient(server.port, additional_headers=provider.headers(groups="talkers")) as ada,
        ChatClient(
            server.port, additional_headers=provider.headers("bob", groups="talkers")
        ) as bob,
    ):
        heard += [ada.welcome, await ada.join("lobby"), await ada.send("lobby", "hello")]
        heard.append(await ada.refused(type="send", room="lobby", text="", cid="1"))
        position = (await bob.join("lobby"))["position"]
        for text in ("one", "two"):
            of = (await ada.send("lobby", text))["id"]
            await ada.say(type="edit", room="lobby", id=of, text=f"{text}!", cid=f"e-{text}")
            heard.append(await ada.hear("edited"))
        await ada.say(type="delete", room="lobby", id=of, cid="d")
        heard.append(await ada.hear("deleted"))
        heard.append(await bob.join("lobby", position))
        heard.append(await bob.join("lobby", of))
        await ada.say(type="mute", room="lobby", author="0" * 32, seconds=60, cid="s")
        await ada.hear("ack", cid="s")
        await ada.say(type="sanctions", room="lobby", cid="l")
        heard.append(await ada.hear("sanctions"))
        await ada.say(type="history", room="lobby", before=(await bob.join("lobby"))["position"])
        await bob.say(type="typing", room="lobby")
        await ada.say(type="ping")
        await ada.say(type="auth", token=provider.token())
        # A room in the same partition, so that the log advances beyond the lobby's last message.
        other = next(
            name
            for name in map(str, range(100))
            if partition_of(name, 4) == partition_of("lobby", 4)
        )
        await ada.join(other)
        await ada.send(other, "hello")
        await ada.say(type="leave", room=other)
        await ada.say(type="make", cid="m")
        heard.append(await ada.hear("ack", cid="m"))
        private = heard[-1]["id"]
        await ada.say(type="invite", room=private, seconds=60, uses=1, cid="i")
        heard.append(await ada.hear("ack", cid="i"))
        await ada.say(type="members", room=private, cid="l")
        await ada.say(type="direct", author="0" * 32, cid="d")
        await ada.hear("ack", cid="d")
        await ada.say(type="block", author="0" * 32, blocked=True, cid="b")
        await ada.hear("ack", cid="b")
        await ada.say(type="rooms", cid="l")
        kinds = ("message", "position", "presence", "history", "typing", "pong", "renewed", "left")
        for kind in (*kinds, "access", "members", "rooms", "direct"):
            heard.append(await ada.hear(kind))
        draining = asyncio.create_task(server.drain())
        heard.append(await ada.hear("bye"))
    await draining
    known = {
        DOCUMENT["components"]["schemas"][struct.__name__]["properties"]["type"]["enum"][0]: struct
        for struct in get_args(protocol.ServerFrame)
    }
    assert {frame["type"] for frame in heard} == known.keys()
    for frame in heard:
        reference = {"$ref": f"#/components/schemas/{known[frame['type']].__name__}"}
        jsonschema.validate(frame, reference | {"components": DOCUMENT["components"]})


@pytest.mark.parametrize("broken", [{"type": "ack"}, {"type": "ack", "cid": 7, "id": "P"}])
def test_what_is_not_so_does_not_fit(broken: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/Ack", "components": DOCUMENT["components"]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)
