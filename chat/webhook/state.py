"""What each webhook has to know after a restart: how far it has come, and the event that is on its
way.

An event is kept before it is sent, so that it is sent again with the same id and body, whatever
becomes of the message meanwhile.
"""

from __future__ import annotations

import abc
import re
import uuid

import msgspec

from chat.webhook.events import Delivery

_KEY = re.compile("[0-9a-f]{32}")


class StateError(Exception):
    """What is kept cannot be used. The text says why, and the remedy."""


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


class Keeper(abc.ABC):
    """Keeps files, of which one process at a time may write. They have what was said in rooms, so
    nobody else may read them.
    """

    @abc.abstractmethod
    def read(self, file: str) -> bytes | None:
        """None: there is none. Raises `OSError`."""

    @abc.abstractmethod
    def write(self, file: str, content: bytes) -> None:
        """Replace it at once, durably. May be called by several threads. Raises `OSError`, and
        `StateError` if another process writes.
        """

    @abc.abstractmethod
    def place(self, file: str) -> str:
        """Where it is, for people."""


class Store:
    """The file of one webhook."""

    def __init__(self, keeper: Keeper, name: str) -> None:
        self._keeper = keeper
        self._file = f"{name}.json"

    @property
    def place(self) -> str:
        return self._keeper.place(self._file)

    def load(self, room: str) -> State:
        """Raises `StateError`."""
        try:
            content = self._keeper.read(self._file)
            state = State(room) if content is None else msgspec.json.decode(content, type=State)
        except OSError as error:
            raise StateError(f"{self.place}: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError(
                f"{self.place}: {error}: restore it, or remove it to begin with the next message"
            ) from None
        if state.room != room:
            raise StateError(
                f"{self.place} is of room {state.room!r}, and the webhook of {room!r}: give it"
                " another name"
            )
        return state

    def save(self, state: State) -> None:
        """Raises what `Keeper.write` raises."""
        self._keeper.write(self._file, msgspec.json.encode(state))


def name_key(keeper: Keeper) -> str:
    """The secret that keeps the name of this program in the chat (`key` of `connect`), made if
    there is none. Raises what the keeper raises, and `StateError`.
    """
    found = keeper.read("key")
    if found is None:
        key = uuid.uuid4().hex
        keeper.write("key", key.encode())
        return key
    key = found.decode(errors="replace")
    if not _KEY.fullmatch(key):
        raise StateError(f"{keeper.place('key')} is no key: remove it, to have a new one made")
    return key
