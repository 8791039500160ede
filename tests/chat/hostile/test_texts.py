"""What people paste and broken clients write: only what has nothing to show is refused, each
refusal says of which message, and no text steers how the text around it is shown.
"""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace

import pytest
import regex
from chat_client import ChatClient
from conftest import Replica
from hypothesis import given
from hypothesis import strategies as st

from chat import protocol
from chat.client import terminal
from chat.client.room import Away
from chat.protocol import ErrorCode, IsTyping, Limits, Message, RefusedError, Send, Subject

LIMITS = Limits(
    frame_bytes=32768, text_bytes=8192, text_graphemes=2000, rooms=3, rate=1, burst=1, history=1
)
EMBEDDINGS = "\u202a\u202b"
OVERRIDES = "\u202d\u202e"
ISOLATES = "\u2066\u2067\u2068"
MARKS = EMBEDDINGS + OVERRIDES + ISOLATES + "\u202c\u2069"


def kept(text: str) -> str:
    return protocol.check_text(text, LIMITS)


# Refusals.

SEND = '{"type":"send","room":"lobby",'


@pytest.mark.parametrize(
    "frame",
    [
        SEND + '"text":7,"cid":"c1"}',
        '{"type":"send","room":["\\ud83d"],"text":"x","cid":"c1"}',
        '{"type":"send","room":7,"text":"x","cid":"c1"}',
        '{"type":"nothing","text":"\\udc00","cid":"c1"}',
        SEND + '"text":"a raw\nline break","cid":"c1"}',
        SEND + '"text":"not ended","cid":"c1"',
        SEND + '"cid":"c1","text":"cut o',
        SEND + '"text":"\\uzzzz \\x","cid": "c1"}',
        SEND + '"text":"a comma","cid":"c1",}',
        "{'type':'send',\"cid\" : \"c1\"}",
        SEND + '"text":"\\"cid\\":\\"c0\\",","cid":"c1",}',
        SEND + '"cid":"c1","deep":' + "[" * 15000 + "]" * 15000 + "}",
    ],
)
def test_a_refused_frame_with_a_cid_is_refused_under_it_however_broken_the_rest(frame: str) -> None:
    with pytest.raises(RefusedError) as refused:
        protocol.decode(frame)
    assert refused.value.code is ErrorCode.BAD_FRAME
    assert protocol.subject_of(frame).cid == "c1"


@given(st.text(max_size=20), st.text(min_size=1, max_size=64), st.integers(1, 80), st.booleans())
def test_the_cid_is_found_in_a_frame_cut_off_anywhere_behind_it(
    text: str, cid: str, cut: int, escaped: bool
) -> None:
    frame = json.dumps({"cid": cid, "text": text, "room": "lobby"}, ensure_ascii=escaped)
    end = max(len(frame) - cut, frame.index(', "text"'))
    assert protocol.subject_of(frame[:end]).cid == cid


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_whatever_was_refused_can_be_answered(frame: str) -> None:
    subject = protocol.subject_of(frame)
    protocol.encode(protocol.Error(ErrorCode.BAD_FRAME, "No.", subject.cid, subject.room))


def test_half_a_surrogate_pair_in_a_text_is_kept_as_what_stands_for_it() -> None:
    frame = SEND + r'"text":"half \ud83d, half \udc00, \ud83e\udd8a and \\ud83d","cid":"c1"}'
    assert protocol.decode(frame) == Send(
        "lobby", "half \ufffd, half \ufffd, \U0001f98a and \\ud83d", "c1"
    )


@pytest.mark.parametrize("cid", ["\\udc00", "\\ud83d", "c\\ud83d\\ud83d"])
def test_half_a_surrogate_pair_in_a_cid_is_refused(cid: str) -> None:
    frame = f'{{"type":"send","room":"lobby","text":"x \\ud83d","cid":"{cid}"}}'
    with pytest.raises(RefusedError) as refused:
        protocol.decode(frame)
    assert refused.value.code is ErrorCode.BAD_FRAME
    assert protocol.subject_of(frame) == Subject(None, "lobby")


@given(st.lists(st.integers(0xD800, 0xDFFF) | st.integers(0x20, 0x2FF), max_size=20))
def test_no_escaped_surrogates_whatever_get_past_the_decoder_but_as_a_text(
    units: list[int],
) -> None:
    escaped = "".join(f"\\u{unit:04x}" for unit in units)
    frame = protocol.decode(f'{SEND}"text":"{escaped}","cid":"c1"}}')
    assert isinstance(frame, Send)
    written = b"".join(unit.to_bytes(2, "little") for unit in units)
    expected = written.decode("utf-16-le", "surrogatepass")
    assert frame.text == re.sub("[\ud800-\udfff]", "\ufffd", expected)


async def test_a_broken_frame_costs_its_sender_nothing_but_itself(replica: Replica) -> None:
    server = await replica()
    async with ChatClient(server.port, "ada") as ada:
        await ada.join("lobby")
        await ada.ws.send(SEND + r'"text":"half \ud83d","cid":"c1"}')
        assert (await ada.hear("ack"))["cid"] == "c1"
        await ada.ws.send(SEND + r'"text":"x","cid":"\udc00"}')
        assert "cid" not in await ada.hear("error")
        await ada.ws.send(SEND + '"text":"a\nb","cid":"c2"}')
        assert (await ada.hear("error"))["cid"] == "c2"
        await ada.send("lobby", "and on")
        assert await ada.texts("lobby", 2) == ["half \ufffd", "and on"]


# What nobody typed.


