"""What the decorators `explore` and `explore_real` share: a test takes a world, what stands for it none."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

SEEDS_MAX = 10**9


def check_seeds(seeds: int) -> None:
    """ValueError for a number of seeds that no test has."""
    if not 1 <= seeds <= SEEDS_MAX:
        raise ValueError(f"seeds={seeds}: from 1 to {SEEDS_MAX}")


def target_of(test: Callable[..., object]) -> str:
    """FILE::NAME, for the command line."""
    path = Path(inspect.getfile(test))
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}::{test.__qualname__}"


def stand_for(test: Callable[..., object], explored: Callable[[], None], exploration: object) -> None:
    """Give ``explored`` the name of the test, and the exploration, by which it is found in its file."""
    # Not functools.wraps: pytest would look for a fixture `world`.
    explored.__name__, explored.__qualname__ = test.__name__, test.__qualname__
    explored.__module__, explored.__doc__ = test.__module__, test.__doc__
    explored.exploration = exploration  # type: ignore[attr-defined]
