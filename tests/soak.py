"""How much longer `make soak` looks than `make test` does."""

from __future__ import annotations

import os

FACTOR = 50 if os.environ.get("OTTLA_SOAK") else 1
EXAMPLES = 100 * FACTOR
