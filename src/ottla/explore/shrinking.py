"""The smallest run that still fails as a run did: fewer faults, fewer nodes, less time.

Pure: what is tried is asked of a function. It is given runs to try in the order of preference, and tells
which is the first of them that fails in the same way. So it may try several at once, and the result does not
depend on how many. Faults are left out as in Zeller's delta debugging: by halves, then by ever finer parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from ottla.explore.plan import Plan, Run

# Lengths that are tried are a multiple of this, so that they can be given exactly on a command line.
STEP_S = 0.1
FRACTIONS = (0, 1 / 8, 1 / 4, 1 / 2, 3 / 4)

# The position of the first plan that fails in the same way, and its run; None: all of them pass, or fail in
# another way.
FirstFailing = Callable[[Sequence[Plan]], tuple[int, Run] | None]


@dataclass(slots=True)
class Shrinking:
    """``plan`` and ``run`` are the smallest so far, at any time: ``go`` may be ended by what it asks."""

    plan: Plan
    run: Run
    first_failing: FirstFailing
    # What was tried, and does not fail in this way.
    _passed: set[Plan] = field(default_factory=set)

    def go(self) -> None:
        """Until nothing less fails."""
        before = None
        while before != self.plan:
            before = self.plan
            # Most failures need a fault; one that needs none is found at once.
            self._try([replace(self.plan, strikes=())])
            self._fewer_nodes()
            self._fewer_strikes()
            self._less_time()

    def _try(self, plans: Sequence[Plan]) -> bool:
        plans = [plan for plan in dict.fromkeys(plans) if plan != self.plan and plan not in self._passed]
        found = self.first_failing(plans) if plans else None
        if found is None:
            self._passed.update(plans)
            return False
        self._passed.update(plans[: found[0]])
        self.plan, self.run = plans[found[0]], found[1]
        return True

    def _fewer_nodes(self) -> None:
        self._try([replace(self.plan, nodes=nodes) for nodes in range(1, self.run.nodes)])

    def _fewer_strikes(self) -> None:
        # At first all that struck: other strikes that are kept have found nothing to strike.
        parts = 1
        while struck := tuple(strike[0] for strike in self.run.strikes):
            parts = min(parts, len(struck))
            if self._try([replace(self.plan, strikes=some) for some in _some_of(struck, parts)]):
                left = len(self.plan.strikes or ())
                parts = max(2, parts - 1) if 2 * left > len(struck) else 2
            elif parts == len(struck):
                return
            else:
                parts *= 2

    def _less_time(self) -> None:
        while True:
            longest_s = self.run.longest_run_s
            if self.plan.run_max_s is not None:
                longest_s = min(longest_s, self.plan.run_max_s)
            steps = [max(1, math.ceil(longest_s * part / STEP_S)) for part in FRACTIONS]
            shorter = [round(step * STEP_S, 1) for step in steps if step * STEP_S < longest_s - STEP_S / 2]
            if not self._try([replace(self.plan, run_max_s=run_max_s) for run_max_s in shorter]):
                return


def _some_of(numbers: tuple[int, ...], parts: int) -> Iterator[tuple[int, ...]]:
    """Each of the parts alone, then all but each of them; of one part that cannot be parted, nothing."""
    if len(numbers) == 1:
        yield ()
    cuts = [len(numbers) * part // parts for part in range(parts + 1)]
    bounds = list(pairwise(cuts))
    yield from (numbers[begin:end] for begin, end in bounds)
    if parts > 2:
        yield from (numbers[:begin] + numbers[end:] for begin, end in bounds)
