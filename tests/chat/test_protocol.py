from __future__ import annotations

import json
import unicodedata

import msgspec
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.streams import StreamReader

from chat import protocol
from chat.protocol import ErrorCode, Limits, Position, RefusedError
from chat.websocket.frames import text_frame

LIMITS = Limits(
    frame_bytes=32768, text_bytes=400, text_graphemes=100, rooms=3, rate=1, burst=1, history=1
)


def code_of(check: object, *arguments: object) -> ErrorCode | None:
    try:
        check(*arguments)  # type: ignore[operator]
    except RefusedError as error:
        refused = error
    else:
        return None
    assert refused.message.endswith("."), "a sentence"
    return refused.code


def test_unknown_fields_are_ignored() -> None:
    assert protocol.decode('{"type":"hello","user":"ada","colour":"red"}') == protocol.Hello("ada")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "7",
        '"hello"',
        "{}",
        '{"type":7}',
        '{"type":"dance"}',
        '{"type":"hello"}',
        '{"type":"hello","user":7}',
        '{"type":"hello","user":null}',
        '{"type":"hello","user":"ada","key":"short"}',
        '{"type":"hello","user":"ada","key":"with a space in it, and long"}',
        '{"type":"history","room":"a","before":"x","limit":0}',
        '{"type":"history","room":"a"}',
        '{"type":"hello","user":"\\ud800"}',
        '{"type":"join","room":"a","since":7}',
        '{"type":"send","room":"a","cid":"1"}',
        '{"type":"send","room":"a","cid":"1","text":["x"]}',
        '{"type":"hello","user":"ada"} and more',
        '{"type":"hello","user":"ada","deep":' + "[" * 15000 + "]" * 15000 + "}",
    ],
)
def test_what_is_no_frame_is_refused(text: str) -> None:
    assert code_of(protocol.decode, text) is ErrorCode.BAD_FRAME


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_no_text_whatever_gets_past_the_decoder_but_as_frame_or_refusal(text: str) -> None:
    assert code_of(protocol.decode, text) in (None, ErrorCode.BAD_FRAME)
    protocol.subject_of(text)


@given(
    st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z"),
    st.integers(0, 10**9 - 1),
    st.integers(-1, 10**18 - 1),
)
def test_a_position_survives_its_way_through_a_client(
    epoch: str, partition: int, offset: int
) -> None:
    position = Position(epoch, partition, offset)
    assert Position.parse(str(position)) == position


@given(st.text())
def test_what_is_no_position_is_none(text: str) -> None:
    position = Position.parse(text)
    assert position is None or str(position) == text or "0" in text


@pytest.mark.parametrize("digits", [str(1 << 63), "1" + "0" * 18, "9" * 5000])
@pytest.mark.parametrize("text", ["log:{}:1", "log:1:{}", "log:1:1:{}"])
def test_numbers_that_no_log_has_are_in_no_position(text: str, digits: str) -> None:
    assert Position.parse(text.format(digits)) is None


@given(
    st.binary(max_size=300) | st.sampled_from([b"x" * 125, b"x" * 126, b"x" * 65535, b"x" * 65536])
)
def test_a_frame_is_what_another_implementation_reads(payload: bytes) -> None:
    reader = StreamReader()
    reader.feed_data(text_frame(payload))
    parser = WebSocketFrame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parser)
    frame: WebSocketFrame = done.value.value
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.TEXT, True, payload)


def test_an_error_has_a_cid_only_if_there_is_one() -> None:
    error = protocol.Error(ErrorCode.BAD_TEXT, "No.")
    assert json.loads(protocol.encode(error)) == {
        "type": "error",
        "code": "bad_text",
        "message": "No.",
    }


@pytest.mark.parametrize(
    "text", ['{"cid":"7","room":"a","text":1}', '{"type":"nope","cid":"7","room":"a"}']
)
def test_what_a_refused_frame_is_about_is_read_where_it_can_be(text: str) -> None:
    assert protocol.subject_of(text) == protocol.Subject("7", "a")


@pytest.mark.parametrize(
    "text", ["nope", "[]", "{}", '{"cid":7}', json.dumps({"cid": "x" * 65, "room": "a b"})]
)
def test_and_is_left_out_where_it_cannot(text: str) -> None:
    assert protocol.subject_of(text) == protocol.Subject()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("ada", "ada"),
        ("  Ada Lovelace\t", "Ada Lovelace"),
        ("x" * 32, "x" * 32),
        ("👩‍👩‍👧‍👦" * 10, "👩‍👩‍👧‍👦" * 10),
        ("é" * 32, "é" * 32),
        ("مريم", "مريم"),
        ("🦊", "🦊"),
        ("Zoe\u0308", "Zo\u00eb"),
        ("\u1112\u1161\u11ab", "\ud55c"),
    ],
)
def test_names_people_have(given: str, name: str) -> None:
    assert protocol.check_user(given) == name


