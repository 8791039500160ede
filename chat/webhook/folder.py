"""The state of the webhooks in a folder. Each write is atomic and on disk before it counts."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from chat.webhook.state import Keeper, StateError


class Folder(Keeper):
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, file: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return (self._path / file).read_bytes()
        return None

    def write(self, file: str, content: bytes) -> None:
        new = self._path / f"{file}.new"
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(self._path / file)
        # Otherwise the name may lead to the old content after a power cut.
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def place(self, file: str) -> str:
        return str(self._path / file)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """Use the folder, made if it is not there, as the only process. Raises `StateError`."""
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = stack.enter_context((path / "lock").open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"{path}: another process uses it: stop that one, or give another folder"
            ) from None
        except OSError as error:
            raise StateError(f"{error.filename or path}: {error.strerror}") from None
        yield Folder(path)
