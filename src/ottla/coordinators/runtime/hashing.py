"""Which partition of an internal topic a name belongs to: by Java's hash of the name, as in Kafka."""

from __future__ import annotations

import sys
from array import array
from functools import lru_cache
from operator import mul

# Hashes that are kept at hand, of names up to this length: longer ones are nobody's habit, and would fill the
# memory.
HASH_CACHE_SIZE = 10_000
CACHED_LENGTH_MAX = 256

# 31 to the power of 0, 1, 2 ... modulo 2**32, as far as they were needed.
_powers = [1]


def java_hash(text: str) -> int:
    """Java's String.hashCode: over UTF-16 code units, as a signed 32-bit integer."""
    return _cached_hash(text) if len(text) <= CACHED_LENGTH_MAX else _hash(text)


def _hash(text: str) -> int:
    units = array("H")
    units.frombytes(text.encode("utf-16-le", "surrogatepass"))
    if sys.byteorder == "big":
        units.byteswap()
    while len(_powers) < len(units):
        _powers.append(_powers[-1] * 31 & 0xFFFFFFFF)
    units.reverse()
    value: int = sum(map(mul, units, _powers)) & 0xFFFFFFFF
    return value - 2**32 if value >= 2**31 else value


_cached_hash = lru_cache(maxsize=HASH_CACHE_SIZE)(_hash)


def partition_of(text: str, partition_count: int) -> int:
    """The partition that a name belongs to (Kafka's Utils.abs: the most negative integer counts as 0)."""
    value = java_hash(text)
    return 0 if value == -(2**31) else abs(value) % partition_count
