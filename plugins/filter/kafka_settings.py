"""Filters kafka_settings_refused and kafka_settings_unknown: check settings against Kafka's list.

The list, roles/kafka/files/settings.json, has the type of each setting for brokers and topics.
script/kafka_settings.py generates it from the documentation in Kafka's archive. Unknown settings
may belong to a plugin: any value except a mapping is accepted.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

# Sizes of Java's integer types.
BITS = {"short": 16, "int": 32, "long": 64}
# Prefix of settings for a single listener. The rest is a setting's name, or a plugin's.
OF_A_LISTENER = "listener.name."


def obstacle(value: Any, kind: str | None) -> str | None:
    """Why Kafka would not start with this value, or None."""
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
    """Each setting with a value that Kafka cannot parse, and what it accepts."""
    found = []
    for name, value in settings.items():
        if why := obstacle(value, known.get(name)):
            # A mapping may contain a password.
            shown = "a mapping" if isinstance(value, Mapping) else repr(value)
            found.append(f"{name} is {shown}: {why}")
    return found


def kafka_settings_unknown(settings: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    """Each setting that Kafka does not have, with the name that was probably meant."""
    found = []
    for name in sorted(set(settings) - set(known)):
        if not name.startswith(OF_A_LISTENER):
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            found.append(f"{name} (did you mean {close[0]}?)" if close else name)
    return found


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {
            "kafka_settings_refused": kafka_settings_refused,
            "kafka_settings_unknown": kafka_settings_unknown,
        }
