"""A message is its author's, whatever names people go by: nobody takes another's name or cid, and
nothing is sent twice under two names.
"""

from __future__ import annotations

from typing import Any

import pytest
from chat_client import ChatClient
from conftest import Replica
from hypothesis import given
from hypothesis import strategies as st
from test_hub import AUTHOR, OTHER, PARTITION, ROOM, Listening, PlayedRelay, at, feed, hub

from chat.relay.base import Record, author_by_name
from chat.room import Person

KEY = "k" * 16
STRANGER = "s" * 16


class Client(ChatClient):
    """Says hello with a key of its own."""

    def __init__(self, port: int, user: str, key: str | None) -> None:
        super().__init__(port, None)
        self._hello = {"user": user, **({"key": key} if key else {})}

    async def __aenter__(self) -> Client:
        await super().__aenter__()
        await self.say(type="hello", **self._hello)
        self.welcome = await self.hear("welcome")
        return self


def said(offset: int, cid: str, text: str, author: str = AUTHOR) -> tuple[int, Record]:
    return offset, Record(ROOM, "ada", text, cid, author)


def answers(member: Listening) -> list[dict[str, Any]]:
    return [frame for frame in member.frames if frame["type"] in ("ack", "error")]


@given(st.text(min_size=16, max_size=64), st.text(min_size=1), st.text(min_size=1))
def test_an_author_is_the_key_s_and_no_name_s(key: str, user: str, other: str) -> None:
    one, same = Person.of(user, key), Person.of(other, key)
    assert one.author == same.author
    assert len(one.author) == 32
    assert int(one.author, 16) >= 0
    # Who knows the one does not know the other, and no name has a key's author.
    assert one.key not in one.author
    assert one.author not in (author_by_name(user), author_by_name(key))


async def test_whoever_has_the_name_a_message_and_its_cid_are_their_author_s(
    replica: Replica,
) -> None:
    server = await replica(CHAT_NAME_HOLD_SECONDS="0")
    async with Client(server.port, "bob", None) as bob:
        await bob.join(ROOM)
        async with Client(server.port, "ada", STRANGER) as mallory:
            # However the thief came to the name: what counts is who wrote.
            await mallory.join(ROOM)
            await mallory.send(ROOM, "stolen", "n-2")
            assert (await bob.hear("message"))["text"] == "stolen"
            await mallory.say(type="leave", room=ROOM)
            await mallory.hear("left")
        async with Client(server.port, "ada", KEY) as ada:
            await ada.join(ROOM)
            ack = await ada.send(ROOM, "mine", "n-2")
            message = await bob.hear("message", id=ack["id"])
            assert (message["text"], message["user"]) == ("mine", "ada")
            assert message["author"] == ada.welcome["author"] == Person.of("", KEY).author
            assert message["author"] != Person.of("", STRANGER).author


async def test_who_has_no_key_is_a_new_author_on_each_connection(replica: Replica) -> None:
    server = await replica()
    authors = set()
    for _ in range(2):
        async with Client(server.port, "ada", None) as ada:
            authors.add(ada.welcome["author"])
    assert len(authors) == 2


async def test_after_a_rename_nothing_is_sent_twice(replica: Replica) -> None:
    server = await replica()
    async with Client(server.port, "bob", None) as bob:
        await bob.join(ROOM)
        async with Client(server.port, "ada", KEY) as ada:
            await ada.join(ROOM)
            for number in range(3):
                await ada.say(type="send", room=ROOM, text=f"text {number}", cid=f"c{number}")
            # Before any answer has come: three messages wait.
        async with Client(server.port, "ada lovelace", KEY) as renamed:
            await renamed.join(ROOM)
            for number in range(3):
                assert (await renamed.send(ROOM, f"text {number}", f"c{number}"))["id"]
            await renamed.send(ROOM, "last")
        assert await bob.texts(ROOM, 4) == ["text 0", "text 1", "text 2", "last"]


async def test_another_text_under_a_cid_is_refused_and_said_so(replica: Replica) -> None:
    server = await replica()
    async with Client(server.port, "ada", KEY) as ada:
        await ada.join(ROOM)
        first = await ada.send(ROOM, "one", "c1")
        refused = await ada.refused(type="send", room=ROOM, text="two", cid="c1")
        assert (refused["code"], refused["cid"], refused["room"]) == ("cid_used", "c1", ROOM)
        assert (await ada.send(ROOM, "one", "c1"))["id"] == first["id"]
        assert (await ada.send(ROOM, "two", "c2"))["id"] != first["id"]
        assert await ada.texts(ROOM, 2) == ["one", "two"]


async def test_the_first_text_of_the_log_wins_wherever_the_other_was_sent() -> None:
    relay = PlayedRelay()
    made = hub(relay)
    member = Listening()
    made.send(member, ROOM, "mine", "cid")
    # Another replica took another text of the same author first.
    feed(made, [said(0, "cid", "other"), said(1, "cid", "mine")], PARTITION)
    (answer,) = answers(member)
    assert (answer["type"], answer["code"], answer["cid"]) == ("error", "cid_used", "cid")
    # And where that was sent, it is acknowledged: all replicas tell one truth.
    there, sender = hub(PlayedRelay()), Listening()
    there.send(sender, ROOM, "other", "cid")
    feed(there, [said(0, "cid", "other"), said(1, "cid", "mine")], PARTITION)
    assert answers(sender) == [{"type": "ack", "cid": "cid", "id": at(0)}]


async def test_another_text_is_refused_before_the_log_has_the_first_and_beyond_the_window() -> None:
    relay = PlayedRelay()
    made = hub(relay, window=10)
    member = Listening()
    made.send(member, ROOM, "one", "cid")
    with pytest.raises(Exception, match="under another one"):
        made.send(member, ROOM, "two", "cid")
    feed(made, [said(0, "cid", "one")], PARTITION)
    feed(made, [(n, Record(OTHER, "bob", "x", str(n), AUTHOR)) for n in range(1, 40)], PARTITION)
    with pytest.raises(Exception, match="under another one"):
        made.send(member, ROOM, "two", "cid")
    made.send(member, ROOM, "one", "cid")
    assert answers(member) == [{"type": "ack", "cid": "cid", "id": at(0)}] * 2
    assert len(relay.appended) == 1


async def test_a_message_that_a_release_without_authors_took_is_not_sent_again() -> None:
    relay = PlayedRelay()
    made = hub(relay)
    member = Listening()
    feed(made, [said(0, "cid", "one", author_by_name("ada"))], PARTITION)
    made.send(member, ROOM, "one", "cid")
    assert answers(member) == [{"type": "ack", "cid": "cid", "id": at(0)}]
    # Under another text it may be anybody's of that name.
    made.send(member, ROOM, "two", "cid")
    assert len(relay.appended) == 1


async def test_history_knows_authors_as_the_live_stream_does(replica: Replica) -> None:
    server = await replica(CHAT_WINDOW="10", CHAT_HISTORY="10", CHAT_RECENT="5")
    async with Client(server.port, "ada", KEY) as ada, Client(server.port, "bob", STRANGER) as bob:
        await ada.join(ROOM)
        await bob.join(ROOM)
        for number in range(15):
            for client in (ada, bob):
                await client.send(ROOM, f"text {number}", f"c{number}")
        live = [await ada.hear("message") for _ in range(30)]
        end = live[-1]["id"]
        await ada.say(type="history", room=ROOM, before=end, limit=100)
        told = (await ada.hear("history"))["messages"]
        assert told == live[:-1]
        assert {message["author"] for message in told} == {
            client.welcome["author"] for client in (ada, bob)
        }
