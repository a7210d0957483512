"""Blocks of producer ids: which one is next (pure; KIP-730)."""

from __future__ import annotations

from collections.abc import Collection

# As Kafka's ProducerIdsBlock.
PRODUCER_IDS_PER_BLOCK = 1_000
# How far ahead of those that were given an id may be for somebody to have been given it before the metadata
# was set back: more than a cluster ever gives. One that is further away was made up by a client; there would
# soon be none left if each start went on behind such a one.
PRODUCER_IDS_AHEAD_MAX = 2**40


def next_block(first: int, known: Collection[int]) -> range:
    """The ids to give next, from ``first`` on as far as the metadata knows.

    Where there are ``known`` ones in logs it is behind them, and empty if ``first`` is so anyway.
    """
    if known:
        last = max((each for each in known if each < first + PRODUCER_IDS_AHEAD_MAX), default=-1)
        if last < first:
            return range(0)
        first = last + 1
    return range(first, first + PRODUCER_IDS_PER_BLOCK)
