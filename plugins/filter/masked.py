"""Filter masked: a text as it may be shown, with asterisks for what is secret in it.

The one place that knows what a secret looks like: who shows a configuration masks it, and who would
show a change of it first asks whether masking leaves it as it is. What it looks for:

- what follows a name that says it is a secret, up to the end of the line, and of the lines that
  continue it: `ssl.key.password=...`, `sasl.jaas.config=...`, `"token": ...`;
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
    """Return the text with asterisks for its secrets; names and everything else stay."""
    return NAMED.sub(rf"\1{MASK}", PRIVATE_KEY.sub(rf"\1{MASK}", text))


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"masked": masked}
