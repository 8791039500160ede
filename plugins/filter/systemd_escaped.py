r"""Filter systemd_escaped: escape a text for the quoted value of a unit's Environment=.

The text is literal, but systemd interprets `%` as a specifier (systemd.unit(5)) and a backslash as
an escape (systemd.syntax(7)). Unescaped, `-XX:ErrorFile=/x/hs_%p.log` would contain the unit's name
instead of the process id.
"""

from collections.abc import Callable

MEANT = str.maketrans({"%": "%%", "\\": "\\\\", '"': '\\"', "\n": "\\n"})


def systemd_escaped(text: str) -> str:
    """Return the text with everything escaped that systemd would interpret."""
    return text.translate(MEANT)


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"systemd_escaped": systemd_escaped}
