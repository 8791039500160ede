"""Filters kafka_settings_refused and kafka_settings_unknown: settings against Kafka's own list.

The list, roles/kafka/files/settings.json, gives each setting's type by its name, for brokers and
for topics; script/kafka_settings.py makes it from the documentation in Kafka's archive. Settings
that are not in it may be a plugin's: any value but a mapping passes.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

# What Java's types hold.
BITS = {"short": 16, "int": 32, "long": 64}
# Of one listener alone: what follows is a setting or a plugin's.
OF_A_LISTENER = "listener.name."


def obstacle(value: Any, kind: str | None) -> str | None:
    """Why Kafka would not start with the value, or None."""
    text = str(value).strip()
    if isinstance(value, Mapping):
        return "write its keys out, as Kafka names them"
    if kind in (None, "string", "list", "password"):
        return None
    if isinstance(value, list | tuple):
        return f"Kafka takes one {kind}, not a list"
    if kind == "boolean":
        return None if text.lower() in ("true", "false") else "write true or false"
    if kind in BITS:
        limit = 2 ** (BITS[kind] - 1)
        whole = not isinstance(value, bool) and re.fullmatch(r"[+-]?\d+", text)
        fits = whole and -limit <= int(text) < limit
        return None if fits else f"write a whole number, at most {limit - 1}"
    if kind == "double":
        number = not isinstance(value, bool) and re.fullmatch(
            r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text
        )
        return None if number else "write a number"
    return None


def kafka_settings_refused(settings: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    """Each setting whose value Kafka cannot read, with what it takes."""
    found = []
    for name, value in settings.items():
        if why := obstacle(value, known.get(name)):
            # There may be a password in a mapping.
            shown = "a mapping" if isinstance(value, Mapping) else repr(value)
            found.append(f"{name} is {shown}: {why}")
    return found


def kafka_settings_unknown(settings: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    """Each setting that is not Kafka's, with the name that may have been meant."""
    found = []
    for name in sorted(set(settings) - set(known)):
        if not name.startswith(OF_A_LISTENER):
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            found.append(f"{name} (did you mean {close[0]}?)" if close else name)
    return found


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {
            "kafka_settings_refused": kafka_settings_refused,
            "kafka_settings_unknown": kafka_settings_unknown,
        }
