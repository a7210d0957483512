"""The real disk: short writes, positional reads, locks, atomic replacement."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ottla.env import disk as disk_module
from ottla.env.disk import RealDisk


def test_appends_go_to_the_end_and_reads_anywhere(tmp_path: Path) -> None:
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    assert file.append([b"one", memoryview(b"two")]) == 6
    assert file.append([b"three"]) == 5
    assert file.size() == 11
    assert file.read(3, 3) == b"two"
    assert file.read(6, 100) == b"three"
    assert file.read(50, 10) == b""
    assert bytes(file.read_cached(3, 8) or b"") == b"twothree"
    assert bytes(file.read_cached(3, 100) or b"") == b"twothree"
    file.truncate(3)
    file.append([b"2"])
    file.write_at(0, b"ONE")
    file.sync()
    assert (tmp_path / "a").read_bytes() == b"ONE2"


def test_a_missing_file_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RealDisk().open(str(tmp_path / "missing"))


def test_a_file_stays_readable_as_long_as_someone_holds_it(tmp_path: Path) -> None:
    disk = RealDisk()
    path = str(tmp_path / "a")
    file = disk.open(path, create=True)
    file.append([b"data"])
    held = file
    del file
    disk.rename(path, path + ".deleted")
    disk.remove(path + ".deleted")
    assert held.read(0, 4) == b"data"
    before = len(os.listdir("/proc/self/fd"))
    del held
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_what_is_not_in_memory_is_told_and_what_cannot_tell_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    file.append([b"data"])

    def fail(code: int) -> None:
        def preadv(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(disk_module.os, "preadv", preadv)

    fail(errno.EAGAIN)
    assert file.read_cached(0, 4) is None
    fail(errno.EOPNOTSUPP)
    assert file.read_cached(0, 4) == b"data"
    fail(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        file.read_cached(0, 4)
    monkeypatch.setattr(disk_module.os, "preadv", lambda *_: 2)
    assert file.read_cached(0, 4) is None


def test_who_reads_on_behind_what_was_missing_does_so_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reads ahead for it, and takes whoever asks for what has come the time for that."""
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    file.append([b"0123456789"])
    asked: list[int] = []
    whole, missing = os.preadv, {2}

    def preadv(fd: int, buffers: list[bytearray], position: int, flags: int) -> int:
        asked.append(position)
        if position in missing:
            raise BlockingIOError(errno.EAGAIN, "it is not in memory")
        return whole(fd, buffers, position)

    def read(position: int) -> bytes | None:
        data = file.read_resident(position, 1)
        return None if data is None else bytes(data)

    monkeypatch.setattr(disk_module.os, "preadv", preadv)
    assert [read(0), read(2)] == [b"0", None]
    asked.clear()
    # Up to where the file ended, and not what comes afterwards.
    file.append([b"ab"])
    assert [read(3), read(9), read(10), read(1)] == [None, None, b"a", b"1"]
    assert asked == [10, 1]
    # Small reads, of headers, are not held back: they would be asked again and again otherwise.
    assert bytes(file.read_cached(3, 1) or b"") == b"3"
    # The next one who comes there finds out whether it is there by now.
    missing.clear()
    assert [read(2), read(3)] == [b"2", b"3"]
    missing.add(1)
    assert read(1) is None
    file.truncate(4)
    file.append([b"xyz"])
    assert [read(3), read(4)] == [None, b"x"]


@pytest.mark.parametrize("count", [0, 3, 6, 8])
def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    whole = os.pwritev

    def some_bytes(fd: int, buffers: list[bytes], position: int) -> int:
        return whole(fd, [b"".join(buffers)[:count]], position)

    monkeypatch.setattr(disk_module.os, "pwritev", some_bytes)
    assert file.append([b"hello ", b"world"]) == 11
    assert file.append([b"!!!!!"]) == 5
    assert (tmp_path / "a").read_bytes() == b"hello world!!!!!"


def test_a_write_that_runs_out_of_room_fails_and_is_not_counted(tmp_path: Path) -> None:
    """With a real limit on a file's size, which stops a write half way just as a full disk does."""
    script = """
import resource, signal, sys
from ottla.env.disk import RealDisk
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
file = RealDisk().open(sys.argv[1], create=True)
file.append([b"x" * 60])
try:
    file.append([b"y" * 30, b"z" * 30])
except OSError as error:
    print(error.errno, file.size())
file.truncate(file.size())
file.append([b"w" * 40])
print(file.size())
"""
    path = tmp_path / "a"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [str(errno.EFBIG), "60", "100"]
    assert path.read_bytes() == b"x" * 60 + b"w" * 40


def test_replacing_a_file_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    disk = RealDisk()
    path = str(tmp_path / "a")
    for sync in (True, False):
        disk.write_file(path, b"old", sync=sync)
        disk.write_file(path, b"new", sync=sync)
        assert disk.read_file(path) == b"new"
    assert disk.list(str(tmp_path)) == ["a"]


def test_a_lock_keeps_out_this_process_and_others(tmp_path: Path) -> None:
    disk = RealDisk()
    path = str(tmp_path / ".lock")
    lock = disk.lock(path)
    with pytest.raises(BlockingIOError):
        disk.lock(path)
    # What Apache Kafka does, in another process.
    script = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", script, path]
    other = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert other.returncode == 1 and b"BlockingIOError" in other.stderr
    lock.release()
    lock.release()
    disk.lock(path).release()
    subprocess.run(command, check=True, timeout=60)


def test_folders(tmp_path: Path) -> None:
    disk = RealDisk()
    folder = str(tmp_path / "a" / "b")
    disk.make_dirs(folder)
    disk.make_dirs(folder)
    disk.sync_dir(folder)
    disk.write_file(folder + "/x", b"12345")
    assert disk.exists(folder) and not disk.exists(folder + "/y")
    assert disk.size(folder + "/x") == 5
    assert disk.modified_ms(folder + "/x") > 1_600_000_000_000
    disk.remove(folder + "/y")
    disk.remove_tree(str(tmp_path / "a"))
    assert not disk.exists(folder)
    total, usable = disk.free_bytes(str(tmp_path))
    assert total >= usable > 0
    assert disk.open_files_max() > 0


def test_blocking_work_runs_in_a_thread() -> None:
    disk = RealDisk()

    async def run() -> int:
        return await disk.run(threading.get_ident)

    assert asyncio.run(run()) != threading.get_ident()
    disk.close()


def test_a_pipe_in_a_files_place_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reading = threading.Thread(
        target=lambda: got.append(RealDisk().read_file(str(tmp_path / "pipe"))), daemon=True
    )
    reading.start()
    reading.join(60)
    assert got == [b""]
