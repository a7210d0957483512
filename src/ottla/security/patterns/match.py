"""Matching a pattern in time that its length times the text's bounds, whatever the two are.

It backtracks as Java does, so that the same alternative is found and the same groups are; but where a step of
the pattern has failed at a place in the text once, it is not tried there again. That is right since there are
no references to groups, and nothing that looks ahead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple, final

from ottla.security.patterns.characters import WORD
from ottla.security.patterns.parse import (
    Assertion,
    Character,
    Choice,
    Group,
    Node,
    Parsed,
    PatternError,
    Repeat,
    Sequence,
    parse,
)

# Steps of a pattern, with what numbers repeat.
STEPS_MAX: Final = 2_000
# What naming one client may take, of all its rules together: 15 ms.
WORK_MAX: Final = 25_000
# Steps times places in a text.
PLACES_MAX: Final = 1_000_000

_CHARACTER, _SPLIT, _SAVE, _ASSERT, _MATCH = range(5)


class TooMuchWork(Exception):
    """A text that cannot be matched in the time that there is."""


@final
class Work:
    """What is left to be done for one text, in steps."""

    __slots__ = ("left",)

    def __init__(self, left: int = WORK_MAX) -> None:
        self.left = left


class Match(NamedTuple):
    text: str
    # Where group 0, the match, begins and ends, then group 1; -1 where a group is not in it.
    places: tuple[int, ...]
    names: dict[str, int]

    @property
    def start(self) -> int:
        return self.places[0]

    @property
    def end(self) -> int:
        return self.places[1]

    def group(self, number: int) -> str | None:
        begin, end = self.places[2 * number : 2 * number + 2]
        return None if begin < 0 or end < 0 else self.text[begin:end]


class _Step(NamedTuple):
    kind: int
    # The next step; of a choice the one that is tried first.
    to: int
    # The other step of a choice, or the slot to save a place in.
    other: int = 0
    # What a character or a place must be.
    test: Callable[[str, int], bool] | None = None


@final
class JavaPattern:
    """A compiled pattern. PatternError where it is wrong, not taken here, or too large."""

    __slots__ = ("_steps", "groups", "names", "text")

    def __init__(self, text: str) -> None:
        parsed = parse(text)
        self.text = text
        self.groups = parsed.groups
        self.names = parsed.names
        self._steps = _compile(parsed)

    def matches(self, text: str, work: Work) -> Match | None:
        """The match that is all of the text (Matcher.matches). TooMuchWork."""
        return self._run(text, 0, self._none_failed(text), work, whole=True)

    def find(self, text: str, at: int, work: Work) -> Match | None:
        """The first match from a place on (Matcher.find). TooMuchWork."""
        failed = self._none_failed(text)
        for begin in range(at, len(text) + 1):
            found = self._run(text, begin, failed, work, whole=False)
            if found is not None:
                return found
        return None

    def _none_failed(self, text: str) -> bytearray:
        """For each step and place whether it was tried."""
        size = len(self._steps) * (len(text) + 1)
        if size > PLACES_MAX:
            raise TooMuchWork
        return bytearray(size)

    def _run(self, text: str, begin: int, failed: bytearray, work: Work, *, whole: bool) -> Match | None:
        steps = self._steps
        width, end = len(text) + 1, len(text)
        places = [-1] * (2 * self.groups + 2)
        places[0] = begin
        # Steps to try at places; below 0: a slot that is to have its place again.
        stack = [(0, begin)]
        while stack:
            step, at = stack.pop()
            if step < 0:
                places[~step] = at
                continue
            while True:
                if failed[step * width + at]:
                    break
                failed[step * width + at] = 1
                work.left -= 1
                if work.left < 0:
                    raise TooMuchWork
                kind, to, other, test = steps[step]
                if kind == _SPLIT:
                    stack.append((other, at))
                elif kind == _SAVE:
                    stack.append((~other, places[other]))
                    places[other] = at
                elif kind == _MATCH:
                    if whole and at < end:
                        break
                    places[1] = at
                    return Match(text, tuple(places), self.names)
                elif test is not None:
                    if not test(text, at):
                        break
                    if kind == _CHARACTER:
                        at += 1
                step = to
        return None

    def __repr__(self) -> str:
        return f"JavaPattern({self.text!r})"


def _compile(parsed: Parsed) -> list[_Step]:
    compiler = _Compiler()
    first = compiler.emit(parsed.node, compiler.add(_Step(_MATCH, 0)))
    # Matching begins with step 0.
    return _from_first(compiler.steps, first)


@final
class _Compiler:
    """Makes steps from back to front: each when the one behind it is there."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []

    def add(self, step: _Step) -> int:
        if len(self.steps) >= STEPS_MAX:
            raise PatternError("the pattern is too large, with what it repeats")
        self.steps.append(step)
        return len(self.steps) - 1

    def emit(self, node: Node, then: int) -> int:
        """Steps that match a node and go on with ``then``; the first of them."""
        match node:
            case Character(characters):
                return self.add(_Step(_CHARACTER, then, test=_one_of(characters.ranges)))
            case Assertion(kind):
                return self.add(_Step(_ASSERT, then, test=_ASSERTIONS[kind]))
            case Sequence(nodes):
                for part in reversed(nodes):
                    then = self.emit(part, then)
                return then
            case Choice(nodes):
                return self._choice(nodes, then)
            case Group(inner, None):
                return self.emit(inner, then)
            case Group(inner, int(number)):
                close = self.add(_Step(_SAVE, then, 2 * number + 1))
                return self.add(_Step(_SAVE, self.emit(inner, close), 2 * number))
            case Repeat():
                return self._repeat(node, then)
        raise AssertionError(node)

    def _choice(self, nodes: tuple[Node, ...], then: int) -> int:
        first = self.emit(nodes[-1], then)
        for part in reversed(nodes[:-1]):
            first = self.add(_Step(_SPLIT, self.emit(part, then), first))
        return first

    def _repeat(self, node: Repeat, then: int) -> int:
        if node.most is None:
            # A choice that the last step of what is repeated goes back to.
            first = self.add(_Step(_SPLIT, then, then))
            self.steps[first] = _optional(self.emit(node.node, first), then, node.greedy)
        else:
            first = then
            for _ in range(node.most - node.least):
                first = self.add(_optional(self.emit(node.node, first), then, node.greedy))
        for _ in range(node.least):
            first = self.emit(node.node, first)
        return first


