"""Throws bytes at the parser of frames: `python tests/chat/fuzz_frames.py 1000000`.

Inputs are those of the corpus, changed and spliced at random. Each is read as a whole and again in
pieces; both must say the same, without an exception, within the parser's bounds. An input that
makes the parser say something new (which events, how it ended) joins the corpus of this run, and
with `--keep` the one in tests/chat/corpus/, which the tests read first.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from chat.websocket.frames import Close, Event, Parser, Violation

CORPUS = Path(__file__).parent / "corpus" / "frames"
LIMIT = 300
# Sizes and bytes at which something changes.
EDGES = bytes([0, 1, 2, 8, 9, 10, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0x88, 0x89, 0xC3, 0xED, 0xF4, 0xFE])


def corpus() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.iterdir())]


def check(data: bytes, cuts: list[int]) -> list[Event]:
    """What the parser makes of `data`; raises AssertionError if it depends on the pieces."""
    whole = Parser(LIMIT).feed(data)
    parser = Parser(LIMIT)
    pieces: list[Event] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        pieces += parser.feed(data[start:end])
        assert len(parser._held) <= 130
        assert sum(len(text.encode()) for text in parser._texts) <= LIMIT
    assert whole == pieces, (data, cuts)
    for event in whole[:-1]:
        assert not isinstance(event, Close | Violation), data
    return whole


def signature(events: list[Event]) -> frozenset[str]:
    """What an input makes the parser say, whatever the order."""
    return frozenset(
        event.reason if isinstance(event, Violation) else type(event).__name__ for event in events
    )


def change(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """`data`, changed in one to four places."""
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
    return bytes(result[:2048])


def fuzz(inputs: int, seed: int) -> list[bytes]:
    """Try so many inputs; returns those that made the parser say something new."""
    dice = random.Random(seed)
    known = corpus()
    seen = {signature(check(data, list(range(1, len(data))))) for data in known}
    found = []
    for _ in range(inputs):
        data = change(dice.choice(known), known, dice)
        cuts = sorted(dice.randint(0, len(data)) for _ in range(dice.randint(1, 3)))
        new = signature(check(data, cuts))
        if new not in seen:
            seen.add(new)
            known.append(data)
            found.append(data)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", type=int)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--keep", action="store_true", help="add what is new to the corpus")
    asked = parser.parse_args()
    start = time.monotonic()
    found = fuzz(asked.inputs, asked.seed)
    for data in found if asked.keep else ():
        (CORPUS / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    print(
        f"{asked.inputs} inputs in {time.monotonic() - start:.0f} s, seed {asked.seed}:"
        f" no crash, {len(found)} that said something new"
    )


if __name__ == "__main__":
    main()
