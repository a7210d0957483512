"""Whether large writes are for threads: by what the writes before have taken, and by nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ottla.env.disk import RealDisk
from ottla.env.held import LARGE_BYTES, NEVER_BYTES, QUIET_WRITES, STOPPED_MS, TIMED_BYTES, Held

MIB = 1024 * 1024
QUICK_MS = 0.2


def test_quick_writes_are_nothing_for_threads() -> None:
    held = Held()
    for _ in range(3 * QUIET_WRITES):
        held.note(MIB, QUICK_MS, 0)
    # Nor is a single one that was not, if nobody stopped it.
    held.note(MIB, 5, STOPPED_MS / 2)
    assert held.aside_bytes == NEVER_BYTES


def test_writes_that_are_stopped_are_for_threads_until_none_has_been_for_long() -> None:
    held = Held()
    held.note(MIB, QUICK_MS, 20)
    for _ in range(QUIET_WRITES - 1):
        held.note(MIB, QUICK_MS, 0)
        assert held.aside_bytes == TIMED_BYTES
    held.note(MIB, QUICK_MS, 20)
    for _ in range(QUIET_WRITES):
        assert held.aside_bytes == TIMED_BYTES
        held.note(MIB, QUICK_MS, 0)
    assert held.aside_bytes == NEVER_BYTES


@pytest.mark.parametrize("size", [TIMED_BYTES, MIB])
def test_of_writes_that_take_long_the_large_ones_are_for_threads(size: int) -> None:
    held = Held()
    for _ in range(20):
        held.note(size, 2.5 * size / MIB, 0)
    assert held.aside_bytes == LARGE_BYTES
    for _ in range(20):
        held.note(size, QUICK_MS * size / MIB, 0)
    assert held.aside_bytes == NEVER_BYTES


def test_writes_of_a_disk_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[tuple[int, bool, bool]] = []
    monkeypatch.setattr(
        Held, "note", lambda _, size, cpu_ms, stopped_ms: noted.append((size, cpu_ms >= 0, stopped_ms > 0))
    )
    disk = RealDisk()
    try:
        file = disk.open(str(tmp_path / "log"), create=True)
        file.append([bytes(TIMED_BYTES - 1)])
        assert noted == []
        file.append([bytes(TIMED_BYTES), bytes(1)])
        assert [(size, counts) for size, counts, _ in noted] == [(TIMED_BYTES + 1, True)]
        # One that has to wait for something is told from one that computes.
        receiving, sending = os.pipe()
        mark = Held.begin()
        os.write(sending, b"x")
        os.read(receiving, 1)
        Held().wrote(MIB, mark)
        assert noted[1][:2] == (MIB, True)
        for end in (receiving, sending):
            os.close(end)
    finally:
        disk.close()


def test_the_disk_says_what_is_for_threads() -> None:
    disk = RealDisk()
    try:
        assert not disk.writes_aside(100 * MIB)
        disk._held.note(MIB, QUICK_MS, 20)
        assert disk.writes_aside(TIMED_BYTES) and not disk.writes_aside(TIMED_BYTES - 1)
    finally:
        disk.close()
