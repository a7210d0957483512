"""Positions: what people write, and what it means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.positions import Kind, Position, format_time, parse
from ottla.numbers import LONG_MAX

TOO_LARGE = [str(LONG_MAX + 1), "9" * 5000, "-" + "9" * 5000]
NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("beginning", Position(Kind.BEGINNING)),
        ("earliest", Position(Kind.BEGINNING)),
        ("END", Position(Kind.END)),
        (" latest ", Position(Kind.END)),
        ("0", Position(Kind.OFFSET, 0)),
        ("42", Position(Kind.OFFSET, 42)),
        ("-10", Position(Kind.TAIL, 10)),
        ("@1700000000123", Position(Kind.TIME, 1_700_000_000_123)),
        ("90s", Position(Kind.TIME, NOW_MS - 90_000)),
        ("15m", Position(Kind.TIME, NOW_MS - 900_000)),
        ("2h", Position(Kind.TIME, NOW_MS - 7_200_000)),
        ("7d", Position(Kind.TIME, NOW_MS - 7 * 86_400_000)),
        ("999999999d", Position(Kind.TIME, 0)),
        ("2026-01-31T12:00:00Z", Position(Kind.TIME, 1_769_860_800_000)),
        ("2026-01-31T13:00:00.250+01:00", Position(Kind.TIME, 1_769_860_800_250)),
    ],
)
def test_each_form(text: str, position: Position) -> None:
    assert parse("--from", text, NOW_MS) == position


def test_a_time_without_a_zone_is_local() -> None:
    local = datetime(2026, 1, 31, 12, 0)
    assert parse("--to", "2026-01-31T12:00", NOW_MS).value == round(local.timestamp() * 1000)


@pytest.mark.parametrize("text", ["", "wat", "--1", "1.5", "-", "@", "5y", "1 h", "²", "１", *TOO_LARGE])
def test_anything_else_is_a_usage_error_that_shows_the_forms(text: str) -> None:
    with pytest.raises(CliError, match=r"beginning.*end.*-10.*15m") as caught:
        parse("--from", text, NOW_MS)
    assert caught.value.code is ExitCode.USAGE
    assert str(caught.value).startswith("--from ")


@given(st.text())
def test_no_text_does_anything_but_parse_or_fail_cleanly(text: str) -> None:
    try:
        position = parse("--from", text, NOW_MS)
    except CliError:
        return
    assert 0 <= position.value <= LONG_MAX


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 1, 1)))
def test_printed_times_are_read_back(moment: datetime) -> None:
    timestamp_ms = round(moment.replace(tzinfo=UTC, microsecond=0).timestamp() * 1000) + 7
    assert parse("--from", format_time(timestamp_ms), NOW_MS) == Position(Kind.TIME, timestamp_ms)


@pytest.mark.parametrize(
    ("timestamp_ms", "text"), [(-1, "-"), (0, "1970-01-01T00:00:00.000Z"), (2**62, f"@{2**62}")]
)
def test_times_that_no_calendar_has(timestamp_ms: int, text: str) -> None:
    assert format_time(timestamp_ms) == text
