"""Whatever strangers send or write to the log, no exception leaves the code that parses it.

These tests run a few thousand inputs per target; `tests/chat/fuzz.py` runs any number.
"""

from __future__ import annotations

import json
from typing import Any

import fuzz
import pytest
from fuzz import TARGETS, Target
from hypothesis import given
from hypothesis import strategies as st

RECORD = {"v": 1, "room": "lobby", "user": "ada", "text": "hello", "cid": "c-1"}
SEND = {"type": "send", "room": "lobby", "text": "hello", "cid": "c-1"}
CHANGES = {
    "type": "changes",
    "v": 1,
    "replica": "0" * 32,
    "seq": 1,
    "joined": {"lobby": {"ada": ["0123456789abcdef", 1]}},
    "left": {"lobby": ["grace"]},
    "typing": {"lobby": ["ada"]},
}

# Includes single surrogates, which JSON can express.
characters = st.text(
    st.characters() | st.sampled_from("\ud83d\udc00\x00\u2028\u202e\u2800\u0301"), max_size=80
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | characters,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(characters, inner, max_size=3),
    max_leaves=5,
)


def nearly(what: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """JSON of `what`, with some fields missing or with other values, and with additional fields."""
    kept = {key: st.just(value) | values for key, value in what.items()}
    changed = st.fixed_dictionaries({}, optional=kept)
    return st.builds(
        lambda more, fields, escape: json.dumps(more | fields, ensure_ascii=escape).encode(
            errors="surrogatepass"
        ),
        st.dictionaries(characters, values, max_size=2),
        changed,
        st.booleans(),
    )


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_the_corpus_and_what_is_near_it_raise_nothing(target: Target) -> None:
    fuzz.fuzz(target, 5_000, seed=1)


@given(nearly(SEND) | st.binary(max_size=400))
def test_a_message_is_refused_or_of_use(data: bytes) -> None:
    fuzz.check_message(data)


@given(nearly(RECORD) | st.binary(max_size=400))
def test_a_record_is_read_or_skipped(data: bytes) -> None:
    fuzz.check_record(data)


@given(st.lists(nearly(CHANGES) | st.binary(max_size=400), max_size=5))
def test_a_signal_is_heard_or_counted_as_foreign(signals: list[bytes]) -> None:
    listener = fuzz.Signals()
    for signal in signals:
        listener.check(signal)
