"""Regular expressions that a client sends, matched in bounded time (KIP-1152).

Kafka has Java's matcher, and so has Python one that goes back and tries again: for some patterns as long as
the universe lasts. Here all ways to match are followed at once, character by character, so that a text takes
as many steps as it has characters times the pattern's parts. What needs to go back (references to groups,
looking around) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

from ottla.errors import ErrorCode, KafkaError
from ottla.pieces import whole

# Characters of a pattern, and parts of it with its repetitions written out.
LENGTH_MAX = 1_000
PARTS_MAX = 1_000
# Parts that are looked at while repetitions are written out, those among them that come to nothing.
LOOKED_AT_MAX = 10 * PARTS_MAX

# Parts that are looked at, for the characters of one text together, before others have their turn: about a
# microsecond each.
LOOKS_AT_ONCE_MAX = 3_000

# What a part takes of a text: one character that it accepts. None: nothing; it goes on to each of its next.
Accepts = Callable[[str], bool]


class Pattern:
    """Whether a whole text matches. ``size``: its parts, each of which may cost something per character."""

    __slots__ = ("_accepts", "_begins", "_end", "_ends", "_looked_at", "_next", "_start")

    def __init__(self) -> None:
        self._accepts: list[Accepts | None] = []
        self._next: list[list[int]] = []
        # Parts that hold where the text begins, and where it ends.
        self._begins: set[int] = set()
        self._ends: set[int] = set()
        self._looked_at = 0
        self._end = self._part(None)
        self._start = self._end

    @property
    def size(self) -> int:
        return len(self._accepts)

    def __call__(self, text: str) -> bool:
        return whole(self.matching(text))

    def matching(self, text: str) -> Generator[None, None, bool]:
        """As a call, for long texts: yields after each piece of its work."""
        end, looks = len(text), 0
        states = self._reached([self._start], True, not end)
        for place, character in enumerate(text, 1):
            looks += 1 + len(states)
            if looks >= LOOKS_AT_ONCE_MAX:
                looks = 0
                yield
            found: list[int] = []
            for state in states:
                accepts = self._accepts[state]
                if accepts is not None and accepts(character):
                    found += self._next[state]
            states = self._reached(found, False, place == end)
            if not states:
                return False
        return self._end in states

    def _reached(self, states: list[int], is_begin: bool, is_end: bool) -> set[int]:
        """These, and those that are come to from them without a character."""
        reached: set[int] = set()
        while states:
            state = states.pop()
            if (
                state in reached
                or (state in self._begins and not is_begin)
                or (state in self._ends and not is_end)
            ):
                continue
            reached.add(state)
            if self._accepts[state] is None:
                states += self._next[state]
        return reached

    def _part(self, accepts: Accepts | None, *following: int) -> int:
        if len(self._accepts) >= PARTS_MAX:
            raise _too_large()
        self._accepts.append(accepts)
        self._next.append(list(following))
        return len(self._accepts) - 1

    # -- from what Python's parser makes of it, back to front

    def build(self, items: Any) -> None:
        self._start = self._sequence(items, self._end)

    def _sequence(self, items: Any, following: int) -> int:
        for kind, value in reversed(list(items)):
            following = self._item(str(kind), value, following)
        return following

    def _item(self, kind: str, value: Any, following: int) -> int:
        self._looked_at += 1
        if self._looked_at > LOOKED_AT_MAX:
            raise _too_large()
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self._part(_accepts(kind, value), following)
        if kind == "BRANCH":
            return self._part(None, *[self._sequence(branch, following) for branch in value[1]])
        if kind == "SUBPATTERN":
            _, flags, no_flags, items = value
            if flags or no_flags:
                raise _refused("flags within a pattern")
            return self._sequence(items, following)
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, repeated = value
            return self._repeat(least, most, repeated, following)
        if kind == "AT":
            if str(value) in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
                self._begins.add(part := self._part(None, following))
                return part
            if str(value) in ("AT_END", "AT_END_STRING"):
                self._ends.add(part := self._part(None, following))
                return part
        raise _refused(kind.lower().replace("_", " "))

    def _repeat(self, least: int, most: Any, items: Any, following: int) -> int:
        if least > PARTS_MAX or (most is not _constants.MAXREPEAT and most > PARTS_MAX):
            raise _too_large()
        if most is _constants.MAXREPEAT:
            # A part that leads back to itself.
            again = self._part(None)
            self._next[again] += [self._sequence(items, again), following]
            following = again
        else:
            for _ in range(int(most) - int(least)):
                following = self._part(None, self._sequence(items, following), following)
        for _ in range(int(least)):
            following = self._sequence(items, following)
        return following


_CATEGORIES = {
    "CATEGORY_DIGIT": r"[0-9]",
    "CATEGORY_NOT_DIGIT": r"[^0-9]",
    "CATEGORY_SPACE": r"[ \t\n\x0b\f\r]",
    "CATEGORY_NOT_SPACE": r"[^ \t\n\x0b\f\r]",
    "CATEGORY_WORD": r"[a-zA-Z_0-9]",
    "CATEGORY_NOT_WORD": r"[^a-zA-Z_0-9]",
}
_CHARACTERS = {name: re.compile(pattern) for name, pattern in _CATEGORIES.items()}


def _accepts(kind: str, value: Any) -> Accepts:
    if kind == "LITERAL":
        wanted = chr(value)
        return lambda character: character == wanted
    if kind == "NOT_LITERAL":
        unwanted = chr(value)
        return lambda character: character != unwanted
    if kind == "ANY":
        return lambda character: character not in "\n\r\x85\u2028\u2029"
    negates = bool(value) and str(value[0][0]) == "NEGATE"
    each = [_accepts_one(str(what), which) for what, which in (value[1:] if negates else value)]
    return lambda character: any(accepts(character) for accepts in each) != negates


def _accepts_one(kind: str, value: Any) -> Accepts:
    if kind == "LITERAL":
        return _accepts(kind, value)
    if kind == "RANGE":
        first, last = map(chr, value)
        return lambda character: first <= character <= last
    if kind == "CATEGORY" and str(value) in _CHARACTERS:
        characters = _CHARACTERS[str(value)]
        return lambda character: characters.match(character) is not None
    raise _refused(kind.lower())


def _refused(what: str) -> KafkaError:
    return KafkaError(
        ErrorCode.invalid_regular_expression, f"patterns with such parts are not served here: {what}"
    )


def _too_large() -> KafkaError:
    return KafkaError(ErrorCode.invalid_regular_expression, f"a pattern of more than {PARTS_MAX} parts")


def compile_pattern(text: str) -> Pattern:
    """KafkaError INVALID_REGULAR_EXPRESSION where it is none, or none that can be matched in bounded time."""
    if len(text) > LENGTH_MAX:
        raise KafkaError(ErrorCode.invalid_regular_expression, f"a pattern of {len(text)} characters")
    try:
        items = _parser.parse(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise KafkaError(ErrorCode.invalid_regular_expression, str(error)) from error
    if items.state.flags & ~re.UNICODE:
        raise _refused("flags")
    pattern = Pattern()
    try:
        pattern.build(items)
    except RecursionError as error:
        raise KafkaError(ErrorCode.invalid_regular_expression, "parts in too many parts") from error
    return pattern
