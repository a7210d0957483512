"""Splitting what is much into what may be handled at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ottla.broker.large import (
    AT_ONCE_MAX,
    CHARACTERS_AT_ONCE_MAX,
    USUAL_LENGTH_MAX,
    are_usual,
    chunks,
    given_away,
)


@given(st.lists(st.integers(0, 40_000), max_size=40))
def test_chunks_are_all_names_in_order_and_none_is_too_much(lengths: list[int]) -> None:
    names = ["x" * length for length in lengths]
    found = list(chunks(names))
    assert [name for some in found for name in some] == names
    for some in found:
        assert some
        assert len(some) == 1 or sum(map(len, some)) <= CHARACTERS_AT_ONCE_MAX


def test_short_names_are_handled_many_at_once() -> None:
    assert [len(some) for some in chunks(["g"] * (2 * AT_ONCE_MAX + 1))] == [AT_ONCE_MAX, AT_ONCE_MAX, 1]
    assert list(chunks([])) == []


def test_what_is_usual() -> None:
    assert are_usual(["x" * USUAL_LENGTH_MAX] * 3)
    assert not are_usual(["x", "x" * (USUAL_LENGTH_MAX + 1)])


def test_what_is_given_away_is_not_kept() -> None:
    elements = list(range(5))
    given_away_ones = given_away(elements)
    assert len(given_away_ones) == 5
    for number, one in enumerate(given_away_ones):
        assert one == number
        assert one not in elements and len(elements) == 4 - number
