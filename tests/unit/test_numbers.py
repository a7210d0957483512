"""Numbers from outside: what Java takes, what it does not, and nothing of what only Python takes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.numbers import INT_MAX, LONG_MAX, format_double, parse_double, parse_whole, trim


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("+5", 5),
        ("-5", -5),
        ("007", 7),
        ("0" * 10_000 + "7", 7),
        (str(INT_MAX), INT_MAX),
        (str(-INT_MAX - 1), -INT_MAX - 1),
    ],
)
def test_whole_numbers(text: str, number: int) -> None:
    assert parse_whole(text, -INT_MAX - 1, INT_MAX) == number


@pytest.mark.parametrize(
    "text",
    [
        "", "+", "-", "+-1", "--1", "1_000", " 1", "1 ", "1\n", "1.0", "1e3", "0x10", "0b1", "1L", "nan", "½",
        "１２", "١٢", "²", "1\0", "9" * 5000, "-" + "9" * 5000, str(INT_MAX + 1), str(-INT_MAX - 2), "\ud800",
    ],
)  # fmt: skip
def test_what_is_no_whole_number(text: str) -> None:
    assert parse_whole(text, -INT_MAX - 1, INT_MAX) is None


@given(st.integers(-LONG_MAX - 1, LONG_MAX))
def test_every_long_is_read_as_it_is_written(number: int) -> None:
    assert parse_whole(str(number), -LONG_MAX - 1, LONG_MAX) == number
    assert parse_whole(f"{number:+}", number + 1, LONG_MAX) is None


@given(st.text(st.sampled_from("0123456789+-_ eExXnNaAiIfFdD.\n１"), max_size=8))
def test_nothing_that_is_taken_means_another_number_to_python(text: str) -> None:
    whole = parse_whole(text, -LONG_MAX, LONG_MAX)
    assert whole is None or (whole == int(text) and "_" not in text)
    double = parse_double(text)
    if double is not None and "x" not in text.lower():
        assert math.isnan(double) or double == float(trim(text).rstrip("fFdD"))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1.0), ("1.", 1.0), (".5", 0.5), ("-1.5e3", -1500.0), ("1E+2", 100.0), (" 1 ", 1.0),
        ("1e6d", 1e6),
        ("2f", 2.0), ("0x1p3", 8.0), ("0x.8p1D", 1.0), ("-0xAp0", -10.0), ("Infinity", math.inf),
        ("-Infinity", -math.inf), ("1e999", math.inf), ("9" * 5000, math.inf), ("0x1p99999", math.inf),
        ("-0x1p99999", -math.inf), ("1e-999", 0.0),
    ],
)  # fmt: skip
def test_doubles(text: str, number: float) -> None:
    assert parse_double(text) == number


def test_nan_is_a_double_in_java_s_spelling_only() -> None:
    for text in ("NaN", "+NaN", "-NaN"):
        found = parse_double(text)
        assert found is not None and math.isnan(found)


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "e5", "nan", "NAN", "inf", "infinity", "INFINITY", "1_000.5", "1 0", "0x10", "0x1", "1e",
        "1e5dd", "１", "1.5.2", "--1", "+ 1", "1l", "\u00a01",
    ],
)  # fmt: skip
def test_what_is_no_double(text: str) -> None:
    assert parse_double(text) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.5, "0.5"), (0.0, "0.0"), (-0.0, "-0.0"), (1.0, "1.0"), (100.0, "100.0"), (9999999.0, "9999999.0"),
        (1e7, "1.0E7"), (12345678.5, "1.23456785E7"), (-1.5e10, "-1.5E10"), (1e22, "1.0E22"),
        (0.001, "0.001"), (0.0001, "1.0E-4"), (1.5e-7, "1.5E-7"),
        (1.7976931348623157e308, "1.7976931348623157E308"),
        (math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"),
    ],
)  # fmt: skip
def test_doubles_are_written_as_java_writes_them(number: float, text: str) -> None:
    assert format_double(number) == text


@given(st.floats(allow_nan=False))
def test_a_written_double_is_read_as_it_was(number: float) -> None:
    assert parse_double(format_double(number)) == number
