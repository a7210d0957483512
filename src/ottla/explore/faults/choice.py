"""Which faults strike a test's world, as its author chooses: a preset, names, or weights by name.

Simulated worlds and those in real time have the same presets. Each takes of one what it can do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf

Faults = str | Sequence[str] | Mapping[str, float] | None

EVERYTHING = "everything"
PRESETS: Mapping[str, tuple[str, ...]] = {
    "calm": (),
    "rolling restart": ("restart",),
    "flaky network": ("break", "lose", "one-way", "isolate", "slow-link", "program-cut"),
}


def weights_of(faults: Faults, known: Collection[str], where: str = "") -> Mapping[str, float] | None:
    """Weights by name; None for a mixture that the seed draws. ValueError for a name that is not known, with
    ``where`` it is not."""
    # For pytest: the user's own line says it all.
    __tracebackhide__ = True
    if faults is None or faults == EVERYTHING:
        return None
    if isinstance(faults, str):
        if faults not in PRESETS:
            raise ValueError(f"there is no preset {faults!r}: choose of {', '.join((*PRESETS, EVERYTHING))}")
        return {name: 1.0 for name in PRESETS[faults] if name in known}
    weights = faults if isinstance(faults, Mapping) else dict.fromkeys(faults, 1.0)
    for name in weights:
        if name not in known:
            raise ValueError(f"there is no fault {name!r}{where}: choose of {', '.join(sorted(known))}")
    if weights and not (min(weights.values()) >= 0 < max(weights.values()) < inf):
        raise ValueError(f"faults={dict(weights)}: give no weight below 0, and one above it, or 'calm'")
    return weights
