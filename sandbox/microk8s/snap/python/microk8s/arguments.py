"""Files of flags, one per daemon in `args/`: one flag per line, `#` comments, `$NAME` expanded."""

import os
import shlex

from microk8s.paths import ARGS


def read(daemon: str) -> list[str]:
    """The flags that the daemon is started with."""
    lines = (ARGS / daemon).read_text().splitlines()
    return [
        word
        for line in lines
        if line.strip() and not line.lstrip().startswith("#")
        for word in shlex.split(os.path.expandvars(line))
    ]


def value(daemon: str, flag: str) -> str | None:
    """The value of the flag, or None."""
    given = (word.partition("=") for word in read(daemon))
    return next((text for name, _, text in given if name == flag), None)


def change(daemon: str, changes: dict[str, str | None]) -> bool:
    """Set flags in place (None removes one). Returns whether anything changed."""
    path = ARGS / daemon
    before = path.read_text() if path.exists() else ""
    pending = dict(changes)
    lines = []
    for line in before.splitlines():
        flag = line.split("=", 1)[0].strip()
        if flag not in changes:
            lines.append(line)
        elif (value := pending.pop(flag, None)) is not None:
            lines.append(f"{flag}={value}")
    lines += [f"{flag}={value}" for flag, value in pending.items() if value is not None]
    after = "\n".join(lines) + "\n"
    if after == before:
        return False
    path.write_text(after)
    return True
