"""Memory that costs nothing until it is written to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from measuring import at_most
from ottla.env.mapped import untouched

MB = 1024 * 1024


def rss_bytes() -> int:
    """How much memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says how much memory a process has")
def test_what_is_not_written_to_takes_no_memory() -> None:
    for attempt in at_most(20 * MB, "bytes"):
        before = rss_bytes()
        views = [untouched(500 * MB) for _ in range(20)]
        attempt.took(rss_bytes() - before)
    views[0][: 100 * MB] = bytes(100 * MB)
    assert rss_bytes() - before >= 100 * MB
    # Given back when the last view of it is gone.
    part = views[0][MB : 2 * MB]
    views.clear()
    assert rss_bytes() - before >= 100 * MB
    assert not any(part)
    del part
    assert rss_bytes() - before < 50 * MB


def test_where_there_is_no_address_space_it_says_so() -> None:
    with pytest.raises(MemoryError):
        untouched(1 << 60)
