"""Seeds as they are written: `7`, `1..200`, `1..`."""

from __future__ import annotations

import re

_RANGE = re.compile(r"(\d{1,18})(?:(\.\.)(\d{1,18})?)?")


def first_and_last(text: str) -> tuple[int, int | None]:
    """The first and the last seed; None for the last one of a range without an end. ValueError."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no seed and no range of seeds such as 1..200.")
    first, has_range, end = int(found[1]), found[2], found[3]
    last = int(end) if end else None if has_range else first
    if last is not None and last < first:
        raise ValueError(f"{text}: the first seed is above the last one.")
    return first, last
