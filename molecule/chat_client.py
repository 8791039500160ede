"""A chat client for tests: one WebSocket, spoken to step by step, that remembers all it was told.

It keeps the order of what came in and the position it has reached, so that a test can drop the
connection anywhere and ask a new one for the rest.
"""

import json
import time
import uuid
from collections import defaultdict
from contextlib import suppress
from http.cookies import SimpleCookie
from typing import Any, Self

from websockets.sync.client import connect

Frame = dict[str, Any]
# Connections without a cookie until one is on another replica: the edge alternates.
MOST_TRIES = 20


class Chat:
    """A connection after `hello`.

    `cookie` is what an earlier connection was given, sent again as a browser would.
    """

    def __init__(self, host: str, user: str, cookie: str | None = None) -> None:
        headers = {"Cookie": cookie} if cookie else {}
        self._socket = connect(f"ws://{host}/ws", additional_headers=headers, open_timeout=10)
        response = self._socket.response
        assert response is not None
        self.set_cookie = response.headers.get("Set-Cookie")
        self.messages: defaultdict[str, list[Frame]] = defaultdict(list)
        self.positions: dict[str, str] = {}
        # Whoever has the same name here is the same person.
        self._tell(type="hello", user=user, key=uuid.uuid5(uuid.NAMESPACE_OID, user).hex)
        self.replica: str = self._await("welcome")["replica"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def cookie(self) -> str:
        """The affinity cookie as a browser would send it back; empty when none was set."""
        morsels = SimpleCookie(self.set_cookie or "").values()
        return "; ".join(f"{morsel.key}={morsel.value}" for morsel in morsels)

    def join(self, room: str, since: str | None = None) -> Frame:
        self._tell(type="join", room=room, **({"since": since} if since else {}))
        joined = self._await("joined", room=room)
        self.messages[room] += joined["messages"]
        self.positions[room] = joined["position"]
        return joined

    def send(self, room: str, text: str, cid: str | None = None) -> str:
        """Send and return the id the log gave the message; raise on an error frame."""
        cid = cid or str(uuid.uuid4())
        self._tell(type="send", room=room, text=text, cid=cid)
        identity: str = self._await("ack", cid=cid)["id"]
        return identity

    def texts(self, room: str) -> list[str]:
        return [message["text"] for message in self.messages[room]]

    def read_until(self, room: str, text: str, within: float = 10) -> float:
        """Read until `text` was said in `room`; return the time it took to come, in seconds."""
        began = time.monotonic()
        while text not in self.texts(room):
            self._read(began + within)
        return time.monotonic() - began

    def poll(self, within: float) -> None:
        """Take in one frame, if one comes."""
        with suppress(TimeoutError):
            self._read(time.monotonic() + within)

    def _tell(self, **frame: str) -> None:
        self._socket.send(json.dumps(frame))

    def _await(self, kind: str, **fields: str) -> Frame:
        deadline = time.monotonic() + 10
        while True:
            frame = self._read(deadline)
            if frame["type"] == kind and all(
                frame[name] == value for name, value in fields.items()
            ):
                return frame
            if frame["type"] == "error":
                raise RuntimeError(f"waiting for {kind}, the chat said {frame}")

    def _read(self, deadline: float) -> Frame:
        frame: Frame = json.loads(self._socket.recv(timeout=max(0.0, deadline - time.monotonic())))
        if frame["type"] == "message":
            self.messages[frame["room"]].append(frame)
            self.positions[frame["room"]] = frame["id"]
        elif frame["type"] == "position":
            self.positions[frame["room"]] = frame["position"]
        return frame


def on_different_replicas(host: str, *users: str) -> list[Chat]:
    """A connection per user, no two on the same replica; without a cookie the edge alternates."""
    chats: list[Chat] = []
    for user in users:
        for _ in range(MOST_TRIES):
            chat = Chat(host, user)
            if chat.replica not in {other.replica for other in chats}:
                chats.append(chat)
                break
            chat.close()
        else:
            raise AssertionError(f"in {MOST_TRIES} connections {user} had no replica of its own")
    return chats
