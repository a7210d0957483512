"""How many processors a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ottla.env.processors import usable


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 8),
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "what"}, 8),
        ("0::/\n", {"cpu.max": "100000 0\n"}, 8),
        # One further up counts as well; where a container sees the host's path, its own group is the top one.
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 3),
        ("0::/host/path\n", {"cpu.max": "400000 100000\n"}, 4),
        (
            "4:memory:/x\n2:cpu,cpuacct:/x\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "9\n"},
            8,
        ),
        ("2:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "50\n", "cpu/x/cpu.cfs_period_us": "10\n"}, 5),
    ],
)
def test_processors(tmp_path: Path, groups: str, files: dict[str, str], expected: int) -> None:
    for name, text in {
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{n}": t for n, t in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable(tmp_path) == expected


def test_fewer_that_the_scheduler_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert usable(tmp_path) == 1
