"""Names are compared by what people see, and stay with whom they belong to."""

from __future__ import annotations

import gzip
import hashlib
import re
import unicodedata
from pathlib import Path

import pytest
from chat_client import ChatClient
from conftest import Replica
from hypothesis import given
from hypothesis import strategies as st

from chat import presence, protocol
from chat.presence.names import looks_of
from chat.protocol import RefusedError

CONFUSABLES = gzip.decompress(
    (Path(presence.__file__).parent / "confusables.txt.gz").read_bytes()
).decode("utf-8-sig")


def alike(one: str, other: str) -> bool:
    return bool(set(looks_of(one)) & set(looks_of(other)))


def test_the_look_alikes_are_those_of_unicode_17() -> None:
    assert "# Version: 17.0.0\n" in CONFUSABLES
    digest = hashlib.sha256(CONFUSABLES.encode()).hexdigest()
    assert digest == "091c7f82fc39ef208faf8f94d29c244de99254675e09de163160c810d13ef22a"


def test_all_look_alikes_of_unicode_are_alike() -> None:
    pairs = re.findall(r"^([0-9A-F]+) ;\t([0-9A-F ]+) ;", CONFUSABLES, re.MULTILINE)
    assert len(pairs) == CONFUSABLES.count(";\tMA\t") == 6565
    compared = 0
    for source, codes in pairs:
        prototype = "".join(chr(int(code, 16)) for code in codes.split())
        names = f"x{chr(int(source, 16))}y", f"x{prototype}y"
        # Skeletons are made of what characters are composed of; and no name has a tab (U+1F16D).
        if "\t" not in prototype and all(unicodedata.is_normalized("NFD", one) for one in names):
            assert alike(*names), source
            compared += 1
    assert compared == 5467


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ada", "ada\u2800"),
        ("ada", "\u2800ada"),
        ("ada", "\u0430da"),
        ("ada", "ad\u0430"),
        ("ada", "ada\U0001d159"),
        ("ada", "\u0251da"),
        ("ada", "a\u0501a"),
        ("ada", "ADA"),
        ("ada", "\uff41da"),
        ("ada", "a\u200bd\u00ada"),
        ("ada", "ada\ufe0f"),
        ("ada", "ada\ue000"),
        ("ada x", "ada  x"),
        ("ada x", "ada\u2003x"),
        ("ada x", "ada\u2800x"),
        ("ada x", "ada \u200b x"),
        ("Ian", "lan"),
        ("Ian", "ian"),
        ("HANS", "\u041dANS"),
        ("hans", "\u041dANS"),
        ("MAX", "max"),
        ("max", "rnax"),
        ("bob0", "bobo"),
        ("stra\u00dfe", "STRASSE"),
        ("\u041d\u0438\u043d\u0430", "\u043d\u0438\u043d\u0430"),
    ],
)
def test_names_that_look_alike_are_the_same(name: str, other: str) -> None:
    assert alike(name, other)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ada", "adam"),
        ("ada x", "adax"),
        ("ian", "lan"),
        ("user1", "user7"),
        ("user3", "usere"),
        ("Mary", "Marr"),
        ("jos\u00e9", "jose"),
        ("\u0418\u0432\u0430\u043d", "\u0418\u0440\u0430\u043d"),
        ("\U0001f98a", "\U0001f43b"),
    ],
)
def test_names_that_people_tell_apart_are_two(name: str, other: str) -> None:
    assert not alike(name, other)


@given(st.text(max_size=20), st.text("\u2800\u200b \u00ad\u2060\u3000\u202a", max_size=3))
def test_whatever_the_name_it_is_the_same_in_small_letters_and_with_what_nobody_sees_around_it(
    name: str, unseen: str
) -> None:
    try:
        name = protocol.check_user(name)
    except RefusedError:
        return
    assert "" not in looks_of(name)
    assert alike(name, name.casefold())
    assert looks_of(unseen + name + unseen) == looks_of(name)


@pytest.mark.parametrize("name", ["\u2800", "\U0001d159", "\U00016fe4 \u2800", "\u3164"])
def test_a_name_of_nothing_to_see_is_refused(name: str) -> None:
    with pytest.raises(RefusedError):
        protocol.check_user(name)


async def test_nobody_comes_in_beside_ada_as_somebody_who_looks_like_her(replica: Replica) -> None:
    server = await replica()
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        for name in ("ada\u2800", "\u0430da", "ada\U0001d159", "\u0251da", "a\u0501a"):
            async with ChatClient(server.port, name) as mallory:
                refused = await mallory.refused(type="join", room="lobby")
                assert refused["code"] == "name_taken"
