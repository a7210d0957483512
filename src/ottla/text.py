"""Text from outside, for people: nothing in it moves a cursor, begins a line or hides what is behind it."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` with an escape (``\\n``, ``\\x1b``) for whatever is no visible character and no blank."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_text(value: str) -> bool:
    """Whether ``value`` can be written as UTF-8: bytes that were none come in as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
