"""Samples as text, as Prometheus reads it: its own format, 0.0.4, and OpenMetrics 1.0.

All samples of a metric stand together, whoever added them in which order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from ottla.metrics import Histogram
from ottla.observe.metric import Kind, Metric

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Characters of a label's value: a client may give names of 32,767.
LABEL_CHARACTERS_MAX = 200
# Lines that are put together in one step: one metric may have 50,000.
LINES_AT_ONCE = 500

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})
_TOTAL = "_total"


def escaped(text: str) -> str:
    """What stands for a label's value between its quotes. Two that are longer than is shown may be one."""
    if len(text) > LABEL_CHARACTERS_MAX:
        text = text[: LABEL_CHARACTERS_MAX - 1] + "…"
    return text.translate(_ESCAPES)


def braced(names: Sequence[str], values: Sequence[object]) -> str:
    """Labels with their values, as they stand behind a metric's name."""
    assert len(names) == len(values), (names, values)
    if not names:
        return ""
    pairs = [f'{name}="{escaped(str(value))}"' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join(pairs) + "}"


def number(value: float) -> str:
    """A value, or the bound of a range."""
    if isinstance(value, int):
        return str(int(value))
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")


class Page:
    """What one scrape has found, line by line."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[Metric, list[str]] = {}

    def lines(self, metric: Metric) -> list[str]:
        """The metric's lines so far, for whoever has very many, and writes them itself."""
        found = self._lines.get(metric)
        if found is None:
            found = self._lines[metric] = []
        return found

    def add(self, metric: Metric, value: float, *labels: object) -> None:
        """A sample, with values for the metric's labels, in their order."""
        self.lines(metric).append(f"{metric.name}{braced(metric.labels, labels)} {number(value)}\n")

    def add_ranges(
        self, metric: Metric, bounds: Sequence[float], counts: Sequence[int], total: float, *labels: object
    ) -> None:
        """A histogram: up to what each range goes, how many there are in each, one more behind the last, and
        the sum of them all."""
        lines, name = self.lines(metric), metric.name
        inner = braced(metric.labels, labels)[1:-1]
        before = f"{inner}," if inner else ""
        whole = f"{{{inner}}}" if inner else ""
        so_far = list(accumulate(counts))
        lines += [
            f'{name}_bucket{{{before}le="{bound}"}} {count}\n'
            for bound, count in zip([*(repr(float(b)) for b in bounds), "+Inf"], so_far, strict=True)
        ]
        lines.append(f"{name}_sum{whole} {number(total)}\n")
        lines.append(f"{name}_count{whole} {so_far[-1]}\n")

    def add_milliseconds(self, metric: Metric, found: Histogram, *labels: object) -> None:
        """A histogram that counts milliseconds, of a metric in seconds."""
        bounds = [bound / 1000 for bound in found.bounds_ms]
        self.add_ranges(metric, bounds, found.counts, found.sum_ms / 1000, *labels)

    def __contains__(self, metric: Metric) -> bool:
        return metric in self._lines

    def write(self, metrics: Iterable[Metric], *, openmetrics: bool) -> Iterator[bytes]:
        """The text, of the metrics in that order and then of all others, `LINES_AT_ONCE` at a time."""
        for metric in dict.fromkeys((*metrics, *self._lines)):
            lines = self._lines.get(metric, ())
            for start in range(0, len(lines), LINES_AT_ONCE):
                head = "" if start else _head(metric, openmetrics)
                text = head + "".join(lines[start : start + LINES_AT_ONCE])
                yield text.encode("utf-8", "backslashreplace")
        if openmetrics:
            yield b"# EOF\n"


def _head(metric: Metric, openmetrics: bool) -> str:
    name = metric.name
    if openmetrics and metric.kind is Kind.COUNTER:
        name = name.removesuffix(_TOTAL)
    kind = "unknown" if openmetrics and metric.kind is Kind.UNKNOWN else metric.kind.value
    meaning = metric.meaning.translate(_ESCAPES if openmetrics else _HELP_ESCAPES)
    return f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"


def accepts_openmetrics(accept: str) -> bool:
    """Whether whoever sends this ``Accept`` prefers OpenMetrics: it is what Prometheus names first."""
    return "application/openmetrics-text" in accept
