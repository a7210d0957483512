"""Counters that a scrape collects."""

from __future__ import annotations

from ottla.metrics import Histogram


def test_a_histogram_counts_by_range_and_keeps_the_longest() -> None:
    histogram = Histogram((1, 10))
    for took_ms in (0.0, 1.0, 1.1, 10.0, 10.5, 400.0):
        histogram.add(took_ms)
    # As in Prometheus, a range has its upper bound in it.
    assert histogram.counts == [2, 2, 2]
    assert (histogram.count, histogram.max_ms, histogram.sum_ms) == (6, 400.0, 422.6)
    assert str(histogram) == "2 <= 1 ms, 2 <= 10 ms, 2 more; 423 ms in all, at most 400.0"


def test_an_empty_histogram_says_so() -> None:
    assert str(Histogram((1, 10))) == "none; 0 ms in all, at most 0.0"
