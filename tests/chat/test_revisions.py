"""Deleted messages are gone, and edited ones have their last text: in every later answer of every
replica, however old they are and whenever it was started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from chat_client import ChatClient, Frame
from conftest import Replica
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json
from test_history import WINDOW, KeptLog
from test_hub import (
    AUTHOR,
    EPOCH,
    OTHER,
    PARTITION,
    PARTITIONS,
    ROOM,
    Listening,
    at,
    hub,
    taken_at,
)
from test_server import get

from chat.hub import Hub
from chat.protocol import ErrorCode, Position
from chat.relay.base import Batch, Entry, Record, Revision
from chat.room import Person

BOB, STRANGER = (Person.of(name, name).author for name in ("bob", "eve"))

# Ids of messages and their texts, oldest first.
View = dict[str, str]


class RevisedLog(KeptLog):
    """What is written may also delete (no text) or edit an earlier message."""

    def revise(
        self, of: int, text: str = "", author: str = AUTHOR, *, moderator: bool = False
    ) -> None:
        offset = len(self.entries)
        made = Revision(ROOM, "ada", text, f"r{offset}", author, of, taken_at(of), moderator)
        self.entries.append(Entry(offset, taken_at(offset), made))

    def say(self, author: str = AUTHOR, room: str = ROOM) -> None:
        offset = len(self.entries)
        record = Record(room, "ada", f"text {offset}", f"c{offset}", author)
        self.entries.append(Entry(offset, taken_at(offset), record))

    def starts(self, start: int = 0, **sizes: Any) -> Hub:
        """A replica that begins to read at an offset, and reads all."""
        made = hub(self, window=WINDOW, scan=1000, **{"history": 10, **sizes})
        made.revisions = True
        made.reset(EPOCH, [start - 1] * PARTITIONS)
        deliver(made, self.entries[start:])
        return made

    @property
    def forged(self) -> set[str]:
        return {
            at(entry.record.offset)
            for entry in self.entries
            if isinstance(entry.record, Revision)
            and entry.record.author == STRANGER
            and not entry.record.moderator
        }

    @property
    def view(self) -> View:
        """What the log says, by a model that knows all of it."""
        said: dict[int, tuple[str, str]] = {}
        for offset, _, record in ((one.offset, one.ts, one.record) for one in self.entries):
            if record.room != ROOM:
                continue
            if not isinstance(record, Revision):
                said[offset] = record.author, record.text
            elif record.offset in said and (
                record.moderator or said[record.offset][0] == record.author
            ):
                if record.text:
                    said[record.offset] = record.author, record.text
                else:
                    del said[record.offset]
        return {at(offset): text for offset, (_, text) in said.items()}


def deliver(made: Hub, entries: Sequence[Entry]) -> None:
    if entries:
        times = [(entry.offset, entry.ts) for entry in entries]
        made.deliver([Batch(PARTITION, entries[-1].offset, entries, times)])


def hear(view: View, frames: Sequence[dict[str, Any]]) -> View:
    """What a client shows after these frames."""
    for frame in frames:
        match frame["type"]:
            case "joined":
                if not frame["recovered"]:
                    view.clear()
                for of in frame.get("deleted", ()):
                    view.pop(of, None)
                for message in frame.get("edited", ()):
                    if message["id"] in view:
                        view[message["id"]] = message["text"]
                view |= {message["id"]: message["text"] for message in frame["messages"]}
            case "message":
                view[frame["id"]] = frame["text"]
            case "deleted":
                view.pop(frame["id"], None)
            case "edited":
                if frame["id"] in view:
                    view[frame["id"]] = frame["text"]
    return view


async def paged(made: Hub) -> tuple[View, View]:
    """All of a room, page by page: from the end, and from the beginning."""
    back: View = {}
    before = None
    while True:
        page = await made.before(ROOM, before, 3, "")
        found = (json.decode(message.payload) for message in page.messages)
        back = {message["id"]: message["text"] for message in found} | back
        before = str(page.position)
        if not page.more:
            break
    on: View = {}
    after = None
    while True:
        page = await made.after(ROOM, after, 3, "")
        found = (json.decode(message.payload) for message in page.messages)
        on |= {message["id"]: message["text"] for message in found}
        after = str(page.position)
        if not page.more:
            return back, on


@st.composite
def logs(draw: st.DrawFn) -> RevisedLog:
    log = RevisedLog()
    for kind in draw(st.lists(st.sampled_from("mmmmodebf"), min_size=40, max_size=80)):
        messages = [n for n, one in enumerate(log.entries) if not isinstance(one.record, Revision)]
        if kind == "m":
            log.say(draw(st.sampled_from([AUTHOR, BOB])))
        elif kind == "o":
            log.say(room=OTHER)
        elif not messages:
            pass
        elif kind == "f":
            # Forged. Members are not told, as far as memory reaches.
            of = draw(st.sampled_from(messages[-3:]))
            log.revise(of, draw(st.sampled_from(["", "forged"])), STRANGER)
        else:
            of = draw(st.sampled_from(messages))
            author = log.entries[of].record.author
            text = f"edited {len(log.entries)}" if kind == "e" else ""
            log.revise(of, text, author if kind != "b" else STRANGER, moderator=kind == "b")
    return log


@settings(max_examples=25)
@given(logs(), st.integers(0, 80), st.integers(0, 40), st.integers(3, 40))
def test_every_answer_says_what_the_log_says(
    log: RevisedLog, start: int, ago: int, history: int
) -> None:
    """`start`: where a replica began to read; `ago`: when somebody left the other one."""

    async def play() -> None:
        end = len(log.entries)
        left_at = max(end - ago, 0)
        old = log.starts(end, history=history)
        new = log.starts(min(start, end), history=history)
        # One who was there all the time.
        live = hub(log, window=WINDOW, scan=1000, history=history)
        stays, goes = Listening(), Listening()
        await live.join(stays, ROOM, None)
        await live.join(goes, ROOM, None)
        deliver(live, log.entries[:left_at])
        live.leave(goes, ROOM)
        deliver(live, log.entries[left_at:])
        assert hear({}, stays.frames) == log.view
        for made in (live, old, new):
            assert await paged(made) == (log.view, log.view)
            # One who comes back.
            view = hear({}, goes.frames)
            again = Listening()
            await made.join(again, ROOM, at(left_at - 1))
            (joined,) = again.of("joined")
            seen = hear(view, [joined])
            if joined["recovered"]:
                # What is forged is found out where the message is read.
                doubtful = set() if made is live else log.forged
                assert {one: seen[one] for one in seen.keys() - doubtful} == {
                    one: log.view[one] for one in log.view.keys() - doubtful
                }
            else:
                assert list(seen.items()) == list(log.view.items())[len(log.view) - len(seen) :]
            # A resume within the window and the room's history is a promise.
            if ago < min(history, WINDOW):
                assert joined["recovered"]

    asyncio.run(play())


# As people see it.

ON = {"CHAT_REVISIONS": "true"}


async def test_who_comes_back_after_many_edits_makes_the_log_be_read_once_for_all_of_them() -> None:
    log = RevisedLog()
    for _ in range(WINDOW):
        log.say()
    for of in range(10):
        log.revise(of, f"edit of {of}")
    for _ in range(3 * WINDOW):
        log.say(room="other")
    made = log.starts(len(log.entries) - 1)
    member = Listening()
    await made.join(member, ROOM, at(WINDOW - 1))
    (joined,) = member.of("joined")
    edited = joined["edited"]
    assert isinstance(edited, list)
    assert {one["text"] for one in edited} == {f"edit of {of}" for of in range(10)}
    assert joined["recovered"]
    # The record at the position, and five pieces of the log.
    assert len(log.reads) == 6


async def test_a_record_near_the_end_of_the_log_is_read_alone_and_not_again_as_the_log_grows() -> (
    None
):
    log = RevisedLog()
    for _ in range(2 * WINDOW + 5):
        log.say()
    made = log.starts(len(log.entries) - 1)
    reads = []
    # The last chunk has no more than its beginning. Those before it are read whole.
    for offset in (2 * WINDOW + 2, 2 * WINDOW + 2, 2 * WINDOW - 1, WINDOW):
        log.reads.clear()
        position = Position(EPOCH, PARTITION, offset, 0)
        assert await made._history.find(ROOM, position, "") is not None
        reads.append(log.reads.copy())
        log.say(room=OTHER)
        deliver(made, log.entries[-1:])
    one = 2 * WINDOW + 2
    assert reads == [[(one - 1, one)], [], [(WINDOW - 1, 2 * WINDOW - 1)], []]


async def delete(client: ChatClient, of: str, cid: str = "d") -> Frame:
    await client.say(type="delete", room=ROOM, id=of, cid=cid)
    return await client.hear("ack", "error", cid=cid)


async def edit(client: ChatClient, of: str, text: str, cid: str = "e") -> Frame:
    await client.say(type="edit", room=ROOM, id=of, text=text, cid=cid)
    return await client.hear("ack", "error", cid=cid)


async def test_messages_are_deleted_and_edited_by_their_authors(replica: Replica) -> None:
    server = await replica(ON)
    async with ChatClient(server.port) as ada, ChatClient(server.port, "bob") as bob:
        assert ada.welcome["revisions"] is True
        await bob.join(ROOM)
        await ada.join(ROOM)
        of = (await ada.send(ROOM, "secrte"))["id"]
        assert await edit(ada, of, "se\u200bcret\x00") == {"type": "ack", "cid": "e", "id": of}
        edited = await bob.hear("edited")
        assert edited == {
            "type": "edited",
            "room": ROOM,
            "id": of,
            "text": "se\u200bcret",
            "edited": int(edited["position"].rsplit(":")[-1]),
            "position": edited["position"],
        }
        (message,) = (await bob.join(ROOM))["messages"]
        assert (message["text"], message["edited"]) == (edited["text"], edited["edited"])
        assert (await edit(ada, of, "", "f"))["code"] == "bad_text"
        for cid in "12":
            assert await delete(ada, of, cid) == {"type": "ack", "cid": cid, "id": of}
        deleted = await bob.hear("deleted")
        assert deleted == {
            "type": "deleted",
            "room": ROOM,
            "id": of,
            "position": deleted["position"],
        }
        # It happened once.
        await ada.send(ROOM, "hello")
        await bob.hear("message", text="hello")
        assert not [one for one in bob.inbox if one["type"] == "deleted"]
        # The same cid is still known.
        assert (await ada.send(ROOM, "secrte"))["id"] == of
        assert "edited" not in json.encode((await bob.join(ROOM))["messages"]).decode()


async def test_each_revision_costs_what_a_message_costs(replica: Replica) -> None:
    server = await replica(ON, CHAT_RATE="1", CHAT_BURST="4")
    async with ChatClient(server.port) as ada:
        await ada.join(ROOM)
        of = (await ada.send(ROOM, "hello"))["id"]
        codes = [(await edit(ada, of, f"hello {n}", str(n))).get("code") for n in range(4)]
        assert codes[-1] == ErrorCode.RATE_LIMITED


async def test_revisions_are_off_unless_all_replicas_know_them(replica: Replica) -> None:
    server = await replica()
    async with ChatClient(server.port) as ada:
        assert "revisions" not in ada.welcome
        await ada.join(ROOM)
        of = (await ada.send(ROOM, "hello"))["id"]
        assert (await delete(ada, of))["code"] == ErrorCode.BAD_FRAME


async def test_what_was_deleted_stays_gone_on_all_replicas_and_after_their_restart(
    replica: Replica, kafka: dict[str, str]
) -> None:
    environment = kafka | ON | {"CHAT_WINDOW": "5", "CHAT_RECENT": "5"}
    one, other = await replica(environment), await replica(environment)
    async with ChatClient(one.port) as ada, ChatClient(other.port, "bob") as bob:
        start = (await bob.join(ROOM))["position"]
        await ada.join(ROOM)
        ids = [(await ada.send(ROOM, f"text {n}"))["id"] for n in range(20)]
        away = ids[10]
        # One that only the log has, one on the edge, and one that is in memory.
        gone = [ids[0], ids[9], ids[19]]
        for of in gone:
            assert (await delete(ada, of, of[-9:]))["type"] == "ack"
        assert (await edit(ada, ids[3], "another text"))["type"] == "ack"
        assert [(await bob.hear("deleted"))["id"] for _ in gone] == gone
        await bob.hear("edited", id=ids[3])
    texts = [f"text {n}" for n in range(20) if n not in (0, 9, 19)]
    texts[texts.index("text 3")] = "another text"
    third = await replica(environment)
    await asyncio.gather(one.drain(), other.drain())
    for server in (third, await replica(environment)):
        async with ChatClient(server.port) as ada:
            joined = await ada.join(ROOM, away)
            assert joined["recovered"]
            assert [message["text"] for message in joined["messages"]] == texts[-8:]
            assert sorted(joined["deleted"]) == sorted(gone[:2])
            assert [message["text"] for message in joined["edited"]] == ["another text"]
            await ada.say(type="history", room=ROOM, before=away)
            page = await ada.hear("history")
            assert [message["text"] for message in page["messages"]] == texts[:-9]
        for query in ("", "?after=oldest", f"?after={start}"):
            answer = await get(server.port, f"/api/rooms/{ROOM}/messages{query}")
            found = [message["text"] for message in json.decode(answer.body)["messages"]]
            assert found == texts[-len(found) :]
            assert len(found) == len(texts)
