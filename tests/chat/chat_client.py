"""A small chat client for tests: it sends frames, and waits for the frames that a test asks for."""

from __future__ import annotations

import asyncio
import json
import uuid
from types import TracebackType
from typing import Any, Self

import websockets

PATIENCE = 20.0
Frame = dict[str, Any]


class ChatClient:
    """One connection. Received frames stay in `inbox`, in order, until a test asks for them."""

    def __init__(self, port: int, user: str | None = "ada", **options: Any) -> None:
        self._url = f"ws://127.0.0.1:{port}/ws"
        self._user = user
        # Receive everything at once, so that this client is never slow by accident.
        self._options = {"max_queue": None, "compression": None} | options
        self.inbox: list[Frame] = []
        self.welcome: Frame = {}

    async def __aenter__(self) -> Self:
        self.ws = await websockets.connect(self._url, **self._options)
        if self._user is not None:
            # The same name means the same person in these tests.
            key = uuid.uuid5(uuid.NAMESPACE_OID, self._user).hex
            await self.say(type="hello", user=self._user, key=key)
            self.welcome = await self.hear("welcome")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.ws.close()

    async def say(self, **frame: Any) -> None:
        await self.ws.send(json.dumps(frame))

    async def hear(self, *kinds: str, **fields: Any) -> Frame:
        """The first frame with one of these types and these fields that was not returned before."""

        def fits(frame: Frame) -> bool:
            return frame["type"] in kinds and fields.items() <= frame.items()

        for frame in self.inbox:
            if fits(frame):
                self.inbox.remove(frame)
                return frame
        try:
            async with asyncio.timeout(PATIENCE):
                while not fits(frame := json.loads(await self.ws.recv())):
                    self.inbox.append(frame)
        except TimeoutError:
            raise AssertionError(f"no {kinds} {fields} came, but {self.inbox[-10:]}") from None
        return frame

    async def join(self, room: str, since: str | None = None) -> Frame:
        await self.say(type="join", room=room, **({"since": since} if since is not None else {}))
        return await self.hear("joined", room=room)

    async def send(self, room: str, text: str, cid: str | None = None) -> Frame:
        """Send a message and return its `ack`."""
        cid = cid or text
        await self.say(type="send", room=room, text=text, cid=cid)
        return await self.hear("ack", cid=cid)

    async def refused(self, **frame: Any) -> Frame:
        """Send a frame that must be answered with an error, and return the error."""
        await self.say(**frame)
        return await self.hear("error")

    async def texts(self, room: str, count: int) -> list[str]:
        """The texts of the next messages in the room."""
        return [(await self.hear("message", room=room))["text"] for _ in range(count)]

    async def closed(self) -> tuple[int, str]:
        """Wait until the server has closed the connection, and return code and reason."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    self.inbox.append(json.loads(await self.ws.recv()))
            except websockets.ConnectionClosed as end:
                closed = end.rcvd
        assert closed is not None, "the connection broke without a close frame"
        return closed.code, closed.reason
