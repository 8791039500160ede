"""`python -m chat.client URL --user NAME`: chat in a terminal, or from a pipe.

Exit codes: 0: you left, and the log has everything you sent. 1: an error. 2: a wrong argument.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import os
import sys
from pathlib import Path

from chat.client.connection import TokenSource, connect
from chat.client.device import SignIn
from chat.client.pipe import Pipe
from chat.client.room import DisconnectedError
from chat.client.terminal import Terminal
from chat.protocol import RefusedError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chat.client",
        description=__doc__,
        # Not an argument: everyone on the machine can see the arguments of a process.
        epilog="Set the environment variable CHAT_KEY to a secret to keep your name. Where the chat"
        " requires tokens, use --sign-in, or set CHAT_TOKEN_FILE to a file that has one; it is read"
        " again when the token ends. If the client of --sign-in has a secret, set"
        " CHAT_CLIENT_SECRET.",
    )
    parser.add_argument("url", help="the chat's address, http://HOST/ or ws://HOST/ws")
    parser.add_argument(
        "--user", default=getpass.getuser(), help="your name (default: %(default)s)"
    )
    parser.add_argument(
        "--room", action="append", metavar="ROOM", help="join this room; may be repeated"
    )
    parser.add_argument(
        "--follow", action="store_true", help="in a pipe: keep receiving after the input has ended"
    )
    parser.add_argument(
        "--sign-in",
        metavar="ISSUER",
        help="sign in at this provider (OpenID Connect), by a code that you enter in a browser",
    )
    parser.add_argument(
        "--client-id",
        metavar="ID",
        default="chat-terminal",
        help="the client that the site registered there for terminals (default: %(default)s)",
    )
    parser.add_argument(
        "--scope",
        default="openid profile",
        help="what the provider is asked for (default: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        metavar="FILE",
        type=Path,
        help="keep the sign-in in FILE, for the next start; by default, it ends with the program",
    )
    arguments = parser.parse_args()
    if arguments.sign_in and "CHAT_TOKEN_FILE" in os.environ:
        parser.error("--sign-in: CHAT_TOKEN_FILE is set: use one of them")
    if arguments.keep and not arguments.sign_in:
        parser.error("--keep: give --sign-in, too")
    code = 0
    # Several rooms may fail at once for the same reason.
    try:
        asyncio.run(run(arguments))
    except* KeyboardInterrupt:
        code = 130
    except* ValueError as errors:
        code = _complain(errors, 2)
    except* (RefusedError, DisconnectedError) as errors:
        code = _complain(errors, 1)
    return code


def _complain(errors: BaseExceptionGroup[Exception], code: int) -> int:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    print(f"chat.client: {error}", file=sys.stderr)
    return code


async def run(arguments: argparse.Namespace) -> None:
    rooms = arguments.room or ["lobby"]
    async with connect(
        arguments.url, arguments.user, key=os.environ.get("CHAT_KEY"), token=await _token(arguments)
    ) as chat:
        if sys.stdin.isatty() and sys.stdout.isatty():
            await Terminal(chat).run(rooms)
        else:
            await Pipe(chat, follow=arguments.follow).run(rooms)


async def _token(arguments: argparse.Namespace) -> TokenSource | None:
    if arguments.sign_in:
        signing_in = SignIn(
            arguments.sign_in,
            arguments.client_id,
            show=lambda line: print(line, file=sys.stderr, flush=True),
            scope=arguments.scope,
            secret=os.environ.get("CHAT_CLIENT_SECRET", ""),
            keep=arguments.keep,
        )
        await signing_in.begin()
        return signing_in
    file = os.environ.get("CHAT_TOKEN_FILE")
    return (lambda: Path(file).read_text().strip()) if file else None


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
