"""Figures as pages show them: with the two digits that another run would show again, or nearly."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def two_digits(figure: float) -> str:
    """A figure with two digits: 1,091,494 is 1,100,000."""
    if not figure:
        return "0"
    places = 1 - math.floor(math.log10(abs(figure)))
    rounded = round(figure, places)
    # A figure that is rounded up to a power of ten has a digit more.
    return f"{rounded:,.{max(0, 1 - math.floor(math.log10(abs(rounded))))}f}"


def summary(values: Sequence[float]) -> str:
    """The median, and the range where it differs in two digits; '-' without values."""
    if not values:
        return "-"
    median, low, high = map(two_digits, (statistics.median(values), min(values), max(values)))
    return median if low == high else f"{median} ({low} – {high})"
