"""Chat in a terminal: messages scroll above the input line. The status below shows who is present,
who is typing, pending messages and the state of the connection.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable
from datetime import datetime

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.patch_stdout import patch_stdout

from chat.client.connection import Chat
from chat.client.room import Away, Back, DisconnectedError, Event, Gap, Room
from chat.protocol import IsTyping, Message, RefusedError, harmless_text, harmless_user

# Readable on dark and light backgrounds.
COLOURS = ["ansicyan", "ansigreen", "ansimagenta", "ansiblue", "ansiyellow"]
# Minimum interval of typing notifications.
TYPING_SECONDS = 3.0
HELP = """\
/join ROOM   join a room, or switch to it
/leave       leave this room
/rooms       list your rooms
/who         list the people in this room
/earlier     show older messages
/quit        leave the chat; so does Ctrl-D
//TEXT       send a text that begins with a slash"""


class Terminal:
    """Several rooms, one of which receives the input. Each line shows its room."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._room: Room | None = None
        self._outgoing: asyncio.Queue[tuple[Room, str]] = asyncio.Queue()
        self._on_the_way = 0
        self._away: Away | None = None
        # Per room: who is typing, and until when.
        self._typing: dict[str, dict[str, float]] = {}
        self._told_typing = 0.0
        # Per room and name: the authors seen under that name, numbered.
        self._authors: dict[str, dict[str, dict[str, int]]] = {}
        # Per room: messages before this one have not been shown.
        self._oldest: dict[str, str] = {}
        self._commands: dict[str, Callable[[str], None]] = {
            "/join": self._join,
            "/leave": lambda _: self._leave(),
            "/rooms": lambda _: self._note("  ".join(self._readers) or "You are not in a room."),
            "/who": lambda _: self._note(self._who()),
            "/earlier": lambda _: self._look_back(),
            "/help": lambda _: self._note(HELP),
        }
        self._prompt: PromptSession[str] = PromptSession(
            message=lambda: f"{self._room.name if self._room else ''}> ",
            bottom_toolbar=self._status,
            refresh_interval=1.0,
            completer=WordCompleter([*self._commands, "/quit"], sentence=True),
            complete_while_typing=False,
        )
        self._prompt.default_buffer.on_text_changed += lambda _: self._tell_typing()

    async def run(self, names: list[str]) -> None:
        with patch_stdout(raw=True):
            self._note("/help lists the commands.")
            async with asyncio.TaskGroup() as self._tasks:
                sending = self._tasks.create_task(self._send())
                for name in names:
                    self._join(name)
                await self._read()
                for task in (sending, *self._readers.values()):
                    task.cancel()
        if self._on_the_way:
            print(f"{self._on_the_way} messages were not acknowledged.")

    # Input.

    async def _read(self) -> None:
        while True:
            try:
                line = (await self._prompt.prompt_async()).strip()
            except (EOFError, KeyboardInterrupt):
                return
            command, _, rest = line.partition(" ")
            if command == "/quit":
                return
            if command in self._commands:
                self._commands[command](rest.strip())
            elif line.startswith("/") and not line.startswith("//"):
                self._note(f"Unknown command {command}; /help lists the commands.")
            elif line and self._room is None:
                self._note("You are not in a room: /join one.")
            elif line and self._room is not None:
                self._on_the_way += 1
                text = line[1:] if line.startswith("//") else line
                self._outgoing.put_nowait((self._room, text))

    async def _send(self) -> None:
        """Send what was typed, one after the other: each waits until the log has the previous
        one.
        """
        while True:
            room, text = await self._outgoing.get()
            try:
                await room.send(text)
            except RefusedError as refused:
                self._note(f"Not sent: {refused}")
            self._on_the_way -= 1

    def _tell_typing(self) -> None:
        typed = self._prompt.default_buffer.text
        now = time.monotonic()
        if self._room and typed and typed[0] != "/" and now > self._told_typing + TYPING_SECONDS:
            self._told_typing = now
            self._room.typing()

    def _join(self, name: str) -> None:
        try:
            self._room = self._chat.room(name, recent=True, events=True)
        except RefusedError as refused:
            self._note(str(refused))
            return
        if name not in self._readers:
            self._readers[name] = self._tasks.create_task(self._show(self._room))

    def _leave(self) -> None:
        if self._room is None:
            return
        self._room.leave()
        self._readers.pop(self._room.name).cancel()
        last = next(reversed(self._readers), None)
        self._room = self._chat.room(last) if last else None

    def _who(self) -> str:
        if self._room is None:
            return "You are not in a room."
        names = "  ".join(map(harmless_user, sorted(self._room.users)))
        return names or f"{self._room.count} people, too many to be named."

    def _look_back(self) -> None:
        if self._room is not None:
            self._tasks.create_task(self._show_earlier(self._room))

    # Output.

    async def _show(self, room: Room) -> None:
        try:
            async for event in room:
                self._draw(room, event)
        except RefusedError as refused:
            self._note(f"{room.name}: {refused}")
            self._readers.pop(room.name)
            self._room = None if self._room is room else self._room

    async def _show_earlier(self, room: Room) -> None:
        before = self._oldest.get(room.name) or room.position
        if before is None:
            return
        try:
            earlier = await room.earlier(before)
        except (RefusedError, DisconnectedError) as refused:
            self._note(str(refused))
            return
        self._note(f"--- {room.name}, earlier{'' if earlier.more else ', from the beginning'} ---")
        for message in earlier.messages:
            self._draw(room, message)
        self._note("---")
        self._oldest[room.name] = earlier.position

    def _draw(self, room: Room, event: Event) -> None:
        typing = self._typing.setdefault(room.name, {})
        match event:
            case Message(name, identity, user, text, ts, author=author):
                typing.pop(user, None)
                self._oldest.setdefault(name, identity)
                colour = COLOURS[zlib.crc32(user.encode()) % len(COLOURS)]
                number = self._number(name, user, author)
                when = datetime.fromtimestamp(ts / 1000).strftime("%H:%M")
                margin = " " * len(f"{when} {name} ")
                self._print(
                    ("ansibrightblack", f"{when} {name} "),
                    (f"{colour} bold", harmless_user(user)),
                    ("ansibrightblack", number and f" ({number})"),
                    ("", ": " + harmless_text(text).replace("\n", "\n" + margin)),
                )
            case Gap(name):
                self._note(f"{name}: messages may be missing here; you were away for too long.")
            case IsTyping(_, user, seconds):
                typing[user] = time.monotonic() + seconds
            case Away():
                self._away = event
            case Back():
                self._away = None

    def _number(self, room: str, user: str, author: str) -> str:
        """A number that distinguishes authors of the same name; empty while there is only one."""
        authors = self._authors.setdefault(room, {}).setdefault(user, {})
        if author and author not in authors:
            authors[author] = len(authors) + 1
            if len(authors) == 2:
                shown = harmless_user(user)
                self._note(
                    f"{room}: two people write as {shown}: (1), who was seen first, and (2)."
                )
        return str(authors.get(author, "")) if len(authors) > 1 else ""

    def _note(self, words: str) -> None:
        self._print(("ansibrightblack", harmless_text(words)))

    def _print(self, *fragments: tuple[str, str]) -> None:
        print_formatted_text(FormattedText(fragments))

    def _status(self) -> str:
        if self._away is not None:
            parts = [f"{harmless_user(self._away.reason)}; trying again"]
        else:
            parts = [f"{self._chat.user} on {self._chat.replica}"]
        if self._room is not None and self._away is None:
            parts.append(f"{self._room.count} here")
            until = self._typing.get(self._room.name, {})
            names = [harmless_user(name) for name, end in until.items() if end > time.monotonic()]
            if names:
                parts.append(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} typing")
        if self._on_the_way:
            parts.append(f"{self._on_the_way} on the way")
        return "  ·  ".join(parts)
