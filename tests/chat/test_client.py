"""The client library keeps its promises while the network does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from conftest import ROOT, Process, Replica
from websockets import ConnectionClosed
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from chat.client import (
    Away,
    Back,
    Deleted,
    DisconnectedError,
    Edited,
    ErrorCode,
    Gap,
    IsTyping,
    Message,
    Presence,
    RefusedError,
    Room,
    connect,
)
from chat.client import connection as library
from chat.client import room as client_room
from chat.server import Server

PATIENCE = 20.0

Start = Callable[..., Process]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses."""
    monkeypatch.setattr(library, "RETRY_SECONDS", (0.02, 0.2))
    monkeypatch.setattr(library, "AGAIN_SECONDS", (0.02, 0.1))


@pytest.fixture
async def server(replica: Replica) -> Server:
    return await replica()


def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}/ws"


async def texts(room: Room, count: int) -> list[str]:
    """The texts of the room's next messages; `GAP` stands for a gap."""
    heard: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while len(heard) < count:
            match await anext(room):
                case Message() as message:
                    heard.append(message.text)
                case Gap():
                    heard.append("GAP")
    return heard


class Network:
    """The network between a client and the replica. It fails on request."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self.connections = 0
        # From now on, data from the replica is dropped.
        self.deaf = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Network:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection, as if a cable was pulled and the system gave up."""
        for writer in self._writers:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, back}
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer, answers=True))
        for one in (writer, back):
            one.close()
            self._writers.discard(one)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool = False
    ) -> None:
        while data := await reader.read(65536):
            if not (answers and self.deaf):
                writer.write(data)
                await writer.drain()
        writer.close()


async def test_what_is_sent_comes_back_from_the_log_to_everyone(server: Server) -> None:
    async with connect(url(server.port), " ada ") as ada, connect(url(server.port), "bob") as bob:
        assert ada.user == "ada"
        here, there = ada.room("lobby"), bob.room("lobby")
        await here.joined()
        await there.joined()
        first = await ada.send("lobby", "hello")
        second = await there.send("hello yourself")
        for room in (here, there):
            messages = [await anext(room), await anext(room)]
            assert [(one.id, one.user, one.text) for one in messages] == [
                (first, "ada", "hello"),
                (second, "bob", "hello yourself"),
            ]


async def test_only_what_is_new_comes_unless_the_last_is_asked_for(server: Server) -> None:
    async with connect(url(server.port), "ada") as ada:
        ids = [await ada.send("lobby", f"text {number}") for number in range(3)]
    async with connect(url(server.port), "bob") as bob, connect(url(server.port), "eve") as eve:
        new, recent = bob.room("lobby"), eve.room("lobby", recent=True)
        await new.joined()
        await bob.send("lobby", "new")
        assert await texts(new, 1) == ["new"]
        assert await texts(recent, 4) == ["text 0", "text 1", "text 2", "new"]
    async with connect(url(server.port), "bob") as bob:
        assert await texts(bob.room("lobby", since=ids[1]), 2) == ["text 2", "new"]


async def test_several_rooms_on_one_connection_are_read_on_their_own(server: Server) -> None:
    async with connect(url(server.port), "ada") as ada:
        rooms = [ada.room(name) for name in ("one", "two", "three")]
        for room in rooms:
            await room.joined()
        for room in reversed(rooms):
            await room.send(f"in {room.name}")
        assert [await texts(room, 1) for room in rooms] == [["in one"], ["in two"], ["in three"]]
        rooms[0].leave()
        assert [event async for event in rooms[0]] == []
        assert ada.room("one") is not rooms[0]


async def test_after_a_break_it_goes_on_where_it_was(server: Server) -> None:
    async with (
        Network(server.port) as network,
        connect(url(network.port), "ada") as ada,
        connect(url(server.port), "bob") as bob,
    ):
        room = ada.room("lobby")
        await room.joined()
        for number in range(30):
            if number % 10 == 5:
                network.cut()
            await bob.send("lobby", f"text {number}")
        assert await texts(room, 30) == [f"text {number}" for number in range(30)]
        assert network.connections > 1


