"""Renders docs/BENCHMARKS.md, docs/GROWTH.md and its plots from what was measured last (bench/results)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import growth_page  # noqa: E402
import page  # noqa: E402


def pages() -> dict[str, str]:
    """The pages and the plots, by their names below docs/: of those results that are there."""
    found = {}
    if (results := _results("compare")) is not None:
        found["BENCHMARKS.md"] = page.render(results)
    if (results := _results("growth")) is not None:
        found["GROWTH.md"] = growth_page.render(results)
        found |= {growth_page.picture(of, plot): svg for of, plot, svg in growth_page.plots(results)}
    return found


def _results(name: str) -> dict[str, Any] | None:
    path = BENCH / "results" / f"{name}.json"
    results: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return results
