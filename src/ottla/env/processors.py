"""How many processors this process may use: in a container these may be fewer than the machine's."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable(root: Path = ROOT) -> int:
    """Those that the scheduler may give it, and no more than the time that its control groups let it have
    (`docker run --cpus`, Kubernetes' limits); at least 1."""
    # macOS has no such thing.
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time, by each control group that this process is in and that limits it."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, parse = root / "sys/fs/cgroup", _quota
        elif "cpu" in controllers.split(","):
            folder, parse = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        # In a container the path may be one of the host, where its own group is the top one.
        group = Path(path.lstrip("/"))
        for above in (group, *group.parents):
            quota = parse(folder / above)
            if quota is not None:
                yield quota


def _quota(group: Path) -> float | None:
    words = _read(group / "cpu.max").split()
    return _ratio(words) if len(words) == 2 else None


def _quota_v1(group: Path) -> float | None:
    return _ratio([_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")])


def _ratio(words: list[str]) -> float | None:
    """None for `max` and -1, which are no limits."""
    if not all(word.isascii() and word.isdigit() for word in words) or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