@pytest.mark.parametrize("line_break", "\r\v\f\x85\u2028\u2029")
def test_what_begins_a_new_line_elsewhere_does_so_here(line_break: str) -> None:
    assert kept(f"a{line_break}b") == "a\nb"


def test_a_line_break_of_two_characters_is_one() -> None:
    assert kept("a\r\nb\n\rc") == "a\nb\n\nc"


@pytest.mark.parametrize("control", ["\x00", "\x07", "\x08", "\x1b", "\x7f", "\x80", "\x9b"])
def test_control_characters_that_nobody_sees_are_left_out(control: str) -> None:
    assert kept(f"a{control}b") == "ab"


@pytest.mark.parametrize(
    ("pasted", "text"),
    [
        ("\u202a+49 170 0000000\u202c", "\u202a+49 170 0000000\u202c"),
        ("\u202d+49 170 0000000\u202c", "\u202a+49 170 0000000\u202c"),
        ("\u202aC:\\x", "\u202aC:\\x\u202c"),
        ("C:\\x\u202c", "C:\\x"),
        ("\u2066open", "\u2066open\u2069"),
        ("closed\u2069", "closed"),
        ("photo\u202egpj.exe", "photo\u202bgpj.exe\u202c"),
        ("\u2067one\ntwo\u2069", "\u2067one\u2069\ntwo"),
        ("\u2066a\u202ab\u2069c\u202c", "\u2066a\u202ab\u202c\u2069c"),
        ("\u202aa\u2066b\u202cc\u2069d", "\u202aa\u2066bc\u2069d\u202c"),
    ],
)
def test_invisible_marks_that_came_with_what_was_pasted_stay_within_it(
    pasted: str, text: str
) -> None:
    assert kept(pasted) == text


@given(st.text(st.sampled_from(MARKS + "ab\n"), max_size=30), st.text(max_size=5))
def test_each_line_closes_what_it_opens_and_nothing_else(marks: str, text: str) -> None:
    """By UAX #9: in a line that is whole, nothing is open at the end, and nothing of another line
    is closed.
    """
    result = kept("x" + marks + text)
    assert not set(OVERRIDES) & set(result)
    for line in result.split("\n"):
        still_open = []
        for mark in line:
            if mark in EMBEDDINGS:
                still_open.append("\u202c")
            elif mark in ISOLATES:
                still_open.append("\u2069")
            elif mark in "\u202c\u2069":
                assert still_open.pop() == mark
        assert not still_open


@given(st.text(st.characters() | st.sampled_from(MARKS + "\r\n\v\u0301"), max_size=60))
def test_what_is_kept_of_a_text_is_kept_as_it_is(text: str) -> None:
    try:
        once = kept(text)
    except RefusedError:
        return
    assert kept(once) == once


def test_the_longest_frame_of_marks_costs_a_bounded_amount_of_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each mark is looked at once, and each one that was opened is closed once."""
    compared = 0

    class Counted(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)  # type: ignore[arg-type]

        __hash__ = str.__hash__

    for name in ("_POP_EMBEDDING", "_POP_ISOLATE"):
        monkeypatch.setattr(protocol, name, Counted(getattr(protocol, name)))
    marks = "\u202a" * 5000 + "\u2069" * 5000
    with pytest.raises(RefusedError):
        kept("\u2066" + marks + "x" + "\u2069" * 5000)
    assert compared < 10 * len(marks)


def test_a_text_of_flags_takes_no_longer_than_one_of_letters() -> None:
    r"""With \X alone, each half of a flag was a search back to the first one: 150 times as long."""

    def fastest(text: str) -> float:
        taken = []
        for _ in range(5):
            began = time.thread_time()
            protocol.graphemes(text)
            taken.append(time.thread_time() - began)
        return min(taken)

    assert fastest("\U0001f1e6" * 2000) < 20 * fastest("x" * 2000)


@given(st.text(st.sampled_from("\U0001f1e6\U0001f1e7x\u0301\u200d\ufe0f\U0001f468 \n")))
def test_flags_are_counted_as_unicode_does(text: str) -> None:
    assert protocol.graphemes(text) == len(regex.findall(r"\X", text))


# A log may hold what no release of today takes from a client, and a terminal shows it.

STEERING = "a\x1b[31m\x9b2J\x85\x08\r\u202eb\u2066c\x07\u2028d\u200f"


async def test_a_terminal_is_not_steered_by_what_others_wrote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(
        terminal,
        "print_formatted_text",
        lambda fragments: shown.append("".join(text for _, text in fragments)),
    )
    room = SimpleNamespace(name="lobby", users={STEERING}, count=2)
    chat = SimpleNamespace(user="ada", replica="r")
    window = terminal.Terminal(chat)  # type: ignore[arg-type]
    window._room = room  # type: ignore[assignment]
    for number in range(2):
        window._draw(room, Message("lobby", "1", STEERING, STEERING, 0, "1", f"{number}"))  # type: ignore[arg-type]
    window._draw(room, IsTyping("lobby", STEERING, 6))  # type: ignore[arg-type]
    window._note(window._who())
    shown.append(window._status())
    window._draw(room, Away(STEERING, 1))  # type: ignore[arg-type]
    shown.append(window._status())
    assert len(shown) == 6
    for text in shown:
        assert "b" in text
        for line in text.split("\n"):
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202d\u202e]", line)
            opened = len(re.findall(f"[{EMBEDDINGS}{ISOLATES}]", line))
            assert opened == len(re.findall("[\u202c\u2069]", line))
    # What people write with is left alone.
    family = "\U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u062e"
    assert protocol.harmless_text(f"{family}\tx\ny") == f"{family}\tx\ny"
    assert protocol.harmless_user(family) == family
