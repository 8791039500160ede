r"""Filter systemd_escaped: a text for between the quotation marks of a unit's Environment=.

It is meant as it stands in the inventory, and systemd takes `%` for a specifier (systemd.unit(5))
and a backslash for an escape (systemd.syntax(7)): `-XX:ErrorFile=/x/hs_%p.log` would get the unit's
name, and not the number of the process.
"""

from collections.abc import Callable

MEANT = str.maketrans({"%": "%%", "\\": "\\\\", '"': '\\"', "\n": "\\n"})


def systemd_escaped(text: str) -> str:
    """Return the text with nothing in it that systemd would change."""
    return text.translate(MEANT)


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"systemd_escaped": systemd_escaped}
