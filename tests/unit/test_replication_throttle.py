"""The rate that replication is held to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.replication.throttle import Quota, RateMeter, is_listed

SECOND = 1_000


def test_a_first_window_counts_whole() -> None:
    meter = RateMeter(SECOND, 11)
    assert meter.rate(0) == 0
    meter.record(500, 0)
    assert meter.rate(0) == meter.rate(999) == 500
    assert meter.rate(2_000) == 250
    meter.record(500, 2_000)
    assert meter.rate(2_000) == 500


def test_what_is_older_than_all_windows_is_forgotten() -> None:
    meter = RateMeter(SECOND, 3)
    meter.record(900, 0)
    meter.record(300, 2_500)
    assert meter.rate(2_999) == 1_200 * 1_000 / 2_999
    assert meter.rate(3_000) == 300
    assert meter.rate(9_000) == 0


def test_a_pause_is_as_long_as_it_has_to_be() -> None:
    quota = Quota(100, SECOND, 11)
    assert quota.pause_ms(0) == 0
    quota.record(100, 0)
    assert quota.pause_ms(0) == 0
    quota.record(400, 0)
    assert quota.pause_ms(0) == 5_000
    assert quota.pause_ms(4_000) == 1_000
    assert quota.pause_ms(5_000) == 0
    # Not longer than what caused it is remembered.
    quota.record(10**9, 5_000)
    assert quota.pause_ms(5_000) == 6_000
    quota.rate_max = 10**10
    assert quota.pause_ms(5_000) == 0
    quota.rate_max = 0
    assert quota.pause_ms(5_000) == 6_000


@given(
    st.lists(st.tuples(st.integers(1, 50_000), st.integers(0, 3_000)), min_size=1, max_size=200),
    st.sampled_from([1_000, 10_000, 200_000]),
)
def test_whoever_keeps_to_the_pauses_keeps_to_the_rate(wishes: list[tuple[int, int]], rate_max: int) -> None:
    """Over any time it is what the rate allows, two windows' worth and one piece more."""
    quota = Quota(rate_max, SECOND, 11)
    sent: list[tuple[int, int]] = []
    now_ms = 0
    for size, after_ms in wishes:
        now_ms += after_ms
        while pause_ms := quota.pause_ms(now_ms):
            now_ms += pause_ms
        quota.record(size, now_ms)
        sent.append((now_ms, size))
    total = sum(size for _, size in sent)
    elapsed_ms = sent[-1][0] - sent[0][0]
    assert total <= rate_max * (elapsed_ms + 2 * SECOND) / 1_000 + 50_000 * (1 + elapsed_ms // 11_000)


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [((), False), (("*",), True), (("0:1",), False), (("0:2", "3:2"), True), (("13:2", "3:22"), False)],
)
def test_who_is_listed(replicas: tuple[str, ...], expected: bool) -> None:
    assert is_listed(replicas, 3, 2) is expected
