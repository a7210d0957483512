"""`ottla explore` for tests in real time: they run in the command's own process, seed after seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ottla.explore import mistakes
from ottla.explore.programs import lines
from ottla.explore.real.exploring import RealExploration
from ottla.text import printable_lines

# A file without this word has no such test, and need not be imported for it.
DECORATOR = "explore_real"


def found(file: str) -> dict[str, RealExploration]:
    """The explorations of a file in real time, by their names. SystemExit as from `mistakes.module_of`."""
    path = Path(file)
    if not path.is_file() or DECORATOR not in path.read_text(errors="replace"):
        return {}
    module = mistakes.module_of(file)
    named = {name: getattr(value, "exploration", None) for name, value in vars(module).items()}
    return {name: one for name, one in named.items() if isinstance(one, RealExploration)}


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
                for line in printable_lines(lines.traceback_of(error).rstrip()):
                    say(line)
                if not keep_going:
                    break
    except KeyboardInterrupt:
        is_interrupted = True
    took_s = time.monotonic() - begin_s
    how = f"failed on {', '.join(map(str, failed))}" if failed else "none failed"
    seeds = "seed" if done == 1 else "seeds"
    say(f"{done} {seeds} in {took_s:.0f} s of real time; {how}")
    if is_interrupted:
        raise KeyboardInterrupt
    return failed
