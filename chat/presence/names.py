"""Decides whether two names look the same to a reader.

Letters of different scripts can look alike. confusables.txt of UTS #39, as published by Unicode,
lists them. To update it, download https://www.unicode.org/Public/VERSION/security/confusables.txt,
compress it with gzip -9n into this directory, and put its checksum into
tests/chat/hostile/test_names.py.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from functools import lru_cache
from importlib import resources

import regex

from chat.protocol import EMPTY

# Size of the cache of compared names: the same people come, go and type.
REMEMBERED = 10_000

_SPACE = regex.compile(rf"[\s{EMPTY}]+")
# Characters that are not a letter, mark, digit, punctuation or symbol are invisible on some or all
# systems.
_INVISIBLE = regex.compile(
    r"[[^\p{L}\p{M}\p{N}\p{P}\p{S}\ ]\p{Default_Ignorable_Code_Point}]", regex.V1
)
_MAPPING = re.compile(rb"^([0-9A-F]+) ;\t([0-9A-F ]+) ;", re.MULTILINE)


def _prototypes() -> dict[int, str]:
    """Map each confusable character to the one that represents its group."""
    packed = resources.files(__package__).joinpath("confusables.txt.gz").read_bytes()
    return {
        int(source, 16): "".join(chr(int(code, 16)) for code in prototype.split())
        for source, prototype in _MAPPING.findall(gzip.decompress(packed))
    }


_PROTOTYPES = _prototypes()


@lru_cache(REMEMBERED)
def looks_of(user: str) -> tuple[int, ...]:
    """Return hashes of what the name looks like as written and, if that differs, in lower case.

    Hashes, because a look may be many times as long as its name. Two names look the same if they
    have a hash in common. One form is not enough: `Ian` looks like `lan` (with an l), and it equals
    `ian` except for the capital, but `lan` and `ian` do not look alike.
    """
    visible = _SPACE.sub(" ", _INVISIBLE.sub("", _SPACE.sub(" ", user))).strip()
    written, small = _look(visible), _look(_folded(visible))
    return (hash(written),) if written == small else (hash(written), hash(small))


def _look(name: str) -> str:
    """The skeleton of UTS #39, section 4, ignoring case."""
    skeleton = unicodedata.normalize("NFD", name).translate(_PROTOTYPES)
    return _folded(skeleton)


def _folded(name: str) -> str:
    """Ignore case: NFKC_Casefold of Unicode, chapter 3.13."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
