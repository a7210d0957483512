"""Java's regular expressions as trees: what can be matched in bounded time (java.util.regex.Pattern).

Refused with a sentence: references to groups, looking ahead and behind, possessive and atomic groups, sets
that are made of sets, Unicode's classes, flags other than ``i`` and ``s``, and repeating what may be empty,
for which Java has rules of its own.
"""

from __future__ import annotations

from typing import Final, NamedTuple, NoReturn, final

from ottla.security.patterns.characters import (
    ANY,
    ANY_IN_LINE,
    BY_LETTER,
    BY_NAME,
    LAST,
    CharacterSet,
    one,
)

# How often something may be repeated by numbers, and how deep groups may be in each other.
REPEAT_MAX: Final = 1_000
DEPTH_MAX: Final = 50

_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_ASSERTIONS: Final = frozenset("bBAzZ")


class PatternError(ValueError):
    """A pattern that is wrong, or that is not taken here."""


class Character(NamedTuple):
    characters: CharacterSet


class Assertion(NamedTuple):
    # ^ and $, or the letter behind the backslash.
    kind: str


class Group(NamedTuple):
    node: Node
    # None: one that captures nothing.
    number: int | None


class Repeat(NamedTuple):
    node: Node
    least: int
    most: int | None
    greedy: bool


class Sequence(NamedTuple):
    nodes: tuple[Node, ...]


class Choice(NamedTuple):
    nodes: tuple[Node, ...]


Node = Character | Assertion | Group | Repeat | Sequence | Choice


class Parsed(NamedTuple):
    node: Node
    groups: int
    names: dict[str, int]


def parse(pattern: str) -> Parsed:
    """PatternError, which shows where it is, for what cannot be."""
    parser = _Parser(pattern)
    node = parser.choice(0)
    if not parser.at_end:
        parser.refuse("a parenthesis closes no group")
    return Parsed(node, parser.groups, parser.names)