async def test_what_was_not_acknowledged_is_sent_again_and_shown_once(server: Server) -> None:
    async with (
        Network(server.port) as network,
        connect(url(network.port), "ada") as ada,
        connect(url(server.port), "bob") as bob,
    ):
        room, here = bob.room("lobby"), ada.room("lobby")
        await room.joined()
        await here.joined()
        network.deaf = True
        sending = asyncio.create_task(ada.send("lobby", "once"))
        assert await texts(room, 1) == ["once"]
        assert not sending.done()
        network.deaf = False
        network.cut()
        identity = await sending
        await ada.send("lobby", "end")
        assert await texts(room, 1) == ["end"]
        assert (await anext(here)).id == identity
        assert await texts(here, 1) == ["end"]


async def test_lost_history_is_a_gap_and_nothing_comes_twice(replica: Replica) -> None:
    server = await replica(CHAT_WINDOW="10", CHAT_HISTORY="10", CHAT_RECENT="5")
    async with (
        Network(server.port) as network,
        connect(url(network.port), "ada") as ada,
        connect(url(server.port), "bob") as bob,
    ):
        room = ada.room("lobby")
        await room.joined()
        await bob.send("lobby", "before")
        assert await texts(room, 1) == ["before"]
        network.deaf = True
        for number in range(20):
            await bob.send("lobby", f"text {number}")
        network.deaf = False
        network.cut()
        assert await texts(room, 6) == ["GAP", *(f"text {number}" for number in range(15, 20))]
        await bob.send("lobby", "after")
        assert await texts(room, 1) == ["after"]
        assert room.position is not None
    # A position that this log does not know.
    async with connect(url(server.port), "ada") as ada:
        room = ada.room("lobby", since="elsewhere:0:7")
        assert (await texts(room, 6))[0] == "GAP"


async def test_a_room_that_is_read_slowly_loses_nothing_and_holds_up_nobody(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_room, "BUFFERED", 10)
    async with connect(url(server.port), "ada") as ada, connect(url(server.port), "bob") as bob:
        slow, other = ada.room("slow"), ada.room("other")
        await slow.joined()
        await other.joined()
        for number in range(100):
            await bob.send("slow", f"text {number}")
        await bob.send("other", "in time")
        assert await texts(other, 1) == ["in time"]
        assert len(slow._buffer) == 10
        heard = await texts(slow, 50)
        for number in range(100, 150):
            await bob.send("slow", f"text {number}")
        assert heard + await texts(slow, 100) == [f"text {number}" for number in range(150)]


async def test_a_wait_that_is_cancelled_loses_no_message(server: Server) -> None:
    async with connect(url(server.port), "ada") as ada:
        room = ada.room("lobby")
        await room.joined()
        for number in range(5):
            waiting = asyncio.create_task(anext(room))
            await asyncio.sleep(0)
            waiting.cancel()
            await ada.send("lobby", str(number))
            assert await texts(room, 1) == [str(number)]
        # A loop may be left, and another one continues.
        await ada.send("lobby", "a")
        await ada.send("lobby", "b")
        async for event in room:
            assert event.text == "a"
            break
        assert await texts(room, 1) == ["b"]


async def test_revisions_are_told_also_of_the_time_away(replica: Replica) -> None:
    server = await replica({"CHAT_REVISIONS": "true"})
    async with (
        Network(server.port) as network,
        connect(url(network.port), "ada") as ada,
        connect(url(server.port), "bob") as bob,
    ):
        there, here = ada.room("lobby", events=True), bob.room("lobby")
        await asyncio.gather(there.joined(), here.joined())
        kept, gone = await here.send("helo"), await here.send("secret")

        async def revised() -> Deleted | Edited:
            async with asyncio.timeout(PATIENCE):
                while not isinstance(event := await anext(there), Deleted | Edited):
                    pass
            return event

        await here.edit(kept, "hello")
        edited = await revised()
        assert isinstance(edited, Edited)
        assert edited[:3] == ("lobby", kept, "hello")
        assert edited.edited > 0
        network.cut()
        await here.edit(kept, "hello!")
        await here.delete(gone)
        assert {(await revised())[:3], (await revised())[:3]} == {
            ("lobby", kept, "hello!"),
            Deleted("lobby", gone),
        }
        # Whoever asks for messages alone gets them alone.
        last = await here.send("the end")
        told = [await anext(here) for _ in range(3)]
        assert [one.text for one in told if isinstance(one, Message)] == [
            "helo",
            "secret",
            "the end",
        ]
        assert here.position == last
        for refused in (there.delete(kept), there.edit(kept, "mine")):
            with pytest.raises(RefusedError) as why:
                await refused
            assert why.value.code is ErrorCode.NO_MESSAGE


