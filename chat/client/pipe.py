"""A room in a pipe: sends each line of standard input, and prints each received message as a line
of tab-separated fields: time, room, name, text.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from datetime import UTC, datetime

from chat.client.connection import Chat
from chat.client.room import Gap, Room
from chat.protocol import ErrorCode, Message, RefusedError

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t"})


class Pipe:
    """Input is sent to the first room. The pipe ends when the input has ended and the log has all
    of it. With `follow`, it continues until it is stopped.
    """

    def __init__(self, chat: Chat, *, follow: bool) -> None:
        self._chat = chat
        self._follow = follow

    async def run(self, names: list[str]) -> None:
        rooms = [self._chat.room(name) for name in names]
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(self._print(room)) for room in rooms]
            await asyncio.gather(*(room.joined() for room in rooms))
            await self._say(rooms[0])
            if not self._follow:
                for task in reading:
                    task.cancel()

    async def _say(self, room: Room) -> None:
        async for text in _lines():
            try:
                await room.send(text)
            except RefusedError as refused:
                if refused.code is ErrorCode.NAME_TAKEN:
                    raise
                print(f"chat.client: {refused}", file=sys.stderr)

    async def _print(self, room: Room) -> None:
        async for event in room:
            match event:
                case Message(name, _, user, text, ts):
                    print(_time(ts), name, _line(user), _line(text), sep="\t", flush=True)
                case Gap(name):
                    print(f"chat.client: messages of {name} may be missing", file=sys.stderr)


async def _lines() -> AsyncIterator[str]:
    """The non-empty lines of standard input."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(1)

    def read() -> None:
        with contextlib.suppress(CancelledError):
            while chunk := os.read(0, 65536):
                asyncio.run_coroutine_threadsafe(chunks.put(chunk), loop).result()
            asyncio.run_coroutine_threadsafe(chunks.put(b""), loop).result()

    # Event loops cannot wait for files, so a thread reads. Nothing waits for the thread, because
    # its read may block forever.
    threading.Thread(target=read, daemon=True).start()
    rest = b""
    while chunk := await chunks.get():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in filter(None, lines):
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _line(text: str) -> str:
    """Escape everything in `text` that could end a field or control a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text.translate(_ESCAPES))
