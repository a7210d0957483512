"""A scrape's lines, read back: whoever writes many of them writes text, and only few send them elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LINE = re.compile(r"([a-zA-Z0-9_:]+)(?:\{(.*)\})? (\S+)\n", re.DOTALL)
_LABEL = re.compile(r'([a-zA-Z0-9_]+)="((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One line. ``name`` is the metric's, with what follows it in histograms."""

    name: str
    labels: Labels
    value: float


class Ranges(NamedTuple):
    """A histogram: up to what each range goes, and how many there are in each, one more behind the last."""

    labels: Labels
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


def samples(lines: Iterable[str]) -> Iterator[Sample]:
    """Each line of a page."""
    for line in lines:
        found = _LINE.fullmatch(line)
        assert found is not None, line
        labels = tuple((name, _unescaped(value)) for name, value in _LABEL.findall(found[2] or ""))
        yield Sample(found[1], labels, float(found[3]))


def ranges(lines: Iterable[str]) -> Iterator[Ranges]:
    """Each histogram among the lines of one metric, which stand as ``Page.add_ranges`` has them."""
    bounds: list[float] = []
    so_far: list[int] = []
    total = 0.0
    for name, labels, value in samples(lines):
        if name.endswith("_bucket"):
            bounds.append(float(dict(labels)["le"]))
            so_far.append(int(value))
        elif name.endswith("_sum"):
            total = value
        else:
            counts = [count - before for before, count in zip([0, *so_far], so_far, strict=False)]
            yield Ranges(labels, tuple(bounds[:-1]), tuple(counts), total)
            bounds, so_far = [], []


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text)