@pytest.mark.parametrize(
    ("text", "code"),
    [("", ErrorCode.BAD_TEXT), ("\a", ErrorCode.BAD_TEXT), ("x" * 2001, ErrorCode.TOO_LONG)],
)
async def test_what_cannot_be_sent_is_refused_to_its_sender(
    server: Server, text: str, code: ErrorCode
) -> None:
    async with connect(url(server.port), "ada") as ada:
        with pytest.raises(RefusedError) as refused:
            await ada.send("lobby", text)
        assert refused.value.code is code
        await ada.send("lobby", "this can")


async def test_too_fast_is_sent_again_until_it_is_taken(replica: Replica) -> None:
    server = await replica(CHAT_RATE="50", CHAT_BURST="5")
    async with connect(url(server.port), "ada") as ada:
        ids = await asyncio.gather(*(ada.send("lobby", str(number)) for number in range(30)))
        assert len(set(ids)) == 30


async def test_a_name_that_is_refused_is_said_where_the_connection_is_asked_for(
    server: Server,
) -> None:
    with pytest.raises(RefusedError) as refused:
        async with connect(url(server.port), "\u202eadmin"):
            pass
    assert refused.value.code is ErrorCode.BAD_USER
    with pytest.raises(RefusedError, match="A room is named by"):
        async with connect(url(server.port), "ada") as ada:
            ada.room("no/room")


async def test_a_name_that_somebody_else_has_ends_the_room_and_not_the_connection(
    server: Server,
) -> None:
    key = "0123456789abcdef"
    async with (
        connect(url(server.port), "ada", key=key) as ada,
        connect(url(server.port), "ada", key=key) as tab,
        connect(url(server.port), "ada") as other,
    ):
        await ada.room("lobby").joined()
        await tab.room("lobby").joined()
        taken = other.room("lobby")
        for ending in (taken.joined(), anext(taken), other.send("lobby", "me!")):
            with pytest.raises(RefusedError) as refused:
                await ending
            assert refused.value.code is ErrorCode.NAME_TAKEN
        await other.send("elsewhere", "hello")


async def test_who_is_there_and_who_types_is_told(server: Server) -> None:
    async with connect(url(server.port), "ada") as ada, Network(server.port) as network:
        events = ada.room("lobby", events=True)
        await events.joined()
        async with connect(url(network.port), "bob") as bob, asyncio.timeout(PATIENCE):
            await bob.room("lobby").joined()
            while events.users != {"ada", "bob"}:
                assert isinstance(await anext(events), Presence)
            assert events.count == 2
            bob.room("lobby").typing()
            while not isinstance(typing := await anext(events), IsTyping):
                pass
            assert typing.user == "bob"
            # The name is kept across connections, even while the server still has the old one.
            network.cut()
            await bob.send("lobby", "still me")
        async with asyncio.timeout(PATIENCE):
            while events.users != {"ada"}:
                await anext(events)


async def test_what_was_said_before_is_read_from_the_log_across_a_break(replica: Replica) -> None:
    server = await replica(CHAT_PAGE="10", CHAT_RECENT="5")
    async with Network(server.port) as network, connect(url(network.port), "ada") as ada:
        ids = [await ada.send("lobby", f"text {number}") for number in range(30)]
        room = ada.room("lobby")
        network.deaf = True
        asking = asyncio.create_task(room.earlier(ids[-1]))
        await asyncio.sleep(0)
        network.deaf = False
        network.cut()
        said: list[str] = []
        earlier = await asking
        while True:
            said[:0] = [message.text for message in earlier.messages]
            assert len(earlier.messages) <= 10
            if not earlier.more:
                break
            earlier = await room.earlier(earlier.position, limit=7)
        assert said == [f"text {number}" for number in range(29)]
        with pytest.raises(RefusedError):
            await room.earlier("no position")
        await room.send("still here")


