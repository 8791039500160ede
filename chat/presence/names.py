"""When two names are the same to whoever reads them.

Letters of several scripts look alike: confusables.txt of UTS #39 says which, as Unicode publishes
it. A later one is at https://www.unicode.org/Public/VERSION/security/confusables.txt: put it here,
by gzip -9n, and its checksum into tests/chat/hostile/test_names.py.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
from functools import lru_cache
from importlib import resources

import regex

from chat.protocol import EMPTY

# Names that were compared lately: the same people come, go and type.
REMEMBERED = 10_000

_SPACE = regex.compile(rf"[\s{EMPTY}]+")
# What is none of letter, mark, digit, punctuation or sign is not drawn, or not everywhere.
_INVISIBLE = regex.compile(
    r"[[^\p{L}\p{M}\p{N}\p{P}\p{S}\ ]\p{Default_Ignorable_Code_Point}]", regex.V1
)
_MAPPING = re.compile(rb"^([0-9A-F]+) ;\t([0-9A-F ]+) ;", re.MULTILINE)


def _prototypes() -> dict[int, str]:
    """What each character that looks like others is replaced by: the one that stands for all."""
    packed = resources.files(__package__).joinpath("confusables.txt.gz").read_bytes()
    return {
        int(source, 16): "".join(chr(int(code, 16)) for code in prototype.split())
        for source, prototype in _MAPPING.findall(gzip.decompress(packed))
    }


_PROTOTYPES = _prototypes()


@lru_cache(REMEMBERED)
def looks_of(user: str) -> tuple[int, ...]:
    """What the name looks like as it is written, and, if that is something else, in small letters:
    hashed, for a look may be many times as long as its name.

    Two names are the same to who reads them if they have a look in common. One is not enough: `Ian`
    looks like `lan` (with an l), and is `ian` but for its capital, and these two look like nothing
    of each other.
    """
    visible = _SPACE.sub(" ", _INVISIBLE.sub("", _SPACE.sub(" ", user))).strip()
    written, small = _look(visible), _look(_folded(visible))
    return (hash(written),) if written == small else (hash(written), hash(small))


def _look(name: str) -> str:
    """The skeleton of UTS #39, section 4, without regard to capitals."""
    skeleton = unicodedata.normalize("NFD", name).translate(_PROTOTYPES)
    return _folded(skeleton)


def _folded(name: str) -> str:
    """Without regard to capitals: NFKC_Casefold of Unicode, chapter 3.13."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
