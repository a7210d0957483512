"""Sets of characters that Java's regular expressions have names for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

LAST: Final = 0x10FFFF

Range = tuple[int, int]


@final
class CharacterSet:
    """Characters from some ranges of code points."""

    __slots__ = ("ranges",)

    def __init__(self, ranges: Iterable[Range]) -> None:
        # In order, and apart from each other.
        self.ranges: tuple[Range, ...] = _merge(ranges)

    def __contains__(self, character: str) -> bool:
        code = ord(character)
        return any(low <= code <= high for low, high in self.ranges)

    @property
    def first(self) -> int:
        return self.ranges[0][0]

    @property
    def is_one(self) -> bool:
        return self.ranges == ((self.first, self.first),)

    def inverted(self) -> CharacterSet:
        gaps, begin = [], 0
        for low, high in self.ranges:
            if begin < low:
                gaps.append((begin, low - 1))
            begin = high + 1
        if begin <= LAST:
            gaps.append((begin, LAST))
        return CharacterSet(gaps)

    def in_any_case(self) -> CharacterSet:
        """With the other case of each letter of ASCII, as Java ignores case."""
        more = []
        for low, high in self.ranges:
            for first, last, distance in ((65, 90, 32), (97, 122, -32)):
                if max(low, first) <= min(high, last):
                    more.append((max(low, first) + distance, min(high, last) + distance))
        return CharacterSet((*self.ranges, *more))


def one(character: str) -> CharacterSet:
    return CharacterSet(((ord(character), ord(character)),))


def _merge(ranges: Iterable[Range]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _of(*parts: str) -> CharacterSet:
    """Of single characters and ranges such as ``a-z``."""
    return CharacterSet((ord(part[0]), ord(part[-1])) for part in parts)


_LINE_ENDS: Final = _of("\n", "\r", "\x85", "\u2028", "\u2029")
ANY: Final = CharacterSet(((0, LAST),))
ANY_IN_LINE: Final = _LINE_ENDS.inverted()
DIGITS: Final = _of("0-9")
WORD: Final = _of("a-z", "A-Z", "0-9", "_")
SPACES: Final = _of("\t-\r", " ")
BLANKS: Final = _of("\t", " ", "\xa0", "\u1680", "\u180e", "\u2000-\u200a", "\u202f", "\u205f", "\u3000")

# Behind a backslash; in capitals: all others.
BY_LETTER: Final = {"d": DIGITS, "w": WORD, "s": SPACES, "h": BLANKS}
# Between the braces of \p{…}: those that are about ASCII.
BY_NAME: Final = {
    "Lower": _of("a-z"),
    "Upper": _of("A-Z"),
    "ASCII": _of("\0-\x7f"),
    "Alpha": _of("a-z", "A-Z"),
    "Digit": DIGITS,
    "Alnum": _of("a-z", "A-Z", "0-9"),
    "Punct": _of("!-/", ":-@", "[-`", "{-~"),
    "Graph": _of("!-~"),
    "Print": _of(" -~"),
    "Blank": _of(" ", "\t"),
    "Cntrl": _of("\0-\x1f", "\x7f"),
    "XDigit": _of("0-9", "a-f", "A-F"),
    "Space": SPACES,
}
