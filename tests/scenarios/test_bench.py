"""The benchmarks' programs, from end to end on a tiny scale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.testing import Broker

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import growth_page  # noqa: E402
import load  # noqa: E402
from growth_axes import AXES, Axis  # noqa: E402
from growth_subject import Rig, visited  # noqa: E402

needs_compiler = pytest.mark.skipif(load.compiler() is None, reason="bench/load.c needs a C compiler")


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(config={"max.incremental.fetch.session.cache.slots": 10}) as started:
        yield started


@needs_compiler
def test_growth_measures_a_broker_of_its_own_and_one_at_an_address(tmp_path: Path) -> None:
    """And leaves nothing behind there."""
    results, page = tmp_path / "growth.json", tmp_path / "docs" / "GROWTH.md"
    with Broker(topics={"theirs": 1}) as peer:
        command = [sys.executable, str(ROOT / "bench" / "growth"), "--axes", "groups", "--groups", "3"]
        command += ["--seconds", "0.1"]
        command += [
            "--peer",
            f"peer={peer.bootstrap_servers}",
            "--results",
            str(results),
            "--page",
            str(page),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert peer.topics() == {"theirs": 1}
    axes = json.loads(results.read_text())["axes"]
    own, other = axes["groups"]["3"]["ottla"], axes["groups"]["3"]["peer"]
    assert own["start_killed_s"] > 0 and own["stop_s"] > 0 and own["commit_cpu_us"] > 0
    assert "start_s" not in other and other["commit_p50_ms"] > 0
    assert "## Consumer groups" in page.read_text()
    assert "clean stop" in done.stdout


@needs_compiler
@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_each_axis_measures_what_the_page_has_of_it(
    axis: Axis, broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """But for starts and stops, which are of brokers that it starts itself, and memory of each connection."""
    rig = Rig(load.build(tmp_path_factory.getbasetemp() / "load"), 0.1, lambda said: None)
    figures: dict[str, float] = {}
    host, _, port = broker.bootstrap_servers.rpartition(":")
    with visited("peer", host, int(port), frozenset([os.getpid()])) as subject:
        axis.measure(subject, 3, rig, figures)
    (section,) = [one for one in growth_page.SECTIONS if one.axis == axis.name]
    own = {"stop_s", "start_s", "start_killed_s", "lag_max_ms", "connection_kb"}
    own |= {"produce_by_cold_p50_ms", "produce_by_cold_p99_ms"}
    assert figures.keys() | own >= {row.name for row in section.rows}
    drawn = {name for plot in section.plots for name, _ in plot.lines}
    assert drawn <= {row.name for row in section.rows}
    assert all(value >= 0 for name, value in figures.items() if "cpu" not in name)
    assert broker.topics() == {}


@needs_compiler
def test_comparison_measures_a_broker_of_its_own_and_one_at_an_address(tmp_path: Path) -> None:
    """And leaves nothing behind there."""
    results, page = tmp_path / "compare.json", tmp_path / "docs" / "BENCHMARKS.md"
    with Broker(topics={"theirs": 1}) as peer:
        command = [sys.executable, str(ROOT / "bench" / "compare"), "--only", "8 connections", "--with", ""]
        command += ["--scale", "0.01", "--runs", "1", "--prefault-gb", "0.001"]
        command += [
            "--peer",
            f"peer={peer.bootstrap_servers}",
            "--results",
            str(results),
            "--page",
            str(page),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert peer.topics() == {"theirs": 1}
    runs = json.loads(results.read_text())["runs"]
    assert list(runs) == ["One-message Produce, 8 connections", "Metadata, 8 connections"]
    for step in runs.values():
        assert step.keys() == {"ottla", "peer"}
        assert all(figures[0]["requests_per_s"] > 0 for figures in step.values())
        assert step["ottla"][0]["broker_cpu_us_per_request"] > 0
    assert "## Metadata, 8 connections" in page.read_text()
