"""How much longer `make soak` looks than `make test` does."""

from __future__ import annotations

import os

FACTOR = 50 if os.environ.get("OTTLA_SOAK") else 1
EXAMPLES = 100 * FACTOR


def amount(quick: int, long: int) -> int:
    """How many: enough to be seen to work in `make test`, as many as a night allows in `make soak`."""
    return quick if FACTOR == 1 else long
