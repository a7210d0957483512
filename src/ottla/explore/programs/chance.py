"""Chance comes from the seed in a run, and is real elsewhere: `random`, `os.urandom`, `uuid`, `secrets`."""

from __future__ import annotations

import os
import random
import uuid
from typing import Any

_RealRandom = random.Random
_real_urandom = os.urandom
# Only Linux has it.
_real_getrandom: Any = getattr(os, "getrandom", None)
_DRAWN_BITS = 256
# That of the run which is under way; empty outside of one.
_sources: list[random.Random] = []


def urandom(size: int, /) -> bytes:
    """``os.urandom``, from the seed while a run is under way."""
    return _sources[-1].randbytes(size) if _sources else _real_urandom(size)


def getrandom(size: int, flags: int = 0) -> bytes:
    """``os.getrandom``, likewise."""
    return _sources[-1].randbytes(size) if _sources else _real_getrandom(size, flags)


class SeededRandom(_RealRandom):
    """``random.Random`` that draws its seed from the run where it is given none."""

    def __init__(self, x: Any = None) -> None:
        super().__init__(_drawn() if x is None else x)

    def seed(self, a: Any = None, version: int = 2) -> None:
        super().seed(_drawn() if a is None else a, version)


def _drawn() -> int | None:
    return _sources[-1].getrandbits(_DRAWN_BITS) if _sources else None


def install() -> None:
    """Put the sources in, for as long as this process lives. A second call changes nothing."""
    os.urandom = urandom
    if _real_getrandom is not None:
        os.getrandom = getrandom
    random.Random = SeededRandom  # type: ignore[misc]
    # What `secrets` and ``random.SystemRandom`` read.
    random._urandom = urandom  # type: ignore[attr-defined]


def begin(seed: int) -> Any:
    """All chance comes from ``seed`` from now on; the state of the module's own generator, for `end`."""
    before = random.getstate()
    # A file that is explored may have made one when it was imported, in real time.
    uuid._last_timestamp = None  # type: ignore[attr-defined]
    _sources.append(_RealRandom(f"{seed} programs"))
    random.seed(_drawn())
    return before


def end(before: Any) -> None:
    """Chance is real again."""
    _sources.pop()
    random.setstate(before)
