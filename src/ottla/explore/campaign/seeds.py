"""Run seeds of the campaign one after the other, and show which invariants held."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from ottla.explore.campaign.cluster import Options, Result, run
from ottla.explore.campaign.guarded import run_guarded
from ottla.explore.campaign.txn_cluster import run_transactions

SHOWN_LINES = 60
# What a campaign may have beside plain clients.
KINDS: dict[str, Callable[[Options], Result]] = {
    "plain": run,
    "transactions": run_transactions,
    "guarded": run_guarded,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Seeds ``first`` to ``last``, each with ``seconds`` of virtual time. ``faults``: None for all kinds."""

    first: int
    last: int
    kind: str = "plain"
    nodes: int = 5
    seconds: float = 20.0
    faults: list[str] | None = None
    trace: TextIO | None = None
    is_verbose: bool = False
    lines: int = SHOWN_LINES


def run_seeds(campaign: Campaign, say: Callable[[str], None]) -> Sequence[int]:
    """The seeds that violated an invariant. Ctrl-C ends a range with what was found."""
    failed = []
    first, last = campaign.first, campaign.last
    seed = first
    try:
        for seed in range(first, last + 1):
            began_s = time.perf_counter()
            options = Options(
                seed, campaign.nodes, campaign.seconds, campaign.faults, campaign.trace, campaign.is_verbose
            )
            result = KINDS[campaign.kind](options)
            took_s = time.perf_counter() - began_s
            if first == last or result.violation is not None:
                show(result, took_s, campaign.lines if first == last else 0, say)
            if result.violation is not None:
                failed.append(seed)
    except KeyboardInterrupt:
        # The seed that was under way does not count.
        seed -= 1
    if first != last:
        say(f"{seed - first + 1} seeds, {len(failed)} violated: {failed}")
    return failed


def show(result: Result, took_s: float, lines: int, say: Callable[[str], None]) -> None:
    """A run for people, with the last lines of its trace if an invariant was violated."""
    say(f"seed {result.seed}: {result.virtual_s:.1f} virtual seconds, {result.steps} steps in {took_s:.2f} s")
    for name, value in result.summary.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        say(f"  {name}: {shown}")
    say(f"  trace: {result.digest}")
    if result.violation is not None:
        say("  the last of the trace:")
        for line in result.lines[-lines:]:
            say(f"    {line}")
        say(f"VIOLATED with seed {result.seed}: {result.violation}")
