"""What each webhook has to know after a restart, in a file of its own: how far it has come, and the
event that is on its way.

An event is written here before it is sent, so that it is sent again with the same id and body,
whatever becomes of the message meanwhile. Each write is atomic and on disk before it counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from chat.webhook.events import Delivery

_KEY = re.compile("[0-9a-f]{32}")


class StateError(Exception):
    """The folder or a file in it cannot be used. The text says why, and the remedy."""


class State(msgspec.Struct, omit_defaults=True):
    """`position`: everything of the room up to there was delivered, but for `pending`; empty: the
    webhook begins with the next message. `gap` is delivered before `pending`. `failing_since`: when
    the receiver failed first since it took something, in seconds since the epoch; 0: it did not.
    `gone`: it wants nothing more (410).
    """

    room: str
    position: str = ""
    pending: Delivery | None = None
    gap: Delivery | None = None
    failing_since: float = 0.0
    gone: bool = False


class Store:
    """The file of one webhook."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.json"

    def load(self, room: str) -> State:
        """Raises `StateError`."""
        try:
            state = msgspec.json.decode(self.path.read_bytes(), type=State)
        except FileNotFoundError:
            return State(room)
        except OSError as error:
            raise StateError(f"{self.path}: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError(
                f"{self.path}: {error}: restore it, or remove it to begin with the next message"
            ) from None
        if state.room != room:
            raise StateError(
                f"{self.path} is of room {state.room!r}, and the webhook of {room!r}: give it"
                " another name"
            )
        return state

    def save(self, state: State) -> None:
        """Raises `OSError`."""
        _write(self.path, msgspec.json.encode(state))


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[str]:
    """Use the folder, made if it is not there, as the only process. Gives the secret that keeps the
    name of this program in the chat (`key` of `connect`). Raises `StateError`.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = stack.enter_context((folder / "lock").open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            key = _key(folder / "key")
        except BlockingIOError:
            raise StateError(
                f"{folder}: another process uses it: stop that one, or give another folder"
            ) from None
        except OSError as error:
            raise StateError(f"{error.filename or folder}: {error.strerror}") from None
        yield key


def _key(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        key = path.read_text()
        if not _KEY.fullmatch(key):
            raise StateError(f"{path} is no key: remove it, to have a new one made")
        return key
    key = uuid.uuid4().hex
    _write(path, key.encode())
    return key


def _write(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    # Otherwise the name may lead to the old content after a power cut.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
