"""Filter masked: replace secrets in a text by asterisks.

This is the only definition of what a secret looks like. Tasks that show a configuration mask it.
Tasks that would show a diff first check that masking changes nothing. It masks:

- the value after a name that denotes a secret, up to the end of the line and its continuation
  lines: `ssl.key.password=...`, `sasl.jaas.config=...`, `"token": ...`;
- users of JAAS' plain login module: `user_alice="..."`;
- private keys in PEM.
"""

import re
from collections.abc import Callable

MASK = "********"
PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----).*?(?:-----END [A-Z ]*PRIVATE KEY[A-Z ]*-----|\Z)",
    re.DOTALL,
)
NAMED = re.compile(
    r"""
    ( (?: password | passwd | secret | token | credential | digest
        | jaas\.config | \.key\b | \buser_ )
      [\w.-]* ["']? [ \t]* [=:] [ \t]* )
    \S (?: .* \\\n )* .*
    """,
    re.IGNORECASE | re.VERBOSE,
)


def masked(text: str) -> str:
    """Return the text with its secrets replaced by asterisks. Names and other text stay."""
    return NAMED.sub(rf"\1{MASK}", PRIVATE_KEY.sub(rf"\1{MASK}", text))


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"masked": masked}
