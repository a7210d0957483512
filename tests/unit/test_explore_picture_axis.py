"""The time axis of a picture: one scale but for cuts, all times in order, labels that do not touch."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from ottla.explore.recording.picture_axis import CUT_WIDTH, TICK_WIDTH, elastic, linear

WIDTH = 1_000.0
TIMES = st.lists(st.floats(0, 1_000, allow_nan=False), max_size=30)


def test_without_quiet_stretches_it_is_one_scale() -> None:
    axis = linear([float(second) for second in range(21)], 0, 20, WIDTH)
    assert not axis.cuts
    assert [axis.x(at_s) for at_s in (0, 5, 10, 20)] == approx([0, 250, 500, 1_000])
    assert [tick.label for tick in axis.ticks() if tick.zoom == 1][:3] == ["0 s", "2 s", "4 s"]


def test_a_long_quiet_stretch_is_cut_short_and_says_how_long_it_is() -> None:
    axis = linear([second / 10 for second in range(200)], 0, 320, WIDTH)
    (cut,) = axis.cuts
    assert cut.right - cut.left == approx(CUT_WIDTH)
    assert cut.begin_s < 21 and cut.end_s > 319
    assert axis.x(19.9) > 0.9 * (WIDTH - CUT_WIDTH)
    (label,) = axis.labels()
    assert label.text == "⋯ 299 s later ⋯" and label.title == "299 s in which nothing new happens"


def test_how_long_a_cut_is_does_not_look_like_a_time() -> None:
    axis = linear([*(second / 10 for second in range(200)), *range(120, 620, 100)], 0, 620, WIDTH / 2)
    texts = [label.text for label in axis.labels()]
    # Where many are beside each other there is no room for more.
    assert len(texts) == 6 and all(re.fullmatch(r"⋯ \d\d\.\d s ⋯", text) for text in texts), texts
    assert not any("⋯" in tick.label for tick in axis.ticks())


@given(times_s=TIMES)
def test_labels_of_cuts_touch_nothing(times_s: list[float]) -> None:
    axis = linear(times_s, 0, 1_000, WIDTH)
    labels = axis.labels()
    for before, after in pairwise(labels):
        assert before.x + before.half_width <= after.x - after.half_width
    assert all(
        abs(tick.x - one.x) * tick.zoom >= one.half_width + 17 for tick in axis.ticks() for one in labels
    )
    assert all(one.x - one.half_width >= 0 and one.x + one.half_width <= WIDTH for one in labels)


def test_times_outside_are_at_the_edges() -> None:
    axis = linear([1.0], 0, 2, WIDTH)
    assert (axis.x(-5), axis.x(77)) == (0, WIDTH)


def test_an_elastic_axis_has_room_for_all_points() -> None:
    axis = elastic([1.0, 1.001, 1.002, 50.0, 700.0], 0.9, 701, WIDTH)
    xs = [axis.x(at_s) for at_s in (1.0, 1.001, 1.002, 50.0, 700.0)]
    assert min(after - before for before, after in pairwise(xs)) > 60
    assert xs[4] - xs[3] > xs[1] - xs[0]
    labels = [tick.label for tick in axis.ticks()]
    assert labels[0] == "1.000 s" and "+650 s" in labels


@given(times_s=TIMES, end_s=st.floats(0, 1_000), is_elastic=st.booleans())
def test_later_is_never_further_left(times_s: list[float], end_s: float, is_elastic: bool) -> None:
    axis = (elastic if is_elastic else linear)(times_s, 0, end_s, WIDTH)
    xs = [axis.x(at_s) for at_s in [-1.0, *sorted(times_s), 2_000.0]]
    assert xs[0] == 0 and xs[-1] == approx(WIDTH)
    assert all(before <= after + 1e-6 for before, after in pairwise(xs))
    for before, after in pairwise(axis.pieces):
        assert before.right == after.left and before.end_s == after.begin_s
        assert before.right >= before.left


@given(times_s=TIMES, zoom=st.sampled_from([1.0, 5.0, 25.0]))
def test_labels_do_not_touch_each_other(times_s: list[float], zoom: float) -> None:
    ticks = [tick for tick in linear(times_s, 0, 1_000, WIDTH).ticks() if tick.zoom <= zoom]
    assert all((after.x - before.x) * zoom >= TICK_WIDTH * 0.69 for before, after in pairwise(ticks))
