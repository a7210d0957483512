"""`ottla explore` for tests in real time: they run in the command's own process, seed after seed."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from ottla.explore.real.exploring import RealExploration
from ottla.explore.real.launch import module_of

# A file without this word has no such test, and need not be imported for it.
DECORATOR = "explore_real"


def found(target: str) -> RealExploration | None:
    """The exploration FILE::NAME if it is one in real time."""
    file, _, name = target.rpartition("::")
    path = Path(file).resolve()
    if not path.is_file() or DECORATOR not in path.read_text(errors="replace"):
        return None
    # As pytest and python find what the file imports from beside it.
    sys.path[:0] = [str(path.parent), str(Path.cwd())]
    exploration = getattr(getattr(module_of(path.stem, path), name, None), "exploration", None)
    return exploration if isinstance(exploration, RealExploration) else None


def run(
    exploration: RealExploration, first: int, last: int, *, keep_going: bool, say: Callable[[str], None]
) -> list[int]:
    """Run these seeds in turn, and tell of those on which the test fails. Their numbers.

    Ctrl-C ends it with what was found; KeyboardInterrupt is raised once that is said.
    """
    begin_s, done, failed = time.monotonic(), 0, []
    is_interrupted = False
    try:
        for seed in range(first, last + 1):
            done += 1
            try:
                exploration.run(seed)
            except Exception as error:  # noqa: BLE001 - whatever a test fails by is told
                failed.append(seed)
                for line in "".join(traceback.format_exception(error)).splitlines():
                    say(line)
                if not keep_going:
                    break
    except KeyboardInterrupt:
        is_interrupted = True
    took_s = time.monotonic() - begin_s
    how = f"failed on {', '.join(map(str, failed))}" if failed else "none failed"
    say(f"{done} seeds in {took_s:.0f} s of real time; {how}")
    if is_interrupted:
        raise KeyboardInterrupt
    return failed
