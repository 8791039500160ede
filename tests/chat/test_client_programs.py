"""`python -m chat.client`, in a terminal and in a pipe, as a separate process."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from subprocess import PIPE

import pyte
import pytest
from conftest import ROOT, Process

Start = Callable[..., Process]
PATIENCE = 30.0


def command(replica: Process, user: str, *arguments: str) -> list[str]:
    url = f"http://127.0.0.1:{replica.port}/"
    return [sys.executable, "-m", "chat.client", url, "--user", user, *arguments]


def pipe(
    replica: Process, user: str, said: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(replica, user, *arguments),
        cwd=ROOT,
        input=said,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Terminal:
    """A program in a terminal, as seen on the screen."""

    def __init__(self, arguments: list[str]) -> None:
        self._screen = pyte.Screen(100, 40)
        self._stream = pyte.ByteStream(self._screen)
        self._outside, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm-256color"},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        # Like any terminal, report the cursor position when asked.
        self._screen.write_process_input = self.type  # type: ignore[method-assign]

    def type(self, text: str) -> None:
        os.write(self._outside, text.encode())

    def shows(self, pattern: str) -> None:
        """Wait until text that matches `pattern` is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, "\n".join(self._screen.display)):
            seen = "\n".join(line.rstrip() for line in self._screen.display).rstrip()
            assert time.monotonic() < deadline, f"no {pattern!r} in\n{seen}"
            if select.select([self._outside], [], [], 0.1)[0]:
                self._stream.feed(os.read(self._outside, 65536))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._outside)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(list(arguments)))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_lines_of_a_pipe_are_said_in_order_and_it_ends_when_the_log_has_them(
    process: Start,
) -> None:
    replica = process()
    first = pipe(replica, "ada", "one\ntwo\\\n\nthree\n")
    assert (first.returncode, first.stderr) == (0, "")
    fields = [line.split("\t") for line in first.stdout.splitlines()]
    assert [field[1:] for field in fields] == [
        ["lobby", "ada", text] for text in ("one", "two\\\\", "three")
    ]


def test_what_is_refused_is_said_and_what_cannot_go_on_ends_with_1(process: Start) -> None:
    replica = process()
    refused = pipe(replica, "ada", "\u3164\nfine\n")
    assert refused.returncode == 0
    assert "nothing to see" in refused.stderr
    nameless = pipe(replica, "\u202eada", "")
    assert nameless.returncode == 1
    assert nameless.stderr == "chat.client: A name has no control characters: leave them out.\n"


def test_an_address_that_is_none_is_said_in_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "chat.client", "chat.example.org"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "chat.client: 'chat.example.org' is not a chat's address: give ws://HOST/ws or http://HOST/\n"
    )


def test_a_pipe_whose_name_is_taken_ends_though_its_input_does_not(process: Start) -> None:
    replica = process()
    with subprocess.Popen(
        command(replica, "ada"), cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True
    ) as ada:
        assert ada.stdin is not None
        assert ada.stdout is not None
        ada.stdin.write("I am here\n")
        ada.stdin.flush()
        assert "I am here" in ada.stdout.readline()
        # Its input is never closed during the test.
        with subprocess.Popen(
            command(replica, "ada"), cwd=ROOT, stdin=PIPE, stderr=PIPE, text=True
        ) as other:
            assert other.wait(PATIENCE) == 1
            assert other.stderr is not None
            said = other.stderr.read()
        assert (
            said == "chat.client: Somebody else in lobby is called ada: come with another name.\n"
        )


def test_two_who_write_under_one_name_are_two_in_a_terminal(
    process: Start, terminal: Callable[..., Terminal]
) -> None:
    replica = process(CHAT_REPLICA="chat-one")
    bob = terminal(*command(replica, "bob"))
    bob.shows(r"1 here")
    assert pipe(replica, "ada", "one\n").returncode == 0
    bob.shows(r"lobby ada: one")
    # Another key means another person.
    assert pipe(replica, "ada", "two\n").returncode == 0
    bob.shows(r"two people write as ada")
    bob.shows(r"lobby ada \(2\): two")


def test_two_people_chat_in_terminals(process: Start, terminal: Callable[..., Terminal]) -> None:
    replica = process(CHAT_REPLICA="chat-one")
    assert pipe(replica, "eve", "said before\n").returncode == 0
    ada, bob = (terminal(*command(replica, user)) for user in ("ada", "bob"))
    for one in (ada, bob):
        one.shows(r"eve: said before")
        one.shows(r"2 here")
    ada.type("hello, bob")
    bob.shows(r"ada is typing")
    ada.type("\r")
    for one in (ada, bob):
        one.shows(r"\d\d:\d\d lobby ada: hello, bob")
    bob.type("/join kafka\r")
    bob.shows(r"kafka> ")
    bob.type("alone\r")
    bob.shows(r"kafka bob: alone")
    bob.type("/nonsense\r")
    bob.shows(r"Unknown command /nonsense")
    bob.type("/earlier\r")
    bob.shows(r"kafka, earlier, from the beginning")
    bob.type("/leave\r")
    bob.shows(r"lobby> ")
    bob.type("/who\r")
    bob.shows(r"ada  bob")
    replica.popen.terminate()
    ada.shows(r"trying again")
    bob.type("\x04")
    assert bob.process.wait(PATIENCE) == 0
