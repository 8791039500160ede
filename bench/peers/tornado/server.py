"""A chat as Tornado's documentation writes one: `write_message` to each member.

The room is the path. Compression is off and Nagle's algorithm too, and the event loop is uvloop's,
which is a little faster here than asyncio's.
"""

import asyncio
import sys
from collections import defaultdict

import uvloop
from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler

rooms: defaultdict[str, set["Member"]] = defaultdict(set)


class Member(WebSocketHandler):
    def open(self, room: str) -> None:
        self.set_nodelay(True)
        self.room = rooms[room]
        self.room.add(self)

    def on_message(self, message: str | bytes) -> None:
        for member in self.room:
            try:  # noqa: SIM105 - a context manager would cost more
                member.write_message(message)
            except WebSocketClosedError:
                pass

    def on_close(self) -> None:
        self.room.discard(self)


async def main() -> None:
    Application([(r"/(\w+)", Member)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
