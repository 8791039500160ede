"""Feeds unusual bytes to all code that parses input from strangers: `fuzz.py 1000000 [TARGET...]`.

`frames` are bytes from clients, and `messages` the JSON in a client's text message. `records` and
`signals` are what anybody may write to Kafka's topics, and `batches` is Kafka's own format around
them. Inputs come from the target's corpus, mutated and spliced at random. Only documented
exceptions may leave the code, and each target checks its own invariants. An input that makes the
code say something new joins the corpus of this run, and with `--keep` also the one in
tests/chat/corpus/, which the tests read first.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import msgspec
from kafka.errors import CorruptRecordError

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from chat import protocol
from chat.presence import Presence
from chat.protocol import Limits, RefusedError
from chat.relay.kafka import batches, record
from chat.websocket.frames import Close, Event, Fragment, Parser, Violation

CORPUS = Path(__file__).parent / "corpus"
FRAME_LIMIT = 300
# Maximum size of an input.
MOST_BYTES = 2048
# Sizes and bytes at which a frame changes its meaning.
EDGES = bytes([0, 1, 2, 8, 9, 10, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0x88, 0x89, 0xC3, 0xED, 0xF4, 0xFE])
# JSON details that parsers easily get wrong.
PIECES = [
    *(b'"\\ud83d"', b"\\udc00", b"\\u0000", b"\\u202e", b"\xff\xfe", b"\xed\xa0\xbd", b"\xf0\x9f"),
    *(b"null", b"-1", b"1e999", b"-0", b"18446744073709551616", b"0.1", b"[]", b"{}", b'"', b"\\"),
    *(b"[" * 1500, b'{"v":' * 300, b"x" * 65, b'"v":2,', b'"type":"gone",', b"\xef\xbb\xbf"),
]
ODD_VALUES: list[Any] = [
    *(None, True, 0, -1, 2, 2**63, 2**64, 10**30, 0.5, [], {}, [[]], {"": ""}, "", " ", "\x00"),
    *("\ud83d", "\u2800", "\u202e", "e" + "\u0301" * 40, "x" * 65, "x" * 300, "0" * 32, "ada"),
]

# Fields of a record batch: its length, its checksum, and the start of the checked bytes.
LENGTH, CHECKSUM, CHECKED_FROM = slice(8, 12), slice(17, 21), 21

# What the code said about an input. Two inputs with equal values are of one kind.
Said = frozenset[str]


@dataclass(frozen=True)
class Target:
    """`check` raises `AssertionError`, or any exception that the code should not have raised."""

    name: str
    check: Callable[[bytes, random.Random], Said]
    json: bool = True

    def corpus(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]


def read(parser: Parser, data: bytes) -> list[Event]:
    """All events that `data` completes, without fragments."""
    parser.feed(data)
    return [event for event in iter(parser.next, None) if not isinstance(event, Fragment)]


def check_frames(data: bytes, cuts: list[int]) -> list[Event]:
    """Parse `data` as a whole and in pieces; raises AssertionError if the results differ."""
    whole = read(Parser(FRAME_LIMIT), data)
    parser = Parser(FRAME_LIMIT)
    pieces: list[Event] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        pieces += read(parser, data[start:end])
        assert len(parser._data) <= 130
        assert len(parser._message) <= FRAME_LIMIT
    assert whole == pieces, (data, cuts)
    for event in whole[:-1]:
        assert not isinstance(event, Close | Violation), data
    return whole


def _frames(data: bytes, dice: random.Random) -> Said:
    cuts = sorted(dice.randint(0, len(data)) for _ in range(dice.randint(1, 3)))
    return frozenset(
        event.reason if isinstance(event, Violation) else type(event).__name__
        for event in check_frames(data, cuts)
    )


LIMITS = Limits(1000, 500, 100, 10, 20, 100, 100)


def check_message(data: bytes) -> Said:
    """Read a client's message as a session does. The result is a refusal or a valid frame."""
    text = data.decode(errors="replace")
    said = set()
    subject = protocol.subject_of(text)
    said.add(f"subject {subject.cid is None} {subject.room is None}")
    try:
        frame = protocol.decode(text)
        said.add(type(frame).__name__)
        match frame:
            case protocol.Hello(user):
                user = protocol.check_user(user)
                assert protocol.check_user(user) == user
                protocol.encode(protocol.Welcome(1, user, "replica", LIMITS))
            case protocol.Send(room, words, cid):
                words = protocol.check_text(words, LIMITS)
                assert protocol.check_text(words, LIMITS) == words
                assert len(words.encode()) <= LIMITS.text_bytes
                protocol.encode(
                    protocol.Error(
                        protocol.ErrorCode.BAD_TEXT,
                        "",
                        protocol.check_cid(cid),
                        protocol.check_room(room),
                    )
                )
            case protocol.Join(room, since):
                protocol.check_room(room)
                if since is not None and (position := protocol.Position.parse(since)):
                    assert protocol.Position.parse(str(position)) == position
            case protocol.History(room, before):
                protocol.check_room(room)
                protocol.Position.parse(before)
    except RefusedError as refused:
        said.add(f"{refused.code} {_kind(refused.message)}")
        protocol.encode(protocol.Error(refused.code, refused.message, subject.cid, subject.room))
    return frozenset(said)


def check_record(data: bytes) -> Said:
    """Read a record. A valid one must survive encoding and decoding."""
    read = record.decode(data)
    if isinstance(read, record.Record):
        assert record.decode(record.encode(read)) == read, data
    return frozenset([type(read).__name__, _complaint(data)])


