"""A failure that was found: made as small as time allows, repeated once more, and told to people."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ottla.explore.plan import Plan, Run
from ottla.explore.shrinking import Shrinking
from ottla.explore.workers import Workers
from ottla.text import printable, printable_lines

# How long a smaller run is looked for, in real time.
SHRINK_S = 20.0
# Of what was printed, and of faults that are left, so many lines are shown, the last and the first of them.
PRINTED_LINES_MAX = 20
STRIKES_MAX = 10
INTERRUPTED = "it was interrupted before it was drawn"
Said = Callable[[Plan, Run], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A run that failed, the smallest that was found which fails in the same way, and what to say of it."""

    target: str
    whole: Run
    plan: Plan
    run: Run
    tried: int
    # Whether the smallest run has failed in the same way when it was repeated.
    is_repeatable: bool = True
    # Ctrl-C has ended the search.
    is_interrupted: bool = False
    # The file that the picture is in, and why there is none, where one was asked for.
    picture: str = ""
    no_picture: str = ""


def find(
    workers: Workers, target: str, plan: Plan, run: Run, shrink_s: float = SHRINK_S, said: Said | None = None
) -> Finding:
    """Make a run that failed smaller for so long, and repeat the smallest one for its story.

    ``said`` is called with the smallest so far. Ctrl-C ends the search, with the smallest so far.
    """
    deadline_s = time.monotonic() + shrink_s
    tried = 0
    last: Run | None = None

    def first_failing(plans: Sequence[Plan]) -> tuple[int, Run] | None:
        nonlocal tried
        for index, other in enumerate(workers.runs(plans, deadline_s)):
            tried += 1
            if other.kind == run.kind:
                if said is not None:
                    said(plans[index], other)
                return index, other
        return None

    shrinking = Shrinking(replace(plan, is_told=False, picture=""), run, first_failing)
    try:
        with suppress(TimeoutError):
            if shrink_s:
                shrinking.go()
        last = _told_run(workers, shrinking, plan.picture, is_less=shrink_s > 0)
    except KeyboardInterrupt:
        pass
    is_repeatable = last is None or last.kind == run.kind
    no_picture = INTERRUPTED if last is None and plan.picture else last.no_picture if last else ""
    return Finding(
        target=target,
        whole=run,
        plan=shrinking.plan,
        run=last if last is not None and is_repeatable else shrinking.run,
        tried=tried,
        is_repeatable=is_repeatable,
        is_interrupted=last is None,
        picture="" if no_picture else plan.picture,
        no_picture=no_picture,
    )


def _told_run(workers: Workers, shrinking: Shrinking, picture: str, *, is_less: bool) -> Run:
    """The smallest run once more, with its story, and ``is_less`` its plan without strikes of no fault.

    Less time, or fewer nodes, leave numbers in the plan that strike nothing any more.
    """
    plan, struck = shrinking.plan, tuple(number for number, *_ in shrinking.run.strikes)
    if is_less and plan.strikes is not None and plan.strikes != struck:
        less = replace(plan, strikes=struck)
        (run,) = workers.runs([replace(less, is_told=True, picture=picture)])
        if run.kind == shrinking.run.kind:
            shrinking.plan = less
            return run
    (run,) = workers.runs([replace(plan, is_told=True, picture=picture)])
    return run


def command(target: str, plan: Plan) -> str:
    """The command that repeats exactly this run, for a shell."""
    words = ["ottla explore", shlex.quote(target), f"--seed {plan.seed}"]
    if plan.strikes is not None:
        words.append(f"--strikes {','.join(map(str, plan.strikes)) or 'none'}")
    if plan.nodes is not None:
        words.append(f"--nodes {plan.nodes}")
    if plan.run_max_s is not None:
        words.append(f"--seconds {plan.run_max_s:g}")
    if plan.cpu_max_s is not None:
        words.append(f"--cpu-seconds {plan.cpu_max_s:g}")
    return " ".join(words)


def left(whole: Run, run: Run) -> str:
    """What a run has of the whole one: "2 of 27 faults, 1 of 3 nodes, 4.7 of 20 seconds"."""
    return ", ".join(
        (
            _of(len(run.strikes), len(whole.strikes), "fault"),
            _of(run.nodes, whole.nodes, "node"),
            _of(round(run.longest_run_s, 1), round(whole.longest_run_s, 1), "second"),
        )
    )


def _of(some: float, all_of_them: float, thing: str) -> str:
    things = thing if all_of_them == 1 else f"{thing}s"
    return f"{some:g} of {all_of_them:g} {things}" if some != all_of_them else f"{some:g} {things}"


def report(finding: Finding) -> str:
    """A failure for people: what failed, how to repeat it, and what happened. Nothing in it is a control."""
    run, plan = finding.run, finding.plan
    lines = [*printable_lines(f"seed {run.seed}: {run.error}"), ""]
    lines += [f"It fails with {left(finding.whole, run)}, after {run.virtual_s:.1f} virtual seconds."]
    lines += ["The same run again:"]
    lines += [f"    {printable(command(finding.target, plan))}"]
    if not finding.is_repeatable:
        lines += [
            "",
            "When it was repeated it did not fail in this way. Something of it is not from the seed: a file,",
            "the environment, an object's address, or time that was read in C.",
        ]
    if run.strikes:
        shown = run.strikes[:STRIKES_MAX]
        width = max(len(kind) for _, kind, *_ in shown)
        lines += ["", "Its faults:"]
        told = (f"    {number:3} {kind:{width}} {at_s:10.3f} {text}" for number, kind, at_s, text in shown)
        lines += map(printable, told)
        if len(run.strikes) > len(shown):
            lines.append(f"    ({len(run.strikes) - len(shown)} more)")
    if run.story:
        lines += ["", "What happened:", *(f"    {line}" for line in run.story)]
    if run.printed:
        printed = printable_lines(run.printed.rstrip())[-PRINTED_LINES_MAX:]
        lines += ["", "What it printed last:", *(f"    {line}" for line in printed)]
    return "\n".join([*lines, "", *printable_lines(run.traceback.rstrip())]).rstrip()


def document(finding: Finding) -> dict[str, Any]:
    """A failure for programs."""
    run, plan = finding.run, finding.plan
    return {
        "test": finding.target,
        "seed": run.seed,
        "error": run.error,
        "kind": run.kind,
        "command": command(finding.target, plan),
        "strikes": [
            {"number": number, "kind": kind, "at_s": at_s, "text": text}
            for number, kind, at_s, text in run.strikes
        ],
        "nodes": run.nodes,
        "seconds": round(run.longest_run_s, 3),
        "virtual_s": run.virtual_s,
        "tried": finding.tried,
        "is_repeatable": finding.is_repeatable,
        "story": list(run.story),
        "traceback": run.traceback,
        "printed": run.printed,
        "picture": finding.picture,
        "no_picture": finding.no_picture,
    }
