"""Where to start reading, as people write it: one grammar for `consume --from` and `reset-offsets --to`.

Pure: the present is an argument, and turning a position into offsets is the client's work.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import NamedTuple

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.values import shown
from ottla.numbers import LONG_MAX, parse_whole

GRAMMAR = (
    "'beginning', 'end', an offset (42), the last N of each partition (-10), "
    "a time (2026-01-31T12:00:00Z or @EPOCH_MS), or a span back from now (90s, 15m, 2h, 7d)"
)

SPAN_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(Enum):
    """What a position's value counts."""

    BEGINNING = "beginning"
    END = "end"
    OFFSET = "offset"
    TAIL = "tail"
    TIME = "time"


class Position(NamedTuple):
    """``value`` is an offset, a number of records before the end, or milliseconds since the epoch."""

    kind: Kind
    value: int = 0


WORDS = {
    "beginning": Position(Kind.BEGINNING),
    "earliest": Position(Kind.BEGINNING),
    "start": Position(Kind.BEGINNING),
    "end": Position(Kind.END),
    "latest": Position(Kind.END),
}


def parse(option: str, text: str, now_ms: int) -> Position:
    """The position that ``text`` names; CliError (usage) where it names none."""
    word = text.strip()
    if position := WORDS.get(word.lower()):
        return position
    if match := re.fullmatch(r"([-@]?)([0-9]+)", word, re.ASCII):
        kind = {"": Kind.OFFSET, "-": Kind.TAIL, "@": Kind.TIME}[match[1]]
        if (value := parse_whole(match[2], 0, LONG_MAX)) is not None:
            return Position(kind, value)
    if match := re.fullmatch(r"([0-9]{1,9})([smhd])", word, re.ASCII):
        return Position(Kind.TIME, max(0, now_ms - int(match[1]) * SPAN_MS[match[2]]))
    try:
        moment = datetime.fromisoformat(word)
        # A time without a zone is the user's own, as in every other tool of theirs.
        return Position(Kind.TIME, max(0, round(moment.timestamp() * 1000)))
    except (ValueError, OverflowError, OSError):
        raise CliError(f"{option} {shown(text)}: give {GRAMMAR}", ExitCode.USAGE) from None


def format_time(timestamp_ms: int) -> str:
    """A Kafka timestamp for people, in UTC with milliseconds; '-' where there is none."""
    if timestamp_ms < 0:
        return "-"
    try:
        moment = EPOCH + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return f"@{timestamp_ms}"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
