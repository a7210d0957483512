"""Figures on pages: two digits, and those that were calculated are marked."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench"))

import comparison  # noqa: E402
import scaling_page  # noqa: E402
from figures import summary, two_digits  # noqa: E402


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        (1_091_494, "1,100,000"),
        (33_333_333, "33,000,000"),
        (0.813, "0.81"),
        (0.0996, "0.10"),
        (0.03, "0.030"),
        (9.96, "10"),
        (99.6, "100"),
        (0, "0"),
    ],
)
def test_two_digits_of_a_figure(figure: float, shown: str) -> None:
    assert two_digits(figure) == shown


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "-"),
        ([5.0], "5.0"),
        ([50.1, 50.4], "50"),
        ([1.0, 9.0, 3.0], "3.0 (1.0 – 9.0)"),
        ([1034.0, 2987.0], "2,000 (1,000 – 3,000)"),
    ],
)
def test_medians_and_ranges(values: list[float], text: str) -> None:
    assert summary(values) == text


def clusters() -> dict[str, Any]:
    """Results in which one node was compared, and two were loaded."""
    lost = {
        "leaders": 666,
        "replicas": 1982,
        "leaders_moved_ms": 89.3,
        "all_done_ms": 116.2,
        "etcd_writes": 22,
        "etcd_writes_per_s": 189.4,
        "watch_events": 1983,
        "watch_bytes": 293_000,
        "cpu_s": 0.116,
    }
    load = {"keys": 3842, "bytes": 750_000, "load_s": 0.1073, "load_cpu_s": 0.069}
    return {
        "runs": {
            comparison.PRODUCE: {"ottla": [{"messages_per_s": 1_091_494, "broker_cpu_s_per_million": 0.1113}]}
        },
        "clusters": {
            "messages": 1_000_000,
            "produce": comparison.PRODUCE,
            "consume": comparison.CONSUME,
            "loads": [
                {
                    "nodes": 2,
                    "replicas": 1,
                    "acks": "1",
                    "loads": {"produce": {"rates": [1_834_000.0], "cpu": [[0.0664, 0.0612]]}},
                }
            ],
            "large": {"nodes": 30, "partitions": 20_000, "load": load, "first": lost, "second": lost},
        },
    }


def test_a_cluster_beside_the_one_node_that_was_compared() -> None:
    text = "\n".join(scaling_page.sections(clusters()))
    assert "| 1 | 1, 1 | produce | 1,100,000 | 0.11 | 0.11 | ≈ 9,000,000 |" in text
    assert "| 2 | 1, 1 | produce | 1,800,000 | 0.13 | 0.066 | ≈ 15,000,000 |" in text
    assert "consume |" not in text
    assert "| a node reads it at its start, and makes its image | 110 ms, 69 ms of CPU |" in text
    assert scaling_page.sections({"runs": {}}) == []


def test_the_page_shows_no_more_than_was_measured() -> None:
    text = (ROOT / "docs" / "BENCHMARKS.md").read_text()
    rows = re.findall(r"^\| ottla[^|]*\|(.*)\|$", text.partition("## ")[2], re.MULTILINE)
    figures = [figure for row in rows for figure in re.findall(r"\d[\d,.]*", row)]
    assert len(figures) > 100
    for figure in figures:
        assert two_digits(float(figure.replace(",", ""))) == figure
