"""Plain counters that a scrape collects. Who counts owns them, and counting costs next to nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """How often something took how long, in milliseconds. Its size is fixed."""

    __slots__ = ("bounds_ms", "counts", "max_ms", "sum_ms")

    def __init__(self, bounds_ms: Sequence[float]) -> None:
        """``bounds_ms``: up to what each range goes, ascending; behind them is one without an end."""
        self.bounds_ms = tuple(bounds_ms)
        self.counts = [0] * (len(self.bounds_ms) + 1)
        self.sum_ms = 0.0
        self.max_ms = 0.0

    def add(self, took_ms: float) -> None:
        self.counts[bisect_left(self.bounds_ms, took_ms)] += 1
        self.sum_ms += took_ms
        if took_ms > self.max_ms:
            self.max_ms = took_ms

    @property
    def count(self) -> int:
        return sum(self.counts)

    def __str__(self) -> str:
        ranges = [f"<= {bound:g} ms" for bound in self.bounds_ms] + ["more"]
        shares = [f"{count} {name}" for name, count in zip(ranges, self.counts, strict=True) if count]
        return f"{', '.join(shares) or 'none'}; {self.sum_ms:.0f} ms in all, at most {self.max_ms:.1f}"
