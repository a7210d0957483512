"""Work in pieces: generators that yield where other work may have its turn, and return what comes of it.

``env.slices`` gives others their turn at each of these places; where there is little to do, nobody needs one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def whole(pieces: Generator[None, None, T]) -> T:
    """What a generator returns, all of its pieces done at once: for what is not much."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            result: T = end.value
            return result
