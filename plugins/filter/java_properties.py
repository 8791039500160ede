r"""Filter java_properties: settings as the lines of a Java properties file.

Values are literal: characters that `java.util.Properties` would interpret (backslashes, line
breaks, anything outside ASCII) are escaped. JSON strings escape the same characters in the same
way, except for quotation marks, which need no escape in properties. Booleans become lower case,
list elements are joined by commas, and None becomes an empty value.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any


def value_of(setting: Any) -> str:
    """The string that Java should read."""
    if isinstance(setting, bool):
        return str(setting).lower()
    if isinstance(setting, list | tuple):
        return ",".join(value_of(element) for element in setting)
    return "" if setting is None else str(setting)


def java_properties(settings: Mapping[str, Any]) -> str:
    """Return a line for each setting, by name."""
    lines = []
    for name in sorted(settings, key=str.lower):
        escaped = json.dumps(value_of(settings[name]))[1:-1].replace('\\"', '"')
        # Java skips blanks before a value.
        lines.append(f"{name}=" + ("\\" if escaped.startswith(" ") else "") + escaped + "\n")
    return "".join(lines)


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"java_properties": java_properties}
