"""Java property files (``server.properties``): the syntax, and nothing of what the names mean."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.config.definition import ConfigError

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_SPACE = " \t\f"
_HEX = frozenset("0123456789abcdefABCDEF")


def parse_properties(text: str) -> dict[str, str]:
    """Names and values of a property file; a name given twice keeps its last value, as in Java.

    ConfigError where a ``\\uXXXX`` escape is broken.
    """
    properties: dict[str, str] = {}
    for line in _logical_lines(text):
        name, rest = _name(line)
        properties[name] = _unescape(_value(rest))
    return properties


def _logical_lines(text: str) -> Iterator[str]:
    """Lines without comments and blanks; a backslash at a line's end joins the next one to it."""
    joined = ""
    for raw in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        line = raw.lstrip(_SPACE)
        if not joined and (not line or line[0] in "#!"):
            continue
        line = joined + line
        trailing = len(line) - len(line.rstrip("\\"))
        if trailing % 2:
            joined = line[:-1]
            continue
        joined = ""
        yield line
    if joined:
        yield joined


def _name(line: str) -> tuple[str, str]:
    """Split off the name: it ends at the first ``=``, ``:`` or blank that no backslash protects."""
    position = 0
    while position < len(line) and line[position] not in "=:" + _SPACE:
        position += 2 if line[position] == "\\" else 1
    return _unescape(line[:position]), line[position:]


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
