"""`python -m chat.token`: tokens for programs, signed with a key of your own.

The chat takes them if `CHAT_AUTH_ISSUERS` names the issuer and has the public key. What was issued
is in a file beside the key, KEY.issued, without the tokens. Exit codes: 1: an error; 2: a wrong
argument.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

CURVE, ALGORITHM = "P-256", "ES256"
# Names are unique, so that each program is a person of its own.
NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")
HOUR = 3600
MOST_HOURS = 366 * 24
HTTP_SECONDS = 10.0


class CommandError(Exception):
    """It cannot be done. The text says why, and the remedy."""


class Issued(msgspec.Struct, frozen=True, tag="issued"):
    """`id` is the session (`sid`) that the token names. Times are in seconds since the epoch."""

    id: str
    name: str
    groups: list[str]
    issuer: str
    audience: str
    at: int
    until: int


class Revoked(msgspec.Struct, frozen=True, tag="revoked"):
    id: str
    at: int


_decoder = msgspec.json.Decoder(Issued | Revoked)


class Book:
    """What was issued with a key, in the file beside it, and what was revoked."""

    def __init__(self, key: Path) -> None:
        self._path = key.with_name(f"{key.name}.issued")

    def add(self, entry: Issued | Revoked) -> None:
        mode = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with os.fdopen(os.open(self._path, mode, 0o600), "ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")

    def read(self) -> tuple[dict[str, Issued], dict[str, Revoked]]:
        try:
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
            entries = [_decoder.decode(line) for line in lines]
        except (OSError, msgspec.MsgspecError) as error:
            raise CommandError(f"{self._path}: {error}; move it away to begin anew") from None
        issued = {entry.id: entry for entry in entries if isinstance(entry, Issued)}
        return issued, {entry.id: entry for entry in entries if isinstance(entry, Revoked)}


def make_key(path: Path) -> str:
    """Make a key, which only its owner may read. Returns its public half, a JWKS."""
    key = ECKey.generate_key(CURVE, {"kid": uuid.uuid4().hex, "use": "sig", "alg": ALGORITHM})
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(key.as_dict(private=True), file)
    except FileExistsError:
        raise CommandError(f"{path} is there: tokens of that key would count no more") from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    return public_half(key)


def public_half(key: ECKey) -> str:
    return json.dumps({"keys": [key.as_dict(private=False)]})


def read_key(path: Path) -> ECKey:
    try:
        key = ECKey.import_key(json.loads(path.read_text()))
        if key.is_private and key.curve_name == CURVE:
            return key
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}: make it with `key`") from None
    except (ValueError, TypeError, KeyError, JoseError):
        pass
    raise CommandError(f"{path} is no key of `python -m chat.token key`")


def sign(key: ECKey, one: Issued) -> str:
    claims = {
        "iss": one.issuer,
        "aud": one.audience,
        # Its author: the same for all tokens of the name.
        "sub": one.name,
        "preferred_username": one.name,
        "groups": one.groups,
        "sid": one.id,
        "iat": one.at,
        "exp": one.until,
    }
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, claims, key, algorithms=[ALGORITHM])


def issue(arguments: argparse.Namespace) -> None:
    key, now = read_key(arguments.key), int(time.time())
    until = now + round(arguments.hours * HOUR)
    groups = sorted(set(arguments.group))
    names = arguments.issuer, arguments.audience
    one = Issued(uuid.uuid4().hex, arguments.name, groups, *names, now, until)
    # First, so that there is no token which nobody knows of.
    Book(arguments.key).add(one)
    print(sign(key, one))


def show(arguments: argparse.Namespace) -> None:
    read_key(arguments.key)
    issued, revoked = Book(arguments.key).read()
    for one in issued.values():
        state = "counts"
        if one.id in revoked:
            state = f"revoked {_shown(revoked[one.id].at)}"
        elif one.until < time.time():
            state = "ended"
        groups = ",".join(one.groups) or "-"
        print(f"{one.id}  {one.name}  {groups}  until {_shown(one.until)}  {state}")


def revoke(arguments: argparse.Namespace) -> None:
    """The chat revokes what a token names as its session, up to now: another one of it will do."""
    key, now = read_key(arguments.key), int(time.time())
    issued, _ = Book(arguments.key).read()
    one = issued.get(arguments.id)
    if one is None:
        raise CommandError(f"{arguments.id} was not issued with {arguments.key}: see `list`")
    token = sign(key, msgspec.structs.replace(one, at=now, until=now + HOUR))
    request = urllib.request.Request(
        f"{arguments.url.rstrip('/')}/api/session",
        method="DELETE",
        headers={"Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=HTTP_SECONDS):
            pass
    except urllib.error.HTTPError as refused:
        said = refused.read(1000).decode(errors="replace")
        raise CommandError(f"{arguments.url} answers {refused.code}: {said}") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{arguments.url}: {error}") from None
    Book(arguments.key).add(Revoked(one.id, now))


def main(given: list[str] | None = None) -> int:
    arguments = _parser().parse_args(given)
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        command(arguments)
    except CommandError as error:
        print(f"chat.token: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chat.token", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[argparse.Namespace], None], about: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.add_argument("key", metavar="KEY", type=Path, help="the file with the key")
        added.set_defaults(command=command)
        return added

    add("key", lambda given: print(make_key(given.key)), "make KEY, and print its public half")
    add("public", lambda given: print(public_half(read_key(given.key))), "print it again")
    added = add("issue", issue, "print a token for a program")
    added.add_argument("name", type=_name, help="the program's, which people see")
    added.add_argument(
        "--group", action="append", default=[], help="a group for CHAT_ROOMS; may be repeated"
    )
    added.add_argument(
        "--hours",
        type=_hours,
        default=24.0,
        help="how long it counts; for more than a day, raise CHAT_AUTH_TOKEN_SECONDS (default: 24)",
    )
    added.add_argument("--issuer", default="bots", help="as in CHAT_AUTH_ISSUERS (default: bots)")
    added.add_argument("--audience", default="chat", help="the same (default: chat)")
    add("list", show, "list what was issued: id, name, groups, end, and whether it counts")
    added = add("revoke", revoke, "have the chat refuse a token, and close its connections")
    added.add_argument("id", help="as `list` shows it")
    added.add_argument("url", help="the chat's address, https://HOST/")
    return parser


def _name(given: str) -> str:
    if not NAME.fullmatch(given):
        raise argparse.ArgumentTypeError(f"{given!r}: give 1 to 32 of A-Z a-z 0-9 . _ -")
    return given


def _hours(given: str) -> float:
    try:
        hours = float(given)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= MOST_HOURS:
        raise argparse.ArgumentTypeError(f"{given!r}: give a number of hours up to {MOST_HOURS}")
    return hours


def _shown(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="minutes")


if __name__ == "__main__":
    sys.exit(main())
