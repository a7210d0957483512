"""Syncing all of a volume at once: what it covers, and whether it would tell of what failed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ottla.env.volume import RealVolume, open_volume, release_tells


def test_a_volume_of_this_machine_is_synced(tmp_path: Path) -> None:
    volume = open_volume(str(tmp_path))
    assert volume is not None
    (tmp_path / "file").write_text("written")
    volume.sync()
    volume.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        volume.sync()


def test_an_error_is_raised_as_one(tmp_path: Path) -> None:
    volume = RealVolume(str(tmp_path), lambda _: errno.EIO, tells=True)
    with pytest.raises(OSError, match="Input/output error") as raised:
        volume.sync()
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(tmp_path))


def test_links_lead_away(tmp_path: Path) -> None:
    """To where a sync of the volume may not reach."""
    volume = open_volume(str(tmp_path))
    assert volume is not None
    folder = tmp_path / "topic-0"
    folder.mkdir()
    (folder / "00000000000000000000.log").write_text("")
    assert volume.holds(str(folder))
    (folder / "00000000000000000000.index").symlink_to("/dev/null")
    assert not volume.holds(str(folder))
    with pytest.raises(FileNotFoundError):
        volume.holds(str(tmp_path / "none"))


def test_a_folder_elsewhere(tmp_path: Path) -> None:
    volume = open_volume(str(tmp_path))
    assert volume is not None
    (tmp_path / "topic-1").symlink_to("/proc/self")
    assert not volume.holds(str(tmp_path / "topic-1"))


@pytest.mark.parametrize(
    ("release", "tells"),
    [
        ("5.17.0", True),
        ("6.18.44-fc", True),
        ("6.1.0-9-amd64", True),
        ("5.16.20", False),
        ("5.8.0", False),
        ("4.19.0", False),
        ("", False),
        ("x", False),
    ],
)
def test_which_kernels_tell_of_what_failed(release: str, tells: bool) -> None:
    assert release_tells(release) is tells


def test_a_file_system_that_is_not_known_to_tell_does_not() -> None:
    volume = open_volume("/proc")
    assert volume is not None
    assert not volume.tells
