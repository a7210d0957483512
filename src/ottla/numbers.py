"""Numbers that come from outside, as texts: one strict reading of them, Java's.

Follows ``Integer.parseInt``, ``Long.parseLong`` and ``Double.parseDouble``, which Kafka reads its
configurations with, but takes ASCII digits only. Python's ``int`` and ``float`` also take ``1_000``, blanks
and digits of any script, read ``nan`` in any case, and fail in another way at more than 4,300 digits.
"""

from __future__ import annotations

import re
from math import copysign, inf, isinf, isnan, nan

SHORT_MAX = 2**15 - 1
INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1

# What Java's String.trim cuts off: control characters and the blank.
_BLANKS = "".join(map(chr, range(0x21)))
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)", re.ASCII)
# More digits than these are beyond every bound that is asked for.
_DIGITS_MAX = 40
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[fFdD]?", re.ASCII)
_HEXADECIMAL = re.compile(
    r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+[fFdD]?", re.ASCII
)
_NAMED = re.compile(r"([+-]?)(NaN|Infinity)")
# From here on, and below its counterpart, Java writes doubles with an exponent.
_PLAIN_MAX = 1e7
_PLAIN_MIN = 1e-3


def trim(text: str) -> str:
    """``text`` without what Java's ``String.trim`` cuts off at both ends."""
    return text.strip(_BLANKS)


def parse_whole(text: str, low: int, high: int) -> int | None:
    """A whole number from ``low`` to ``high``, both included; None where ``text`` is none.

    Nothing is cut off: blanks around a number are for the caller to ``trim``, where they are allowed.
    """
    match = _WHOLE.fullmatch(text)
    if match is None or len(match[2]) > _DIGITS_MAX:
        return None
    number = int(match[1] + match[2])
    return number if low <= number <= high else None


def parse_double(text: str) -> float | None:
    """A double as ``Double.parseDouble`` reads it, blanks around it cut off; None where it is none.

    ``NaN`` and ``Infinity`` are doubles, in this spelling; a number that is too large is Infinity.
    """
    text = trim(text)
    if match := _NAMED.fullmatch(text):
        return copysign(nan if match[2] == "NaN" else inf, -1.0 if match[1] == "-" else 1.0)
    if _DECIMAL.fullmatch(text):
        return float(text.rstrip("fFdD"))
    if _HEXADECIMAL.fullmatch(text):
        # The suffix, which is a hexadecimal digit elsewhere, can only stand behind the exponent.
        try:
            return float.fromhex(text.rstrip("fFdD"))
        except OverflowError:
            return -inf if text[0] == "-" else inf
    return None


def format_double(value: float) -> str:
    """The text of a double as ``Double.toString`` writes it."""
    if isnan(value):
        return "NaN"
    if isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    size = abs(value)
    if size == 0 or _PLAIN_MIN <= size < _PLAIN_MAX:
        return repr(float(value))
    # Python writes the same digits, and goes over to an exponent elsewhere.
    mantissa, _, exponent = repr(size).partition("e")
    whole, _, part = mantissa.partition(".")
    significant = (whole + part).lstrip("0")
    leading_zeros = len(whole + part) - len(significant)
    power = len(whole) + int(exponent or 0) - leading_zeros - 1
    significant = significant.rstrip("0")
    return f"{'-' if value < 0 else ''}{significant[0]}.{significant[1:] or '0'}E{power}"
