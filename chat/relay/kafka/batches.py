"""A parser for Kafka's record batches (message format 2) that reads only what the chat needs. No
I/O.

kafka-python creates some fifteen objects per record, and stops at the first record that it cannot
parse, every time: a header whose key is not UTF-8 is enough. Here a batch becomes offsets and
values, and unreadable records are counted.

The format: https://kafka.apache.org/39/documentation/#recordbatch
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import cramjam
import crc32c
from kafka.errors import CorruptRecordError

# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last
# timestamp, producer (id, epoch, sequence), number of records.
_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH_ENDS = 12
_MAGIC = 16
_CRC_BEGINS = 21
_CODEC = 0b111
_CONTROL = 0b100000
# Maximum size of a decompressed batch, which takes 10 ms. The chat's own batches have 64 KiB.
MOST_BYTES = 4 << 20
# The latest time that is before the year 10000 in every time zone.
_LATEST = 253_402_214_400_000
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER = 16


class RecordBatch(NamedTuple):
    """A batch whose records are not parsed yet.

    `time` is when the log stored it, in milliseconds since the epoch (in a topic that keeps the
    producers' times, the latest time of its records). It is 0 if the time is invalid or after the
    year 9999. `epoch` is that of the leader that stored it.
    """

    first: int
    last: int
    time: int
    epoch: int
    raw: memoryview


class Records(NamedTuple):
    """The contents of a batch: offsets and values. `unreadable` counts the skipped records. `keys`
    are those of the values, if they were asked for; a record without a key has an empty one.
    """

    values: list[tuple[int, bytes]]
    unreadable: int
    keys: Sequence[bytes] = ()


def split(buffer: bytes | memoryview) -> Iterator[RecordBatch]:
    """The batches of a fetch. A truncated last batch is skipped.

    Raises `CorruptRecordError` if the checksum of the first batch is wrong. If a later one is
    corrupt, the batches before it are returned, and the next fetch starts with it.
    """
    view = memoryview(buffer)
    at = 0
    while len(view) - at > _MAGIC:
        base, length = struct.unpack_from(">qi", view, at)
        end = at + _LENGTH_ENDS + length
        if not at + _MAGIC < end <= len(view):
            return
        raw = view[at:end]
        at = end
        if raw[_MAGIC] != 2:
            # Brokers from 3.0 on write only this format. In an older format, this is the last
            # offset.
            yield RecordBatch(base, base, 0, -1, raw)
            continue
        if len(raw) < _HEADER.size or not _is_intact(raw):
            if end > len(raw):
                return
            raise CorruptRecordError(f"offset {base}: the checksum of the batch is wrong")
        header = _HEADER.unpack_from(raw)
        time = header[8] if 0 < header[8] <= _LATEST else 0
        yield RecordBatch(base, base + header[6], time, header[2], raw)


def _is_intact(raw: memoryview) -> bool:
    checksum: int = _HEADER.unpack_from(raw)[4]
    return crc32c.crc32c(raw[_CRC_BEGINS:]) == checksum


def read(batch: RecordBatch, start: int, *, keyed: bool = False) -> Records:
    """Parse the records of a batch from offset `start` on, with their keys if `keyed`. They may
    contain anything.
    """
    raw = batch.raw
    if raw[_MAGIC] != 2:
        return Records([], 1)
    header = _HEADER.unpack_from(raw)
    attributes, left = header[5], header[12]
    values: list[tuple[int, bytes]] = []
    keys: list[bytes] = []
    if attributes & _CONTROL:
        # A transaction marker, not a record.
        return Records(values, 0)
    try:
        codec = attributes & _CODEC
        data = bytes(raw[_HEADER.size :])
        if codec:
            data = _UNPACK[codec](data)
        at, offset = 0, batch.first - 1
        while left > 0:
            length, at = _varint(data, at)
            end = at + length
            # Attributes have no meaning yet; the time is the batch's.
            _, at = _varint(data, at + 1)
            delta, at = _varint(data, at)
            key_length, key_begins = _varint(data, at)
            at = key_ends = key_begins + max(key_length, 0)
            value_length, at = _varint(data, at)
            value_end = at + max(value_length, 0)
            if not at <= value_end <= end <= len(data):
                raise IndexError
            # Brokers check the offsets of batches, but not those of the records in them.
            if not offset < batch.first + delta <= batch.last:
                raise IndexError
            offset = batch.first + delta
            if offset >= start:
                values.append((offset, data[at:value_end]))
                if keyed:
                    keys.append(data[key_begins:key_ends])
            # Skip the headers.
            at = end
            left -= 1
    except (IndexError, KeyError, struct.error, cramjam.DecompressionError):
        # The length of a record tells where the next one starts, so the rest is unreadable.
        return Records(values, max(left, 1), keys)
    return Records(values, 0, keys)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A Kafka varint (zigzag, seven bits per byte), and the offset after it."""
    byte = data[at]
    if byte < 128:
        return (byte >> 1) ^ -(byte & 1), at + 1
    value = byte & 127
    shift = 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at + 1
        shift += 7
        if shift > 63:
            raise IndexError


def _within_bounds(unpack: Callable[[bytes, mmap.mmap], int]) -> Callable[[bytes], bytes]:
    def unpacked(data: bytes) -> bytes:
        # Unwritten pages of an mmap take no memory; a bytearray would be zeroed.
        room = mmap.mmap(-1, MOST_BYTES)
        return bytes(memoryview(room)[: unpack(data, room)])

    return unpacked


def _unpack_snappy(data: bytes) -> bytes:
    """Raw Snappy, or the blocks of the Java library that most producers use."""
    unpack = _within_bounds(cramjam.snappy.decompress_raw_into)
    if not data.startswith(_XERIAL):
        return unpack(data)
    blocks = []
    at, size = _XERIAL_HEADER, 0
    while at < len(data):
        (length,) = struct.unpack_from(">i", data, at)
        at += 4
        if length < 0:
            raise IndexError
        blocks.append(unpack(data[at : at + length]))
        at += length
        size += len(blocks[-1])
        if size > MOST_BYTES:
            raise IndexError
    return b"".join(blocks)


_UNPACK: Mapping[int, Callable[[bytes], bytes]] = {
    1: _within_bounds(cramjam.gzip.decompress_into),
    2: _unpack_snappy,
    3: _within_bounds(cramjam.lz4.decompress_into),
    4: _within_bounds(cramjam.zstd.decompress_into),
}
