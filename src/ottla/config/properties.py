"""Java property files (``server.properties``): the syntax, and nothing of what the names mean."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from typing import NamedTuple

from ottla.config.definition import ConfigError

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_SPACE = " \t\f"
_NAME = re.compile(r"[a-z](?:[\w.-]*\w)?", re.ASCII)
_HEX = frozenset("0123456789abcdefABCDEF")


class Property(NamedTuple):
    """A name and its value, and the number of the line, from 1, that the name is in."""

    name: str
    value: str
    line: int


class ConfigFile:
    """A ``server.properties`` file. ConfigError, which names the file and the line, where it is malformed."""

    def __init__(self, path: str, data: bytes) -> None:
        self._path = path
        try:
            found = list(parse_lines(decode_properties(data)))
        except ConfigError as error:
            raise ConfigError(f"the configuration file {path}, {error}") from None
        self.properties = {one.name: one.value for one in found}
        self._lines = {one.name: one.line for one in found}

    def where(self, message: str, overrides: Container[str]) -> str:
        """The lines of what a message about configurations names, as an addition to it; those of
        ``overrides`` were not taken from the file."""
        named = dict.fromkeys(_NAME.findall(message))
        lines = sorted(self._lines[name] for name in named if name in self._lines and name not in overrides)
        if not lines:
            return ""
        *others, last = map(str, lines)
        found = f"lines {', '.join(others)} and {last}" if others else f"line {last}"
        return f" ({self._path}, {found})"


def decode_properties(data: bytes) -> str:
    """The text of a property file: UTF-8, as editors write it, or else ISO-8859-1, as Java reads it.

    Java takes every file for ISO-8859-1; a file whose bytes happen to be valid UTF-8 means it in practice.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("iso-8859-1")


def parse_properties(text: str) -> dict[str, str]:
    """Names and values of a property file; a name given twice keeps its last value, as in Java.

    ConfigError, which names the line, where a ``\\uXXXX`` escape is broken.
    """
    return {found.name: found.value for found in parse_lines(text)}


def parse_lines(text: str) -> Iterator[Property]:
    """The properties of a file in their order. ConfigError as ``parse_properties``."""
    for number, line in _logical_lines(text):
        name, rest = _name(line)
        try:
            yield Property(_unescape(name), _unescape(_value(rest)), number)
        except ConfigError as error:
            raise ConfigError(f"line {number}: {error}") from None


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments and blanks, and the number of the first of those that a backslash at the end
    joins."""
    joined = ""
    first = 0
    for number, raw in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        line = raw.lstrip(_SPACE)
        if not joined:
            # Behind a backslash that stands alone, too.
            if not line or line[0] in "#!":
                continue
            first = number
        line = joined + line
        trailing = len(line) - len(line.rstrip("\\"))
        if trailing % 2:
            joined = line[:-1]
            continue
        joined = ""
        yield first, line
    if joined:
        yield first, joined


def _name(line: str) -> tuple[str, str]:
    """Split off the name: it ends at the first ``=``, ``:`` or blank that no backslash protects."""
    position = 0
    while position < len(line) and line[position] not in "=:" + _SPACE:
        position += 2 if line[position] == "\\" else 1
    return line[:position], line[position:]


def _value(rest: str) -> str:
    """Drop the separator: blanks, and one ``=`` or ``:`` among them."""
    rest = rest.lstrip(_SPACE)
    return rest[1:].lstrip(_SPACE) if rest[:1] in ("=", ":") else rest


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    out: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\" and position < len(text):
            character = text[position]
            position += 1
            if character == "u":
                digits = text[position : position + 4]
                if len(digits) != 4 or not set(digits) <= _HEX:
                    raise ConfigError("Malformed \\uxxxx encoding.")
                character = chr(int(digits, 16))
                position += 4
            else:
                character = _ESCAPES.get(character, character)
        out.append(character)
    return "".join(out)
