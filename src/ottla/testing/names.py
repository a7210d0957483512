"""What somebody may have meant who wrote a name that does not exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from difflib import SequenceMatcher
from heapq import nsmallest

# As many names of others as an error lists.
LISTED_MAX = 10
# What is compared, on the event loop of a broker: this costs some milliseconds at most.
COMPARED_MAX, COMPARED_LENGTH_MAX = 200, 50
# Of these, those with the most characters in common are compared in full, as long as all together have no
# more characters, and pairs of the same character in both names, than this: what the comparison goes through.
PAIRS_MAX = 8_000
# How alike two names must be, of 1.
ALIKE = 0.6


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``, in capitals or not; None if none is near.

    Of many names the first ones in their order are compared, and of long ones the beginnings.
    """
    some = nsmallest(COMPARED_MAX, known)
    by_folded = {one[:COMPARED_LENGTH_MAX].casefold(): one for one in some}
    start = name[:COMPARED_LENGTH_MAX].casefold()
    matcher, own = SequenceMatcher(b=start), Counter(start)
    at_most = []
    for folded in by_folded:
        matcher.set_seq1(folded)
        if matcher.real_quick_ratio() >= ALIKE and (ratio := matcher.quick_ratio()) >= ALIKE:
            at_most.append((ratio, folded))
    best: tuple[float, str] | None = None
    pairs = 0
    for most, folded in sorted(at_most, reverse=True):
        pairs += len(folded) + sum(map(own.__getitem__, folded))
        if pairs > PAIRS_MAX or (best is not None and most < best[0]):
            break
        matcher.set_seq1(folded)
        if (ratio := matcher.ratio()) >= ALIKE:
            best = (ratio, folded) if best is None else max(best, (ratio, folded))
    return None if best is None else by_folded[best[1]]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest of the known names; empty if none is near."""
    near = nearest(name, known)
    return "" if near is None else f" Did you mean {near!r}?"


def listed(names: Iterable[str]) -> str:
    """The names in quotes, the first few of many."""
    found = sorted(names)
    more = f" and {len(found) - LISTED_MAX} more" if len(found) > LISTED_MAX else ""
    return ", ".join(map(repr, found[:LISTED_MAX])) + more
