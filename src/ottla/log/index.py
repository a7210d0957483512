"""Sparse indexes of a segment, in memory and in Kafka's file format (OffsetIndex, TimeIndex).

An offset index maps the last offset of a batch to where the batch begins; a time index maps the largest
timestamp so far to the last offset of the first batch that has it. Both hold one entry for about every
``index.interval.bytes`` of log, with offsets relative to the segment's base offset, all big-endian.

Kafka preallocates the files of the active segment with zeros and trims them when it rolls or closes. We hold
the entries in memory and write them when a segment is flushed, rolled or closed: whatever is newer is rebuilt
from the log after a crash in any case. A zero tail that Kafka left behind is cut off when it is read.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from operator import le, lt
from typing import Final

OFFSET_ENTRY_BYTES: Final = 8
TIME_ENTRY_BYTES: Final = 12
RELATIVE_OFFSET_MAX: Final = 2**31 - 1

_OFFSET_ENTRY: Final = struct.Struct(">ii")
_TIME_ENTRY: Final = struct.Struct(">qi")


def _increases(values: array[int], strictly: bool = True) -> bool:
    return all(map(lt if strictly else le, values, values[1:]))


def _without_zero_tail(data: bytes, entry_bytes: int) -> bytes:
    """Whole entries only, without preallocated zeros after the last one that was written."""
    used = len(data.rstrip(b"\0"))
    entries = min(-(-used // entry_bytes), len(data) // entry_bytes)
    return data[: entries * entry_bytes]


class OffsetIndex:
    """Relative offset → position, strictly increasing."""

    __slots__ = ("base_offset", "offsets", "positions")

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self.offsets = array("i")
        self.positions = array("i")

    def __len__(self) -> int:
        return len(self.offsets)

    def append(self, last_offset: int, position: int) -> None:
        self.offsets.append(last_offset - self.base_offset)
        self.positions.append(position)

    def lookup(self, offset: int) -> int:
        """Where to start looking for ``offset``: at an indexed batch that ends at or before it."""
        slot = bisect_right(self.offsets, min(offset - self.base_offset, RELATIVE_OFFSET_MAX))
        return self.positions[slot - 1] if slot else 0

    def truncate_to(self, offset: int) -> None:
        """Forget the entries at and after ``offset``."""
        keep = bisect_right(self.offsets, offset - self.base_offset - 1)
        del self.offsets[keep:], self.positions[keep:]

    def encode(self, start: int = 0) -> bytes:
        """The entries from number ``start`` on, as on disk. Entries may come and go meanwhile."""
        offsets, positions = self.offsets[start:], self.positions[start:]
        count = min(len(offsets), len(positions))
        interleaved = array("i", bytes(OFFSET_ENTRY_BYTES * count))
        interleaved[0::2], interleaved[1::2] = offsets[:count], positions[:count]
        if sys.byteorder == "little":
            interleaved.byteswap()
        return interleaved.tobytes()

    @classmethod
    def decode(cls, base_offset: int, data: bytes | None, log_bytes: int) -> OffsetIndex | None:
        """From a file's contents; None where it cannot belong to a log of ``log_bytes``: to be rebuilt."""
        if data is None:
            return None
        index = cls(base_offset)
        interleaved = array("i", _without_zero_tail(data, OFFSET_ENTRY_BYTES))
        if sys.byteorder == "little":
            interleaved.byteswap()
        index.offsets, index.positions = interleaved[0::2], interleaved[1::2]
        if not len(index):
            return index
        sound = (
            index.offsets[0] >= 0
            and index.positions[0] >= 0
            and index.positions[-1] < log_bytes
            and _increases(index.offsets)
            and _increases(index.positions)
        )
        return index if sound else None


def decode_offset_entry(base_offset: int, entry: bytes) -> tuple[int, int]:
    """The offset and position of one entry of an offset index's file."""
    offset, position = _OFFSET_ENTRY.unpack(entry)
    return base_offset + offset, position


def decode_time_entry(base_offset: int, entry: bytes) -> tuple[int, int]:
    """The timestamp and offset of one entry of a time index's file."""
    timestamp_ms, offset = _TIME_ENTRY.unpack(entry)
    return timestamp_ms, base_offset + offset


class TimeIndex:
    """Timestamp → relative offset; timestamps strictly increasing, offsets never decreasing."""

    __slots__ = ("base_offset", "offsets", "timestamps")

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self.timestamps = array("q")
        self.offsets = array("i")

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def last(self) -> tuple[int, int]:
        """The last entry's timestamp and offset; (-1, base offset) where there is none."""
        if not self.offsets:
            return -1, self.base_offset
        return self.timestamps[-1], self.base_offset + self.offsets[-1]

    def maybe_append(self, timestamp_ms: int, offset: int) -> None:
        """Add an entry where its timestamp is larger than the last one's."""
        if timestamp_ms > (self.timestamps[-1] if self.timestamps else -1):
            self.timestamps.append(timestamp_ms)
            self.offsets.append(offset - self.base_offset)

    def lookup(self, timestamp_ms: int) -> tuple[int, int]:
        """The last entry at or before a time; (-1, base offset) where there is none."""
        slot = bisect_right(self.timestamps, timestamp_ms)
        if not slot:
            return -1, self.base_offset
        return self.timestamps[slot - 1], self.base_offset + self.offsets[slot - 1]

    def truncate_to(self, offset: int) -> None:
        """Forget the entries at and after ``offset``."""
        keep = bisect_right(self.offsets, offset - self.base_offset - 1)
        del self.offsets[keep:], self.timestamps[keep:]

    def encode(self, start: int = 0) -> bytes:
        """The entries from number ``start`` on, as on disk."""
        return b"".join(map(_TIME_ENTRY.pack, self.timestamps[start:], self.offsets[start:]))

    @classmethod
    def decode(cls, base_offset: int, data: bytes | None) -> TimeIndex | None:
        """From a file's contents; None where it cannot be right."""
        if data is None:
            return None
        index = cls(base_offset)
        if len(data) != TIME_ENTRY_BYTES:
            # A single entry may well be zeros: time 0 at the base offset.
            data = _without_zero_tail(data, TIME_ENTRY_BYTES)
        # Twelve bytes are three words: a timestamp's upper and lower half, and an offset.
        words = array("I", data)
        little_endian = sys.byteorder == "little"
        if little_endian:
            words.byteswap()
        halves = array("I", bytes(len(words) // 3 * 8))
        halves[0::2], halves[1::2] = words[1::3], words[0::3]
        if not little_endian:
            halves[0::2], halves[1::2] = words[0::3], words[1::3]
        index.timestamps = array("q", halves.tobytes())
        index.offsets = array("i", words[2::3].tobytes())
        if not len(index):
            return index
        sound = (
            index.offsets[0] >= 0
            and index.timestamps[0] >= 0
            and _increases(index.timestamps)
            and _increases(index.offsets, strictly=False)
        )
        return index if sound else None
