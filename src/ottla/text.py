"""Text from outside, for people: nothing in it moves a cursor, begins a line or hides what is behind it."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from uuid import UUID


def printable(text: str) -> str:
    """``text`` with an escape (``\\n``, ``\\x1b``) for whatever is no visible character and no blank."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> list[str]:
    """The lines of ``text``, each `printable`, with tabs as blanks: of what somebody has printed, or so."""
    return [printable(line.removesuffix("\r").expandtabs()) for line in text.split("\n")]


def id_text(value: UUID) -> str:
    """An id as Kafka writes it: 22 characters of URL-safe base64."""
    return urlsafe_b64encode(value.bytes).rstrip(b"=").decode()


def is_text(value: str) -> bool:
    """Whether ``value`` can be written as UTF-8: bytes that were none come in as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
