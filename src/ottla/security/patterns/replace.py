"""Java's replacements: ``$1`` and ``${name}`` for groups, a backslash before what is to be as it is."""

from __future__ import annotations

from typing import Final, final

from ottla.security.patterns.match import JavaPattern, Match, Work
from ottla.security.patterns.parse import PatternError

_DIGITS: Final = frozenset("0123456789")


@final
class Replacement:
    """What goes into the place of each match of a pattern. PatternError where it is wrong."""

    __slots__ = ("_parts", "_pattern")

    def __init__(self, pattern: JavaPattern, template: str) -> None:
        self._pattern = pattern
        # Texts, and numbers of groups.
        self._parts = _read(pattern, template)

    def in_all(self, text: str, work: Work) -> str:
        """Matcher.replaceAll. TooMuchWork."""
        return self._replace(text, work, once=False)

    def in_first(self, text: str, work: Work) -> str:
        """Matcher.replaceFirst. TooMuchWork."""
        return self._replace(text, work, once=True)

    def _replace(self, text: str, work: Work, *, once: bool) -> str:
        found: list[str] = []
        done = at = 0
        while at <= len(text):
            match = self._pattern.find(text, at, work)
            if match is None:
                break
            found.append(text[done : match.start])
            found.append(self._expand(match))
            done = match.end
            at = match.end + 1 if match.end == match.start else match.end
            if once:
                break
        return "".join(found) + text[done:]

    def _expand(self, match: Match) -> str:
        return "".join(part if isinstance(part, str) else match.group(part) or "" for part in self._parts)


def _read(pattern: JavaPattern, template: str) -> list[str | int]:
    parts: list[str | int] = []
    at = 0
    while at < len(template):
        c = template[at]
        at += 1
        if c == "\\":
            if at == len(template):
                raise PatternError(f"a backslash at the end of the replacement {template!r}")
            parts.append(template[at])
            at += 1
        elif c == "$":
            number, at = _reference(pattern, template, at)
            parts.append(number)
        else:
            parts.append(c)
    return parts


def _reference(pattern: JavaPattern, template: str, at: int) -> tuple[int, int]:
    """The group that is meant behind a dollar sign, and where it goes on."""
    if template.startswith("{", at):
        end = template.find("}", at)
        name = template[at + 1 : end] if end >= 0 else ""
        if name not in pattern.names:
            raise PatternError(f"no such group in the pattern: {template!r}")
        return pattern.names[name], end + 1
    if at == len(template) or template[at] not in _DIGITS:
        raise PatternError(f"a dollar sign that names no group in the replacement {template!r}")
    number = int(template[at])
    at += 1
    if number > pattern.groups:
        raise PatternError(f"no group {number} in the pattern: {template!r}")
    # As many digits as make the number of a group.
    while at < len(template) and template[at] in _DIGITS:
        longer = 10 * number + int(template[at])
        if longer > pattern.groups:
            break
        number = longer
        at += 1
    return number, at