async def test_an_address_that_is_none_or_does_not_answer_is_said() -> None:
    with pytest.raises(ValueError, match="give ws://HOST/ws"):
        async with connect("chat.example.org", "ada"):
            pass
    with pytest.raises(DisconnectedError, match=r"ws://127\.0\.0\.1:1/ws: .*Connect"):
        async with connect("http://127.0.0.1:1", "ada", open_seconds=0.2):
            pass


async def test_leaving_ends_what_waits(server: Server) -> None:
    async with connect(url(server.port), "ada") as ada:
        waiting = asyncio.create_task(anext(ada.room("lobby"), None))
        await ada.room("lobby").joined()
    assert await waiting is None
    with pytest.raises(DisconnectedError):
        await ada.send("lobby", "too late")


# A server whose answers the test scripts.

Script = Callable[[ServerConnection], Awaitable[None]]
Speak = Callable[[Script], Awaitable[int]]


@pytest.fixture
async def speak() -> AsyncIterator[Speak]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(script: Script) -> int:
            server = await stack.enter_async_context(serve(script, "127.0.0.1", 0))
            port: int = server.sockets[0].getsockname()[1]
            return port

        yield start


LIMITS = {
    "frame_bytes": 32768,
    "text_bytes": 8192,
    "text_graphemes": 2000,
    "rooms": 50,
    "rate": 20,
    "burst": 100,
    "history": 100,
}


async def welcome(socket: ServerConnection, **other: Any) -> None:
    hello = json.loads(await socket.recv())
    frame = {"type": "welcome", "protocol": 1, "user": hello["user"], "replica": "r"}
    await socket.send(json.dumps(frame | {"limits": LIMITS} | other))


@pytest.mark.parametrize("way", ["bye", "reason"])
async def test_a_restart_is_obeyed_to_the_second(speak: Speak, way: str) -> None:
    came: list[float] = []

    async def restart(socket: ServerConnection) -> None:
        came.append(asyncio.get_running_loop().time())
        await welcome(socket)
        if len(came) == 1:
            bye = {"type": "bye", "reason": "restart", "retry_after": 0.7}
            if way == "bye":
                await socket.send(json.dumps(bye))
            await socket.close(1012, "restart; retry_after=0.7" if way == "reason" else "restart")
        await socket.wait_closed()

    async with connect(url(await speak(restart)), "ada") as ada:
        events = ada.room("lobby", events=True)
        away = await anext(events)
        assert isinstance(away, Away)
        assert away.retry_seconds == 0.7
        assert await anext(events) == Back("r")
    assert came[1] - came[0] > 0.69


async def test_a_hello_that_comes_too_fast_is_said_again(speak: Speak) -> None:
    async def crowded(socket: ServerConnection) -> None:
        await socket.recv()
        error = {"type": "error", "code": "rate_limited", "message": "Too many of you."}
        await socket.send(json.dumps(error))
        await welcome(socket)

    async with connect(url(await speak(crowded)), "ada") as ada:
        assert ada.replica == "r"


async def test_what_is_new_in_the_protocol_is_ignored(speak: Speak) -> None:
    async def newer(socket: ServerConnection) -> None:
        await welcome(socket, weather="fine")
        join = json.loads(await socket.recv())
        joined = {"type": "joined", "room": join["room"], "position": "0", "recovered": False}
        await socket.send(json.dumps({"type": "weather", "text": 7}))
        await socket.send(json.dumps(joined | {"messages": [], "mood": "good"}))
        said = {"type": "message", "room": "lobby", "id": "1", "user": "b", "text": "hi"}
        await socket.send(json.dumps(said | {"ts": 0, "cid": "c", "colour": "red"}))
        await socket.wait_closed()

    async with connect(url(await speak(newer)), "ada") as ada:
        assert await texts(ada.room("lobby"), 1) == ["hi"]


