"""Simulates what a power cut does to the log of a killed broker: the last batches of a partition
never reached the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from chat.relay.kafka.batches import read, split


def cut_tail(segment: Path, batches: int) -> None:
    """Cut up to this many batches off the end of a log file."""
    lengths = [len(batch.raw) for batch in split(segment.read_bytes())]
    os.truncate(segment, sum(lengths[: max(len(lengths) - batches, 0)]))


def records_in(segments: Iterable[Path]) -> Iterator[tuple[int, int, bytes]]:
    """Offset, time and value of the records in a partition's files, whatever their compression."""
    for segment in segments:
        for batch in split(segment.read_bytes()):
            for offset, value in read(batch, batch.first).values:
                yield offset, batch.time, value
