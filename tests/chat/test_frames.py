"""The frame parser alone. The rules of RFC 6455, case by case, are in test_rfc6455.py."""

from __future__ import annotations

import fuzz
import pytest
from fuzz import read
from hypothesis import given
from hypothesis import strategies as st
from test_rfc6455 import begin, close, fragments, frame, go_on, more, ping, pong, text
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from chat.websocket.frames import (
    PING,
    Close,
    Parser,
    Ping,
    Pong,
    Violation,
    close_frame,
    pong_frame,
    text_frame,
)


@st.composite
def messages(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Texts, each with its frames: fragmented, with pings in between."""
    said = []
    for words in draw(st.lists(st.text(max_size=200), max_size=5)):
        payload = words.encode()
        size = draw(st.integers(1, len(payload) + 1))
        said.append((words, fragments(payload, size) if payload else text()))
    return said


@given(messages(), st.lists(st.integers(0, 5000), max_size=8))
def test_texts_come_out_as_they_went_in_however_they_are_cut(
    said: list[tuple[str, bytes]], places: list[int]
) -> None:
    data = b"".join(frames for _, frames in said)
    parser = Parser(1000)
    events = []
    cuts = sorted(place for place in places if place < len(data))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        events += read(parser, data[start:end])
    assert events == [words for words, _ in said]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_any_bytes_mean_the_same_however_they_are_cut(data: bytes, places: list[int]) -> None:
    fuzz.check_frames(data, sorted(place for place in places if place <= len(data)))


def test_events_are_what_they_say() -> None:
    parser = Parser(1000)
    assert read(parser, ping(b"a") + pong(b"b") + text(b"c") + close(1001, b"d")) == [
        Ping(b"a"),
        Pong(b"b"),
        "c",
        Close(1001, "d"),
    ]
    assert read(parser, text(b"after the end")) == []
    assert read(Parser(1000), close(None)) == [Close(None, "")]


def test_what_came_before_a_violation_counts() -> None:
    (said, broken) = read(Parser(1000), text(b"fine") + frame(3))
    assert said == "fine"
    assert isinstance(broken, Violation)
    assert broken == (1002, "unknown opcode")


@pytest.mark.parametrize("size", [0, 125, 126, 1000])
def test_the_limit_is_the_largest_message(size: int) -> None:
    for frames in (text(b"x" * size), begin(b"x" * (size // 2)) + more(b"x" * (size - size // 2))):
        assert read(Parser(size), frames) == ["x" * size]
    for frames in (text(b"x" * (size + 1)), begin(b"x" * size) + go_on(b"x")):
        assert read(Parser(size), frames)[0][0] == 1009


@given(st.integers(1000, 4999), st.text(max_size=200))
def test_a_close_frame_holds_as_much_of_its_reason_as_fits(code: int, reason: str) -> None:
    frames = close_frame(code, reason)
    assert frames[:2] == bytes([0x88, len(frames) - 2])
    assert len(frames) <= 127
    assert frames[2:4] == code.to_bytes(2, "big")
    assert reason.startswith(frames[4:].decode())
    assert len(frames) > 120 or frames[4:].decode() == reason


@pytest.mark.parametrize(
    ("frames", "opcode", "payload"),
    [
        (PING, Opcode.PING, b""),
        (pong_frame(b"x" * 125), Opcode.PONG, b"x" * 125),
        (close_frame(None), Opcode.CLOSE, b""),
        (text_frame(b"x" * 125), Opcode.TEXT, b"x" * 125),
        (text_frame(b"x" * 65_536), Opcode.TEXT, b"x" * 65_536),
    ],
)
def test_another_implementation_reads_what_we_build(
    frames: bytes, opcode: Opcode, payload: bytes
) -> None:
    reader = StreamReader()
    reader.feed_data(frames)
    parsing = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    read: Frame = done.value.value
    assert (read.opcode, read.fin, bytes(read.data)) == (opcode, True, payload)