@final
class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._any_case = False
        self._any_line = False
        self.groups = 0
        self.names: dict[str, int] = {}

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._pattern)

    def refuse(self, what: str) -> NoReturn:
        raise PatternError(f"{what}, at {self._at} of the pattern {self._pattern!r}")

    def _peek(self, text: str) -> bool:
        return self._pattern.startswith(text, self._at)

    def _take(self, text: str) -> bool:
        found = self._peek(text)
        if found:
            self._at += len(text)
        return found

    def _next(self) -> str:
        if self.at_end:
            self.refuse("the pattern ends too early")
        self._at += 1
        return self._pattern[self._at - 1]

    def choice(self, depth: int) -> Node:
        """Alternatives, up to the end of the group or the pattern."""
        if depth > DEPTH_MAX:
            self.refuse(f"more than {DEPTH_MAX} groups in each other")
        flags = self._any_case, self._any_line
        nodes = [self._sequence(depth)]
        while self._take("|"):
            nodes.append(self._sequence(depth))
        self._any_case, self._any_line = flags
        return nodes[0] if len(nodes) == 1 else Choice(tuple(nodes))

    def _sequence(self, depth: int) -> Node:
        nodes: list[Node] = []
        while not self.at_end and not self._peek("|") and not self._peek(")"):
            if self._take("\\Q"):
                end = self._pattern.find("\\E", self._at)
                quoted = self._pattern[self._at : end if end >= 0 else None]
                self._at = len(self._pattern) if end < 0 else end + 2
                nodes.extend(self._character(one(c)) for c in quoted)
                if quoted and not self.at_end:
                    nodes.append(self._repeated(nodes.pop()))
                continue
            atom = self._atom(depth)
            if atom is not None:
                nodes.append(self._repeated(atom))
        return nodes[0] if len(nodes) == 1 else Sequence(tuple(nodes))

    def _character(self, characters: CharacterSet) -> Character:
        return Character(characters.in_any_case() if self._any_case else characters)

    def _atom(self, depth: int) -> Node | None:
        """What may be repeated; None for flags."""
        if self._take("("):
            return self._group(depth)
        if self._take("["):
            return self._set()
        c = self._next()
        if c == ".":
            return Character(ANY if self._any_line else ANY_IN_LINE)
        if c in "^$":
            return Assertion(c)
        if c in "*+?":
            self.refuse(f"{c} repeats nothing")
        if c == "{":
            self.refuse("{ begins no repetition")
        if c == "\\":
            return self._escape()
        return self._character(one(c))

    def _escape(self) -> Node:
        if not self.at_end and self._pattern[self._at] in _ASSERTIONS:
            return Assertion(self._next())
        if not self.at_end and self._pattern[self._at] in "123456789k":
            self.refuse("references to groups are not taken here")
        return self._character(self._escaped())

    def _escaped(self) -> CharacterSet:
        """What a backslash makes of what follows it, inside of sets and outside."""
        c = self._next()
        if (lower := c.lower()) in BY_LETTER:
            return BY_LETTER[lower] if c == lower else BY_LETTER[lower].inverted()
        if lower == "p":
            named = self._named()
            if self._any_case:
                named = named.in_any_case()
            return named if c == "p" else named.inverted()
        if c in _CONTROLS:
            return one(_CONTROLS[c])
        if c in "xu":
            return one(self._by_number(c))
        if c.isascii() and c.isalnum():
            self.refuse(f"\\{c} is not taken here")
        return one(c)

    def _named(self) -> CharacterSet:
        end = self._pattern.find("}", self._at)
        name = self._pattern[self._at : end] if self._take("{") and end >= 0 else ""
        if name not in BY_NAME:
            self.refuse("of the classes \\p{…} those about ASCII are taken here")
        self._at = end + 1
        return BY_NAME[name]

    def _by_number(self, kind: str) -> str:
        if kind == "x" and self._take("{"):
            digits = self._until("}")
        else:
            size = 2 if kind == "x" else 4
            digits = self._pattern[self._at : self._at + size].ljust(size, " ")
            self._at += size
        if not digits or not _HEX.issuperset(digits) or len(digits) > 8 or int(digits, 16) > LAST:
            self.refuse("a character's number is wrong")
        return chr(int(digits, 16))

    def _until(self, sign: str) -> str:
        end = self._pattern.find(sign, self._at)
        if end < 0:
            self.refuse(f"{sign} is missing")
        found = self._pattern[self._at : end]
        self._at = end + 1
        return found

    def _group(self, depth: int) -> Node | None:
        number: int | None = None
        flags = self._any_case, self._any_line
        if not self._take("?"):
            number = self._numbered()
        elif self._take("<"):
            if self._peek("=") or self._peek("!"):
                self.refuse("looking behind is not taken here")
            name = self._until(">")
            if not (name.isascii() and name.isalnum() and name[0].isalpha()) or name in self.names:
                self.refuse("a group's name is wrong, or there twice")
            number = self._numbered()
            self.names[name] = number
        elif not self._take(":") and self._set_flags():
            return None
        node = self.choice(depth + 1)
        self._any_case, self._any_line = flags
        if not self._take(")"):
            self.refuse("a group is not closed")
        return Group(node, number)

    def _numbered(self) -> int:
        self.groups += 1
        return self.groups

    def _set_flags(self) -> bool:
        """Take ``i)``, ``-s:`` and the like; whether that is all of the group, and they are for the rest of
        the one around it."""
        on = True
        while not self._peek(")") and not self._peek(":"):
            c = self._next()
            if c in "=!>":
                self.refuse("looking ahead and atomic groups are not taken here")
            if c == "-" and on:
                on = False
            elif c == "i":
                self._any_case = on
            elif c == "s":
                self._any_line = on
            else:
                self.refuse("of the flags i and s are taken here")
        return self._next() == ")"

    def _repeated(self, node: Node) -> Node:
        if self._take("*"):
            least, most = 0, None
        elif self._take("+"):
            least, most = 1, None
        elif self._take("?"):
            least, most = 0, 1
        elif self._take("{"):
            least, most = self._numbers()
        else:
            return node
        greedy = not self._take("?")
        if self._peek("+"):
            self.refuse("possessive repetitions are not taken here")
        if not self.at_end and self._pattern[self._at] in "*?{":
            self.refuse("what is repeated is repeated again")
        if (most is None or most > 1) and _may_be_empty(node):
            self.refuse("what is repeated may be empty")
        return Repeat(node, least, most, greedy)

    def _numbers(self) -> tuple[int, int | None]:
        first, comma, second = self._until("}").partition(",")
        if not _is_number(first) or (second and not _is_number(second)):
            self.refuse("a repetition's numbers are wrong")
        least = int(first)
        most = (int(second) if second else None) if comma else least
        if max(least, most or 0) > REPEAT_MAX or (most is not None and most < least):
            self.refuse("a repetition's numbers are wrong")
        return least, most

    def _set(self) -> Character:
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self._peek("]"):
            if self._peek("[") or self._peek("&&"):
                self.refuse("sets of sets are not taken here")
            low = self._member()
            first = False
            if self._is_range():
                self._at += 1
                high = self._member()
                if not low.is_one or not high.is_one or high.first < low.first:
                    self.refuse("a range of characters is wrong")
                ranges.append((low.first, high.first))
            else:
                ranges.extend(low.ranges)
        self._at += 1
        characters = CharacterSet(ranges)
        # As Java: first whatever the case, then all others.
        if self._any_case:
            characters = characters.in_any_case()
        return Character(characters.inverted() if negated else characters)

    def _is_range(self) -> bool:
        """A dash at the end of a set is itself."""
        return self._peek("-") and self._pattern[self._at + 1 : self._at + 2] not in ("", "[", "]")

    def _member(self) -> CharacterSet:
        c = self._next()
        return self._escaped() if c == "\\" else one(c)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _may_be_empty(node: Node) -> bool:
    match node:
        case Character():
            return False
        case Assertion():
            return True
        case Sequence(nodes):
            return all(map(_may_be_empty, nodes))
        case Choice(nodes):
            return any(map(_may_be_empty, nodes))
        case Group(inner, _):
            return _may_be_empty(inner)
        case Repeat(inner, least, _, _):
            return least == 0 or _may_be_empty(inner)
    raise AssertionError(node)