async def test_a_code_of_a_later_release_is_an_error_of_what_was_asked_for_and_no_more(
    speak: Speak,
) -> None:
    async def newer(socket: ServerConnection) -> None:
        await welcome(socket)
        joined = {"type": "joined", "room": "lobby", "position": "0", "recovered": False}
        await socket.recv()
        await socket.send(json.dumps(joined | {"messages": []}))
        said = json.loads(await socket.recv())
        refused = {"type": "error", "code": "too_loud", "message": "Speak low."}
        await socket.send(json.dumps(refused | {"cid": said["cid"]}))
        said = json.loads(await socket.recv())
        ack = {"type": "ack", "room": "lobby", "cid": said["cid"], "id": "1"}
        await socket.send(json.dumps(ack))
        await socket.wait_closed()

    async with connect(url(await speak(newer)), "ada") as ada:
        ada.room("lobby")
        with pytest.raises(RefusedError, match="Speak low") as refused:
            await ada.send("lobby", "HI")
        assert refused.value.code == "too_loud"
        assert refused.value.code not in list(ErrorCode)
        assert await ada.send("lobby", "hi") == "1"


async def test_after_a_gap_nothing_comes_twice(speak: Speak) -> None:
    connections = iter([["1", "2"], ["2", "3"]])

    async def forgetful(socket: ServerConnection) -> None:
        ids = next(connections)
        await welcome(socket)
        await socket.recv()
        said = [
            {"type": "message", "room": "lobby", "id": one, "user": "b", "text": one, "ts": 0}
            | {"cid": one}
            for one in ids
        ]
        joined = {"type": "joined", "room": "lobby", "position": ids[-1], "recovered": False}
        await socket.send(json.dumps(joined | {"messages": said}))
        if "1" in ids:
            await socket.close(1012, "again; retry_after=0.01")
        await socket.wait_closed()

    async with connect(url(await speak(forgetful)), "ada") as ada:
        assert await texts(ada.room("lobby", recent=True), 4) == ["1", "2", "GAP", "3"]


