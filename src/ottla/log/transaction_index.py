"""The aborted transactions whose markers are in one segment (Kafka's TransactionIndex and AbortedTxn). Pure.

Entries stand in the order of the markers. Each tells the last stable offset at the time of its marker, which
ends a search: whatever is aborted later has no record before that. Offsets are absolute.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, NamedTuple, final

from ottla.types import Buffer

# Version, then AbortedTransaction's fields.
_ENTRY: Final = struct.Struct(">hqqqq")
ENTRY_BYTES: Final = 34
assert _ENTRY.size == ENTRY_BYTES
_VERSION: Final = 0
BLOCK_ENTRIES: Final = 256


class AbortedTransaction(NamedTuple):
    """One entry. ``last_offset``: its marker's."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


@final
class TransactionIndex:
    """The entries of a segment."""

    __slots__ = ("_firsts", "_lasts", "_least", "_producers", "_stables")

    def __init__(self) -> None:
        self._producers = array("q")
        self._firsts = array("q")
        self._lasts = array("q")
        self._stables = array("q")
        # Of every so many entries the least first offset: one transaction that was long open holds the stable
        # offset of all that were aborted meanwhile, which each look would go through otherwise.
        self._least = array("q")

    def __len__(self) -> int:
        return len(self._lasts)

    def __iter__(self) -> Iterator[AbortedTransaction]:
        return map(AbortedTransaction, self._producers, self._firsts, self._lasts, self._stables)

    def append(self, entry: AbortedTransaction) -> None:
        """An entry whose marker is behind all others."""
        producer_id, first_offset, last_offset, last_stable_offset = entry
        if len(self._firsts) % BLOCK_ENTRIES == 0:
            self._least.append(first_offset)
        elif first_offset < self._least[-1]:
            self._least[-1] = first_offset
        self._producers.append(producer_id)
        self._firsts.append(first_offset)
        self._lasts.append(last_offset)
        self._stables.append(last_stable_offset)

    def truncate_to(self, offset: int) -> bool:
        """Drop the entries whose markers are at ``offset`` or behind it; whether there were any."""
        count = bisect_left(self._lasts, offset)
        if count == len(self._lasts):
            return False
        del self._producers[count:], self._firsts[count:], self._lasts[count:], self._stables[count:]
        block = count // BLOCK_ENTRIES
        del self._least[block:]
        if count % BLOCK_ENTRIES:
            self._least.append(min(self._firsts[block * BLOCK_ENTRIES :]))
        return True

    def collect(self, found: list[tuple[int, int]], fetch_offset: int, upper_bound: int) -> bool:
        """Add (producer id, first offset) of those with records from the one offset on, up to before the
        other; whether no later segment has any more."""
        firsts, producers = self._firsts, self._producers
        count = bisect_left(self._stables, upper_bound)
        is_complete = count < len(firsts)
        end = count + 1 if is_complete else count
        number = bisect_left(self._lasts, fetch_offset)
        while number < end:
            block = number // BLOCK_ENTRIES
            block_end = min(end, (block + 1) * BLOCK_ENTRIES)
            if self._least[block] < upper_bound:
                for at in range(number, block_end):
                    if firsts[at] < upper_bound:
                        found.append((producers[at], firsts[at]))
            number = block_end
        # Where it is the entries before the first that is looked for that tell, there is nothing else either.
        return is_complete

    def overlapping(self, found: list[AbortedTransaction], start_offset: int, upper_bound: int) -> bool:
        """As ``collect``, whole entries."""
        for entry in self:
            if entry.last_offset >= start_offset and entry.first_offset < upper_bound:
                found.append(entry)
            if entry.last_stable_offset >= upper_bound:
                return True
        return False

    def encode(self) -> bytes:
        """The contents of a ``.txnindex`` file."""
        data = bytearray()
        for entry in self:
            data += encode_entry(entry)
        return bytes(data)

    @classmethod
    def decode(cls, data: Buffer, base_offset: int, end_offset: int) -> TransactionIndex | None:
        """From the file of a segment that has the offsets from the one to before the other; None where it
        makes no sense for that."""
        if len(data) % ENTRY_BYTES:
            return None
        index = cls()
        last_before, stable_before = base_offset - 1, -1
        for version, producer_id, first, last, stable in _ENTRY.iter_unpack(data):
            if (
                version != _VERSION
                or producer_id < 0
                or not last_before < last < end_offset
                or not 0 <= first <= last
                or not stable_before <= stable <= last + 1
            ):
                return None
            index.append(AbortedTransaction(producer_id, first, last, stable))
            last_before, stable_before = last, stable
        return index


def encode_entry(entry: AbortedTransaction) -> bytes:
    """An entry as it stands in a file."""
    return _ENTRY.pack(_VERSION, *entry)
