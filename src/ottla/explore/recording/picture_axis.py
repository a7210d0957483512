"""The time axis of a picture: virtual seconds from left to right, with quiet stretches cut short."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import log10
from typing import NamedTuple

from ottla.explore.recording.picture_svg import duration

# A stretch is quiet if it is longer than this share of all the time in which something happens.
QUIET_SHARE = 0.09
# And longer than this share of the whole run.
QUIET_SHARE_MIN = 0.01
# So wide a cut is drawn, in pixels, and so many at most: the longest ones.
CUT_WIDTH = 60.0
CUTS_MAX = 8
# Beside a cut so much of the stretch is still drawn, as a share of what counts as quiet.
BESIDE_SHARE = 0.2
# So far apart are two labels on the axis, in pixels.
TICK_WIDTH = 62.0
# How wide a letter of a cut's label is, and half of a time: they do not touch.
LABEL_LETTER, TICK_HALF = 5.6, 18.0
# Each label of the axis may be joined by finer ones when somebody zooms in, up to so many in all.
TICKS_MAX = 400


class Piece(NamedTuple):
    """Time from ``begin_s`` to ``end_s``, drawn from ``left`` to ``right``, all at one scale."""

    begin_s: float
    end_s: float
    left: float
    right: float
    is_cut: bool


class Tick(NamedTuple):
    x: float
    label: str
    # From so much zoom on there is room for it: 1 is the picture as it is.
    zoom: float


class Label(NamedTuple):
    """How long a cut is, in its middle: in words that no time is said in."""

    x: float
    text: str
    title: str

    @property
    def half_width(self) -> float:
        return len(self.text) * LABEL_LETTER / 2


class Axis:
    """Where a time is, in pixels from 0 to ``width``: `linear` and `elastic` make one."""

    def __init__(self, pieces: Sequence[Piece], points_s: Sequence[float] = ()) -> None:
        self.pieces = pieces
        self.begin_s, self.end_s, self.width = pieces[0].begin_s, pieces[-1].end_s, pieces[-1].right
        self._begins = [piece.begin_s for piece in pieces]
        # An elastic axis is labelled at these.
        self._points_s = points_s

    @property
    def cuts(self) -> list[Piece]:
        return [piece for piece in self.pieces if piece.is_cut]

    def x(self, time_s: float) -> float:
        """A time outside of the axis is at its edge."""
        time_s = min(max(time_s, self.begin_s), self.end_s)
        piece = self.pieces[max(0, bisect_right(self._begins, time_s) - 1)]
        part = (time_s - piece.begin_s) / max(piece.end_s - piece.begin_s, 1e-12)
        return piece.left + min(part, 1.0) * (piece.right - piece.left)

    def ticks(self) -> list[Tick]:
        """Labels that do not touch each other, and finer ones for when there is more room."""
        if self._points_s:
            return self._elastic_ticks()
        found: dict[float, Tick] = {}
        labels = self.labels()
        whole = max(
            (piece for piece in self.pieces if not piece.is_cut), key=lambda one: one.right - one.left
        )
        step_s = _round_up(TICK_WIDTH * (whole.end_s - whole.begin_s) / (whole.right - whole.left))
        for zoom in (1.0, 5.0, 25.0):
            for tick in self._ticks(step_s / zoom, zoom):
                if all(abs(tick.x - other.x) * zoom >= TICK_WIDTH * 0.7 for other in found.values()) and all(
                    abs(tick.x - label.x) * zoom >= label.half_width + TICK_HALF for label in labels
                ):
                    found[tick.x] = tick
                if len(found) >= TICKS_MAX:
                    break
        return sorted(found.values())

    def labels(self) -> list[Label]:
        """Of each cut how much later it is behind it; fewer words where others are near."""
        middles = [(cut.left + cut.right) / 2 for cut in self.cuts]
        found = []
        for at, (cut, x) in enumerate(zip(self.cuts, middles, strict=True)):
            length = duration(cut.end_s - cut.begin_s)
            label = Label(x, f"⋯ {length} later ⋯", f"{length} in which nothing new happens")
            room = min(
                [x, self.width - x, *(abs(x - other) / 2 for other in middles[:at] + middles[at + 1 :])]
            )
            found.append(label if label.half_width < room else label._replace(text=f"⋯ {length} ⋯"))
        return found

    def _elastic_ticks(self) -> list[Tick]:
        """The points, and between two of them how long it is from one to the other."""
        found: list[Tick] = []
        xs = [self.x(point_s) for point_s in self._points_s]
        for at, (point_s, x) in enumerate(zip(self._points_s, xs, strict=True)):
            if not found or x - found[-1].x >= TICK_WIDTH * 0.85:
                found.append(Tick(x, f"{point_s:.3f} s", 1.0))
            if at + 1 < len(xs) and xs[at + 1] - x >= 2 * TICK_WIDTH:
                length = duration(self._points_s[at + 1] - point_s)
                found.append(Tick((x + xs[at + 1]) / 2, f"+{length}", 1.0))
        return found

    def _ticks(self, step_s: float, zoom: float) -> Iterable[Tick]:
        decimals = max(0, len(f"{step_s:.6f}".rstrip("0").partition(".")[2]))
        for piece in self.pieces:
            if piece.is_cut:
                continue
            number = int(-(-piece.begin_s // step_s))
            while number * step_s <= piece.end_s:
                x = self.x(number * step_s)
                # A label at the edge would be cut off.
                if x == 0 or 20 <= x <= self.width - 24:
                    yield Tick(x, f"{number * step_s:.{decimals}f} s", zoom)
                number += 1


def linear(times_s: Iterable[float], begin_s: float, end_s: float, width: float) -> Axis:
    """An axis of one scale. ``times_s``: when something happens; a long stretch without any becomes a cut."""
    end_s = _behind(begin_s, end_s)
    inside = sorted({time_s for time_s in times_s if begin_s < time_s < end_s})
    cuts = _cuts([begin_s, *inside, end_s])
    drawn_s = end_s - begin_s - sum(after - before for before, after in cuts)
    scale = (width - CUT_WIDTH * len(cuts)) / drawn_s
    pieces, at_s, x = [], begin_s, 0.0
    for before_s, after_s in cuts:
        right = x + (before_s - at_s) * scale
        pieces.append(Piece(at_s, before_s, x, right, False))
        pieces.append(Piece(before_s, after_s, right, right + CUT_WIDTH, True))
        at_s, x = after_s, right + CUT_WIDTH
    return Axis([*pieces, Piece(at_s, end_s, x, width, False)])


def elastic(points_s: Iterable[float], begin_s: float, end_s: float, width: float) -> Axis:
    """An axis on which all points have room, however near they are: long times are wider, but not by much."""
    end_s = _behind(begin_s, end_s)
    least_s = max(1e-6, (end_s - begin_s) * 1e-9)
    points = [begin_s]
    for point_s in sorted(points_s):
        if points[-1] + least_s < point_s < end_s - least_s:
            points.append(point_s)
    stretches = list(pairwise([*points, end_s]))
    lengths_s = [after - before for before, after in stretches]
    weights = [1 + 0.4 * log10(length_s / min(lengths_s)) for length_s in lengths_s]
    # Before the first point and behind the last one there is nothing to be seen.
    weights[0], weights[-1] = 0.5, 0.8
    pieces, x = [], 0.0
    for (before_s, after_s), weight in zip(stretches, weights, strict=True):
        right = x + width * weight / sum(weights)
        pieces.append(Piece(before_s, after_s, x, right, False))
        x = right
    return Axis(pieces, points[1:])


def _behind(begin_s: float, end_s: float) -> float:
    """An axis has a length."""
    return max(end_s, begin_s + max(1e-3, abs(begin_s) * 1e-9))


def _cuts(times_s: list[float]) -> list[tuple[float, float]]:
    """The stretches to be cut short: those longer than a share of what is left when they are cut."""
    gaps = [(after - before, before, after) for before, after in pairwise(times_s)]
    whole_s = times_s[-1] - times_s[0]
    quiet_s = whole_s * QUIET_SHARE
    for _ in range(8):
        long_s = [gap[0] for gap in gaps if gap[0] > quiet_s]
        quiet_s = (whole_s - sum(long_s) + len(long_s) * quiet_s) * QUIET_SHARE
    quiet_s = max(quiet_s, whole_s * QUIET_SHARE_MIN)
    # Less than twice as much is no relief.
    long = sorted(gap for gap in gaps if gap[0] > 2 * quiet_s)[-CUTS_MAX:]
    beside_s = quiet_s * BESIDE_SHARE
    return sorted((before + beside_s, after - beside_s) for _, before, after in long)


def _round_up(step_s: float) -> float:
    """The next of 1, 2, 5, 10, 20, …, or of their fractions."""
    size = 1e-6
    while True:
        for factor in (1, 2, 5):
            if factor * size >= step_s:
                return factor * size
        size *= 10