class Signals:
    """Signals of another replica, received by one that keeps its state between signals."""

    def __init__(self) -> None:
        self._heard = 0
        self._begin()

    def _begin(self) -> None:
        self._presence = Presence(heartbeat=5.0, shown=100, typing=6.0, hold=300.0, elsewhere=1000)

    def check(self, data: bytes) -> Said:
        """Process a signal, and send presence to people here."""
        self._heard += 1
        if self._heard % 1000 == 0:
            self._begin()
        presence, now, foreign = self._presence, self._heard / 10, self._presence.foreign
        presence.heard(data, now)
        presence.expire(now)
        for room in presence.due(now):
            # The order matters: an empty room is removed with its last changes.
            protocol.encode(presence.whole(room))
            protocol.encode(presence.changes(room, now))
        assert presence.replicas <= 1001
        return frozenset([str(presence.foreign - foreign), _complaint(data)])


def check_batch(data: bytes) -> Said:
    """Read a batch of records as a broker may send it: with the correct length and checksum, and
    arbitrary content.
    """
    sealed = bytearray(data)
    if len(sealed) > CHECKED_FROM:
        sealed[LENGTH] = (len(sealed) - LENGTH.stop).to_bytes(4, "big")
        sealed[CHECKSUM] = crc32c.crc32c(sealed[CHECKED_FROM:]).to_bytes(4, "big")
    said = set()
    try:
        for batch in batches.split(sealed):
            found = batches.read(batch, 0)
            assert sum(len(value) for _, value in found.values) <= batches.MOST_BYTES
            said |= {f"{len(found.values)} read" if found.values else "nothing read"}
            said |= {"some unreadable"} if found.unreadable else set()
    except CorruptRecordError as error:
        said.add(_kind(str(error)))
    return frozenset(said)


def _complaint(data: bytes) -> str:
    """Why `data` is invalid as JSON, or the kind of value it contains."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return f"{type(error).__name__} {_kind(str(error))}"
    if isinstance(value, dict):
        return " ".join(sorted({type(item).__name__ for item in value.values()}))
    return type(value).__name__


def _kind(words: str) -> str:
    """The text of an error without the parts that quote the input."""
    return re.sub(r"[^a-zA-Z ]|\$.*|'.*'|`.*`", "", words, flags=re.DOTALL)[:40]


_signals = Signals()
TARGETS = {
    target.name: target
    for target in (
        Target("frames", _frames, json=False),
        Target("messages", lambda data, _: check_message(data)),
        Target("batches", lambda data, _: check_batch(data), json=False),
        Target("records", lambda data, _: check_record(data)),
        Target("signals", lambda data, _: _signals.check(data)),
    )
}


def change(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """`data`, mutated in one to four places."""
    result = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randint(0, len(result))
        match dice.randrange(6):
            case 0 if at < len(result):
                result[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(result):
                result[at] = dice.choice(EDGES)
            case 2:
                del result[at : at + dice.randint(1, 8)]
            case 3:
                result[at:at] = dice.randbytes(dice.randint(1, 8))
            case 4:
                result[at:at] = dice.choice(others)
            case _:
                result[at:] = dice.choice(others)[-dice.randint(1, 16) :]
    return bytes(result[:MOST_BYTES])


def change_json(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """`data` with some values replaced, or with pieces of JSON in wrong places."""
    if dice.random() < 0.6:
        with contextlib.suppress(ValueError, RecursionError):
            value = _change_value(json.loads(data), dice)
            data = json.dumps(value, ensure_ascii=dice.random() < 0.5).encode(
                errors="surrogatepass"
            )
    elif dice.random() < 0.5:
        at = dice.randint(0, len(data))
        data = data[:at] + dice.choice(PIECES) + data[at + dice.randint(0, 4) :]
    else:
        data = change(data, others, dice)
    return data[:MOST_BYTES]


def _change_value(value: Any, dice: random.Random) -> Any:
    """`value` with a change somewhere in it."""
    if dice.random() < 0.2 or not value or not isinstance(value, dict | list):
        return dice.choice(ODD_VALUES)
    if isinstance(value, list):
        at = dice.randrange(len(value))
        return [*value[:at], _change_value(value[at], dice), *value[at + 1 :]]
    key = dice.choice(list(value))
    changed = dict(value)
    match dice.randrange(4):
        case 0:
            del changed[key]
        case 1:
            changed[str(dice.choice(ODD_VALUES))] = changed.pop(key)
        case _:
            changed[key] = _change_value(value[key], dice)
    return changed


def fuzz(target: Target, inputs: int, seed: int) -> list[bytes]:
    """Try this many inputs. Returns those that made the code say something new."""
    dice = random.Random(seed)
    known = target.corpus()
    seen = {target.check(data, dice) for data in known}
    found = []
    for _ in range(inputs):
        data = (change_json if target.json else change)(dice.choice(known), known, dice)
        try:
            said = target.check(data, dice)
        except Exception as error:
            error.add_note(f"{target.name}: {data!r}")
            raise
        if said not in seen:
            seen.add(said)
            known.append(data)
            found.append(data)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", type=int)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (all)")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--keep", action="store_true", help="add new inputs to the corpus")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - TARGETS.keys():
        parser.error(f"no target is called {min(unknown)!r}; there are: {', '.join(TARGETS)}")
    for name in asked.targets or TARGETS:
        start = time.monotonic()
        found = fuzz(TARGETS[name], asked.inputs, asked.seed)
        for data in found if asked.keep else ():
            (CORPUS / name / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        print(
            f"{name}: {asked.inputs} inputs in {time.monotonic() - start:.0f} s,"
            f" seed {asked.seed}: no crash, {len(found)} that said something new",
            flush=True,
        )


if __name__ == "__main__":
    main()