def _optional(inner: int, then: int, greedy: bool) -> _Step:
    return _Step(_SPLIT, inner, then) if greedy else _Step(_SPLIT, then, inner)


def _from_first(steps: list[_Step], first: int) -> list[_Step]:
    """The same with ``first`` and 0 in each other's place."""

    def moved(step: int) -> int:
        return {0: first, first: 0}.get(step, step)

    renamed = [
        step._replace(to=moved(step.to), other=moved(step.other) if step.kind == _SPLIT else step.other)
        for step in steps
    ]
    renamed[0], renamed[first] = renamed[first], renamed[0]
    return renamed


def _one_of(ranges: tuple[tuple[int, int], ...]) -> Callable[[str, int], bool]:
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        only = chr(ranges[0][0])
        return lambda text, at: text.startswith(only, at)
    # Python's sets are fast, and mean the same where no sign in them has a meaning.
    listed = "".join(f"{re.escape(chr(low))}-{re.escape(chr(high))}" for low, high in ranges)
    search = re.compile(f"[{listed}]", re.DOTALL).match if listed else None
    if search is None:
        return lambda text, at: False
    return lambda text, at: search(text, at) is not None


def _is_word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at] in WORD or (not text[at].isascii() and text[at].isalnum()))


def _at_word_edge(text: str, at: int) -> bool:
    return _is_word(text, at - 1) != _is_word(text, at)


def _before_last_line_end(text: str, at: int) -> bool:
    if len(text) - at > 2 or text[max(at - 1, 0) : at + 1] == "\r\n":
        return False
    return text[at:] in ("", "\n", "\r", "\r\n", "\x85", "\u2028", "\u2029")


_ASSERTIONS: Final[dict[str, Callable[[str, int], bool]]] = {
    "^": lambda text, at: at == 0,
    "A": lambda text, at: at == 0,
    "$": _before_last_line_end,
    "Z": _before_last_line_end,
    "z": lambda text, at: at == len(text),
    "b": _at_word_edge,
    "B": lambda text, at: not _at_word_edge(text, at),
}
