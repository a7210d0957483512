"""Files that may be anything are read whole, or not at all, and in bounded time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ottla.cli.client_properties import client_properties
from ottla.cli.errors import CliError
from ottla.env import small_files
from ottla.env.key_files import read_key_file
from ottla.env.small_files import read_regular, read_within


def changing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None], times: int) -> None:
    """Have something happen to a file in the middle of being read, so many times."""
    left = [times]

    class Changing:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def read(self, fd: int, count: int) -> bytes:
            if left[0]:
                left[0] -= 1
                change()
            return os.read(fd, count)

    monkeypatch.setattr(small_files, "os", Changing())


@pytest.mark.parametrize("new", [b"long" * 100_000, b"", b"other"])
def test_a_file_that_changes_meanwhile_is_read_anew(
    new: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"first" * 30_000)
    changing(monkeypatch, lambda: file.write_bytes(new) and None, 1)
    assert read_regular(str(file), 1 << 20).data == new


def test_one_that_never_holds_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")

    times = iter(range(1, 100))

    def touch() -> None:
        os.utime(file, ns=(0, next(times)))

    changing(monkeypatch, touch, 99)
    with pytest.raises(ValueError, match="being written"):
        read_key_file(str(file))


def test_what_is_too_large_or_no_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1025))
    with pytest.raises(ValueError, match="larger than 1 KiB"):
        read_regular(str(file), 1024)
    with pytest.raises(ValueError, match="larger than 1 KiB"):
        read_within(str(file), 1024)
    assert len(read_within(str(file), 1025)) == 1025
    with pytest.raises(ValueError, match="no file"):
        read_regular("/dev/zero", 1024)
    with pytest.raises(IsADirectoryError):
        read_regular(str(tmp_path), 1024)
    with pytest.raises(ValueError, match="larger than"):
        read_within("/dev/zero", 1024)
    assert read_within("/dev/null", 1024) == b""
    with pytest.raises(OSError, match="directory"):
        read_within(str(tmp_path), 1024)


def test_a_pipe_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(TimeoutError, match="nothing comes"):
        read_within(str(pipe), 1024, 0.01)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"client.id=x\n",))
    writer.start()
    assert client_properties([f"@{pipe}"]) == {"client.id": "x"}
    writer.join()


def test_properties_of_a_device_end() -> None:
    with pytest.raises(CliError, match="larger than 4 MiB"):
        client_properties(["@/dev/zero"])
