"""Values within an argument, or of a file: read strictly, and shown in part."""

from __future__ import annotations

from ottla.cli.errors import CliError, ExitCode
from ottla.numbers import parse_whole, trim
from ottla.text import is_text

# What is shown of a value that is not acceptable.
SHOWN_MAX = 60


def shown(value: str) -> str:
    """A value for a message, in quotes: enough of it to know it again."""
    return repr(value) if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]!r}… ({len(value)} characters)"


def whole(option: str, text: str, low: int, high: int) -> int:
    """A whole number that stands in an argument with something else; CliError (usage) where it is none."""
    number = parse_whole(trim(text), low, high)
    if number is None:
        raise CliError(f"{option}: {shown(text)} is not a whole number from {low} to {high}", ExitCode.USAGE)
    return number


def check_text(option: str, text: str) -> None:
    """CliError (usage) where ``text`` is not valid UTF-8."""
    if not is_text(text):
        raise CliError(f"{option} {shown(text)}: it is not valid UTF-8", ExitCode.USAGE)


# The longest string that a request can hold, in bytes.
STRING_BYTES_MAX = 2**15 - 1


def check_group(group: str) -> None:
    """CliError (usage) where no group can have this id: brokers would hang up on it, time and again."""
    _check_id("group", group)


def check_transactional_id(transactional_id: str) -> None:
    """CliError (usage) where no producer can have this transactional id."""
    if not transactional_id:
        raise CliError("a transactional id has at least one character", ExitCode.USAGE)
    _check_id("transactional id", transactional_id)


def _check_id(kind: str, text: str) -> None:
    if len(text.encode()) > STRING_BYTES_MAX:
        raise CliError(f"{kind} {shown(text)}: an id has {STRING_BYTES_MAX} bytes at most", ExitCode.USAGE)


def is_host(host: str) -> bool:
    """Whether ``host`` may name a machine: the look-up of anything else fails in ways of its own."""
    if not host or "/" in host or not host.isprintable() or " " in host:
        return False
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True
