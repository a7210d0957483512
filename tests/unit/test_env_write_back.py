"""Files are written back early, a step at a time, and never twice."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ottla.env import write_back
from ottla.env.disk import PAGE_BYTES, RealDisk
from ottla.env.write_back import STEP_BYTES, WriteBack

STEP = bytes(STEP_BYTES)


class Kernel:
    """Takes note of what is begun; ``held`` while it is not set."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.came = threading.Semaphore(0)

    def begin(self, descriptor: int, start: int, size: int, flags: int) -> int:
        os.fstat(descriptor)
        # Not to wait: that would take errors away from the next sync.
        assert flags == 2
        self.came.release()
        assert self.goes_on.wait(10)
        self.begun.append((start, start + size))
        return -1


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def disk(kernel: Kernel) -> RealDisk:
    return RealDisk(WriteBack(kernel.begin))


def test_a_file_that_grows_is_handed_over_a_step_at_a_time(
    tmp_path: Path, disk: RealDisk, kernel: Kernel
) -> None:
    file = disk.open(str(tmp_path / "a"), create=True)
    file.append([b"x" * 100])
    for _ in range(3):
        assert kernel.begun == []
        file.append([STEP[: STEP_BYTES // 3 - 200]])
    file.append([STEP[:600]])
    # Whole pages: the last one goes on changing.
    assert kernel.came.acquire(timeout=60)
    file.append([STEP[: STEP_BYTES - 50]])
    disk.close()
    end = STEP_BYTES - STEP_BYTES % PAGE_BYTES
    assert kernel.begun[0] == (0, end) and end >= STEP_BYTES - PAGE_BYTES
    assert kernel.begun[1:] in ([], [(end, 2 * end)])


def test_what_is_there_when_it_is_opened_is_not_written_again(
    tmp_path: Path, disk: RealDisk, kernel: Kernel
) -> None:
    (tmp_path / "a").write_bytes(STEP)
    disk.open(str(tmp_path / "a")).append([STEP])
    assert kernel.came.acquire(timeout=60)
    disk.close()
    assert kernel.begun == [(STEP_BYTES, 2 * STEP_BYTES)]


def test_what_is_written_over_something_that_was_cut_off_is_written_back_too(
    tmp_path: Path, disk: RealDisk, kernel: Kernel
) -> None:
    file = disk.open(str(tmp_path / "a"), create=True)
    file.append([STEP, STEP])
    assert kernel.came.acquire(timeout=60)
    file.truncate(PAGE_BYTES)
    file.append([STEP])
    assert kernel.came.acquire(timeout=60)
    disk.close()
    assert kernel.begun == [(0, 2 * STEP_BYTES), (PAGE_BYTES, STEP_BYTES + PAGE_BYTES)]


def test_a_disk_that_is_slow_is_given_what_has_come_meanwhile_in_one_step(
    tmp_path: Path, disk: RealDisk, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_back, "WAITING_STEPS_MAX", 2)
    file = disk.open(str(tmp_path / "a"), create=True)
    kernel.goes_on.clear()
    for _ in range(5):
        file.append([STEP])
    kernel.goes_on.set()
    for _ in range(2):
        assert kernel.came.acquire(timeout=60)
    # The second one is counted out once it is done.
    while disk._write_back._waiting:
        threading.Event().wait(0.001)
    file.append([STEP])
    assert kernel.came.acquire(timeout=60)
    disk.close()
    assert kernel.begun == [(0, STEP_BYTES), (STEP_BYTES, 2 * STEP_BYTES), (2 * STEP_BYTES, 6 * STEP_BYTES)]


def test_what_waits_when_the_disk_closes_is_dropped_and_a_file_is_held_open_until_then(
    tmp_path: Path, disk: RealDisk, kernel: Kernel
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    file = disk.open(str(tmp_path / "a"), create=True)
    kernel.goes_on.clear()
    for _ in range(3):
        file.append([STEP])
    del file
    assert kernel.came.acquire(timeout=60)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    threading.Timer(0.05, kernel.goes_on.set).start()
    disk.close()
    assert kernel.begun == [(0, STEP_BYTES)]
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_kernel_takes_it(tmp_path: Path) -> None:
    results = []
    begin = write_back._sync_file_range()
    assert begin is not None

    def call(descriptor: int, start: int, size: int, flags: int) -> int:
        results.append(begin(descriptor, start, size, flags))
        return 0

    back = WriteBack(call)
    file = RealDisk(back).open(str(tmp_path / "a"), create=True)
    file.append([STEP])
    file.sync()
    while back._waiting:
        threading.Event().wait(0.001)
    back.close()
    assert results == [0] and begin(-1, 0, 1, 2) == -1