async def test_silence_is_a_lost_connection_and_an_answer_to_a_ping_is_none(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules of docs/protocol.md, "Timers", with shorter times."""
    monkeypatch.setattr(library, "QUIET_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(library, "ANSWER_SECONDS", 0.2)
    pings: list[int] = []

    async def quiet(socket: ServerConnection) -> None:
        await welcome(socket)
        pings.append(0)
        with contextlib.suppress(ConnectionClosed):
            while True:
                if json.loads(await socket.recv())["type"] != "ping":
                    continue
                pings[-1] += 1
                # A server of an earlier release does not know `ping`.
                answer = {"type": "error", "code": "bad_frame", "message": "Invalid value 'ping'."}
                if pings[-1] == 2:
                    answer = {"type": "pong"}
                if pings[-1] < 4:
                    await socket.send(json.dumps(answer))

    async with connect(url(await speak(quiet)), "ada") as ada:
        events = ada.room("lobby", events=True)
        async with asyncio.timeout(PATIENCE):
            assert isinstance(away := await anext(events), Away)
            assert await anext(events) == Back("r")
    assert away.reason == "no answer"
    assert pings[0] == 4


async def test_what_is_refused_for_now_is_asked_for_once_more_and_nothing_else_is(
    speak: Speak,
) -> None:
    """In an earlier release, each of five refused rooms repeated the requests of all five: 5, 25,
    125 frames, and so on.
    """
    rooms = [f"room-{number}" for number in range(5)]
    asked: list[str] = []
    done = asyncio.Event()

    async def busy(socket: ServerConnection) -> None:
        await welcome(socket)
        # Each request is refused once. The last one is refused again, after all have asked twice.
        while len(asked) <= 10:
            room = json.loads(await socket.recv())["room"]
            asked.append(room)
            if len(asked) <= 5 or len(asked) == 10:
                name = rooms[-1] if len(asked) == 10 else room
                refusal = {"code": "unavailable", "message": "later", "room": name}
                await socket.send(json.dumps({"type": "error"} | refusal))
        done.set()
        await socket.wait_closed()

    async with connect(url(await speak(busy)), "ada") as ada:
        for room in rooms:
            ada.room(room)
        await asyncio.wait_for(done.wait(), PATIENCE)
    assert sorted(asked[5:10]) == rooms
    assert asked[10:] == rooms[-1:]


@pytest.mark.parametrize("learns", [True, False])
async def test_a_replica_may_learn_late_who_was_let_into_a_room_but_not_too_late(
    speak: Speak, monkeypatch: pytest.MonkeyPatch, learns: bool
) -> None:
    monkeypatch.setattr(library, "AGAIN_SECONDS", (0.01, 0.02))
    if not learns:
        monkeypatch.setattr(library, "MEMBER_SECONDS", 0.1)
    asked: list[str] = []

    async def late(socket: ServerConnection) -> None:
        await welcome(socket)
        accept = json.loads(await socket.recv())
        ack = {"type": "ack", "room": "private", "cid": accept["cid"], "id": "private"}
        await socket.send(json.dumps(ack))
        with contextlib.suppress(ConnectionClosed):
            while True:
                asked.append(json.loads(await socket.recv())["type"])
                answer = {"type": "error", "code": "bad_room", "message": "no", "room": "private"}
                if learns and len(asked) == 4:
                    answer = {"type": "joined", "room": "private", "position": "0"}
                    answer |= {"recovered": False, "messages": []}
                await socket.send(json.dumps(answer))

    async with connect(url(await speak(late)), "ada") as ada, asyncio.timeout(PATIENCE):
        room = ada.room(await ada.accept("token"))
        if learns:
            await room.joined()
            assert asked == ["join"] * 4
        else:
            with pytest.raises(RefusedError, match="no"):
                await room.joined()


@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"message","room":"\xff"}',
        b"[" * 5000,
        b"{}",
        b'{"type":"joined","room":"lobby","position":"1","recovered":true,"messages":[{}],'
        b'"more":false}',
    ],
)
async def test_a_server_that_breaks_the_protocol_ends_the_connection_with_words(
    speak: Speak, frame: bytes
) -> None:
    async def babble(socket: ServerConnection) -> None:
        await welcome(socket)
        assert json.loads(await socket.recv())["type"] == "join"
        await socket.send(frame, text=True)
        await socket.wait_closed()

    async with connect(url(await speak(babble)), "ada") as ada:
        room = ada.room("lobby", recent=True)
        with pytest.raises(DisconnectedError, match="does not keep to the protocol"):
            await asyncio.wait_for(anext(room), PATIENCE)


async def test_who_has_had_no_news_asks_rarely(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "QUIET_SECONDS", (0.01, 0.3))
    monkeypatch.setattr(library, "ACTIVE_SECONDS", 0.0)
    waited: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def quiet(socket: ServerConnection) -> None:
        await welcome(socket)
        began = time.monotonic()
        assert json.loads(await socket.recv()) == {"type": "ping"}
        waited.set_result(time.monotonic() - began)
        await socket.wait_closed()

    async with connect(url(await speak(quiet)), "ada"):
        assert await asyncio.wait_for(waited, PATIENCE) > 0.25


async def test_who_only_listens_asks_within_seconds_whether_anybody_is_there(speak: Speak) -> None:
    """The kernel asks, because a frame from each client would cost the server more."""

    async def quiet(socket: ServerConnection) -> None:
        await welcome(socket)
        await socket.wait_closed()

    port = await speak(quiet)
    async with connect(url(port), "ada"):
        command = ["ss", "--no-header", "-tno", f"dport = :{port}"]
        listing = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        shown = (await listing.communicate())[0].decode()
    ((seconds, unit),) = re.findall(r"timer:\(keepalive,([0-9.]+)(sec|ms)", shown)
    assert unit == "ms" or float(seconds) <= 5, shown


async def test_a_welcome_that_does_not_come_is_not_waited_for(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "OPEN_SECONDS", 0.2)
    came = 0

    async def speechless_once(socket: ServerConnection) -> None:
        nonlocal came
        came += 1
        if came > 1:
            await welcome(socket)
        await socket.wait_closed()

    async with connect(url(await speak(speechless_once)), "ada") as ada:
        assert ada.replica == "r"


async def test_the_pauses_grow_until_a_connection_has_lasted(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "RETRY_SECONDS", (0.001, 10))
    monkeypatch.setattr(library.random, "uniform", lambda _least, most: most)

    async def brief(socket: ServerConnection) -> None:
        await welcome(socket)
        await socket.close(1013, "too slow")

    async with connect(url(await speak(brief)), "ada") as ada:
        events = ada.room("lobby", events=True)

        async def pauses(count: int) -> list[float]:
            heard = [await anext(events) for _ in range(2 * count)]
            return [event.retry_seconds for event in heard if isinstance(event, Away)]

        assert await pauses(4) == [0.001, 0.002, 0.004, 0.008]
        monkeypatch.setattr(library, "STABLE_SECONDS", 0.0)
        assert (await pauses(3))[1:] == [0.001, 0.001]


def test_its_times_are_the_documented_ones() -> None:
    document = (ROOT / "docs" / "protocol.md").read_text()
    names = ("open", "quiet", "active", "answer", "stable")
    pattern = rf"^\| ({'|'.join(names)}) \| ([0-9.]+)(?: to ([0-9.]+))? \|"
    rows = re.findall(pattern, document, re.MULTILINE)
    assert {name: getattr(library, f"{name.upper()}_SECONDS") for name in names} == {
        name: (float(least), float(most)) if most else float(least) for name, least, most in rows
    }


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 4001])
async def test_what_would_happen_again_ends_it(speak: Speak, code: int) -> None:
    async def reject(socket: ServerConnection) -> None:
        await welcome(socket)
        await socket.recv()
        await socket.close(code, "mend the client")

    async with connect(url(await speak(reject)), "ada") as ada:
        with pytest.raises(DisconnectedError, match=f"{code} mend the client"):
            await ada.send("lobby", "hello")
        with pytest.raises(DisconnectedError, match="mend the client"):
            await anext(ada.room("lobby"))


async def test_another_protocol_is_said_plainly(speak: Speak) -> None:
    port = await speak(lambda socket: welcome(socket, protocol=2))
    with pytest.raises(DisconnectedError, match="speaks protocol 2"):
        async with connect(url(port), "ada"):
            pass


BOT = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/bots.md").read_text(), re.M | re.S)[0]


def test_the_first_bot_has_ten_lines() -> None:
    assert len([line for line in BOT.splitlines() if line]) <= 10


async def test_the_documents_bot_answers_across_a_restart(process: Start) -> None:
    replica = process()
    program = BOT.replace("8080", str(replica.port))
    bot = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT)
    try:
        for _ in range(2):
            async with connect(url(replica.port), "ada") as ada:
                room = ada.room("lobby")
                await room.joined()
                # The bot joins when it is ready, and does not answer older messages.
                async with asyncio.timeout(PATIENCE):
                    await ada.send("lobby", "there?")
                    while "ada said: there?" not in await texts(room, 1):
                        await ada.send("lobby", "there?")
            replica.popen.terminate()
            replica.popen.wait()
            replica = process(CHAT_PORT=str(replica.port))
        assert bot.returncode is None
    finally:
        bot.kill()
        await bot.wait()


async def test_who_is_busy_is_asked_again_and_who_refuses_is_not() -> None:
    busy = [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS, None]
    # The proxy in front of the service has restarted and does not know the route yet.
    restarted = [HTTPStatus.NOT_FOUND, None]
    answers = iter(busy + restarted)

    def answer(socket: ServerConnection, _: Request) -> Response | None:
        status = next(answers, HTTPStatus.FORBIDDEN)
        return socket.respond(status, "not now\n") if status else None

    async with serve(welcome, "127.0.0.1", 0, process_request=answer) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(url(port), "ada") as ada:
            assert ada.replica == "r"
            with pytest.raises(DisconnectedError, match="the server answers 403 Forbidden"):
                await anext(ada.room("lobby"))
        assert next(answers, "all were given") == "all were given"


async def test_a_place_where_no_chat_ever_was_is_told_at_once() -> None:
    def answer(socket: ServerConnection, _: Request) -> Response:
        return socket.respond(HTTPStatus.NOT_FOUND, "nothing here\n")

    async with serve(welcome, "127.0.0.1", 0, process_request=answer) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DisconnectedError, match="the server answers 404 Not Found"):
            async with connect(url(port), "ada"):
                pass
