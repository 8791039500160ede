"""When two names are the same to whoever reads them."""

from __future__ import annotations

import unicodedata

import regex

_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")


def skeleton(user: str) -> str:
    """What names have in common that look the same but for case, width or invisible characters
    (NFKC_Casefold, Unicode chapter 3.13).
    """
    if user.isascii():
        return user.lower()
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", user)).casefold()
    return unicodedata.normalize("NFKC", folded)
