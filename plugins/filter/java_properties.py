r"""Filter java_properties: settings as the lines of a file that Java reads.

Values are meant as they stand in the inventory: what `java.util.Properties` takes for more than
itself (a backslash, the end of a line, whatever is not ASCII) is escaped. JSON's strings escape the
same characters in the same way, but for the quotation mark, which is none in properties. Booleans
are lower case, elements of a list joined by commas, nothing is an empty value.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any


def value_of(setting: Any) -> str:
    """The string that Java is to read."""
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
        # Java passes over blanks before a value.
        lines.append(f"{name}=" + ("\\" if escaped.startswith(" ") else "") + escaped + "\n")
    return "".join(lines)


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"java_properties": java_properties}