@pytest.mark.parametrize(
    "user",
    [
        "",
        "   ",
        "x" * 33,
        "a\nb",
        "a\x00b",
        "a\x85b",
        "\u202eadmin",
        "a\u2066b",
        "a\u2028b",
        "\u200b\u200d",
        "\u3164",
        "\u2800",
        "e" + "́" * 200,
    ],
)
def test_names_nobody_can_tell_apart_or_read_are_refused(user: str) -> None:
    assert code_of(protocol.check_user, user) is ErrorCode.BAD_USER


@pytest.mark.parametrize("room", ["a", "lobby", "A-Z_0.9", "x" * 64, "..."])
def test_rooms(room: str) -> None:
    assert protocol.check_room(room) == room


@pytest.mark.parametrize("room", ["", "x" * 65, "a b", "a/b", "ü", "a\n", "lobby\0"])
def test_rooms_by_other_names_are_refused(room: str) -> None:
    assert code_of(protocol.check_room, room) is ErrorCode.BAD_ROOM


@pytest.mark.parametrize("cid", ["1", "x" * 64, "b9d5b5c6-9f1c-4d0e-8b7c-0d3c1b2a4f5e", "ü 1"])
def test_cids(cid: str) -> None:
    assert protocol.check_cid(cid) == cid


@pytest.mark.parametrize("cid", ["", "x" * 65, "a\nb"])
def test_other_cids_are_refused(cid: str) -> None:
    assert code_of(protocol.check_cid, cid) is ErrorCode.BAD_CID


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "two\nlines\tand a tab",
        "  ",
        "مرحبا",
        "a \u2067isolated\u2069 word",
        "👩‍👩‍👧‍👦" * 16,
        "x" * 100,
        "<b>bold</b>",
    ],
)
def test_texts(text: str) -> None:
    expected = ErrorCode.BAD_TEXT if not text.strip() else None
    assert code_of(protocol.check_text, text, LIMITS) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "\x85",
        "\x00\x07",
        "\u202e\u202c",
        "\u2069\u2066",
        "\u200b\u2060",
        "\u3164 \u2800",
        "e" + "\u0301" * 31,
        ("a" + "\u0301\u0323" * 100) * 10,
    ],
)
def test_texts_nobody_can_see_or_stack_are_refused(text: str) -> None:
    assert code_of(protocol.check_text, text, LIMITS) is ErrorCode.BAD_TEXT


@pytest.mark.parametrize(
    "text", ["x" * 101, "é" * 201, "👩‍👩‍👧‍👦" * 17, "e\u0301\u0300\u0302" * 70]
)
def test_texts_that_are_too_long_are_refused(text: str) -> None:
    assert code_of(protocol.check_text, text, LIMITS) is ErrorCode.TOO_LONG


@given(st.text())
def test_counting_characters_never_counts_more_than_there_are(text: str) -> None:
    assert protocol.graphemes(text) <= len(text)


def test_a_text_is_as_long_as_it_is_when_normalised() -> None:
    decomposed = "e\u0301" * 100
    assert len(decomposed.encode()) == 300
    limits = msgspec.structs.replace(LIMITS, text_bytes=200)
    assert protocol.check_text(decomposed, limits) == "\u00e9" * 100
    # This text grows: normalised, it has three characters.
    limits = msgspec.structs.replace(LIMITS, text_bytes=4)
    assert len("\U0001d160".encode()) == 4
    assert code_of(protocol.check_text, "\U0001d160", limits) is ErrorCode.TOO_LONG


def test_thirty_accents_are_allowed() -> None:
    assert protocol.check_text("e" + "\u0301" * 30, LIMITS) == "\u00e9" + "\u0301" * 29


@given(st.text(min_size=1, max_size=100).filter(lambda text: "\ud800" not in text))
def test_an_accepted_text_arrives_as_it_was_written_but_for_normalisation(text: str) -> None:
    if code_of(protocol.check_text, text, LIMITS) is None:
        kept = protocol.check_text(text, LIMITS)
        if not regex.search(r"[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]", text):
            assert kept == unicodedata.normalize("NFC", text)
        frame = protocol.encode(protocol.Message("r", "e:0:0", "u", kept, 0, "c"))
        assert msgspec.json.decode(frame)["text"] == kept


@given(st.text(max_size=40).filter(lambda text: "\ud800" not in text))
def test_an_accepted_name_or_text_is_accepted_again_as_it_is(text: str) -> None:
    for check in (protocol.check_user, lambda text: protocol.check_text(text, LIMITS)):
        if code_of(check, text) is None:
            assert check(check(text)) == check(text)
