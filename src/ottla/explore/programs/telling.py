"""What became of a run, as whoever asked for it is told: its failure, its story, its faults."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

from ottla.explore.plan import Plan, Run
from ottla.explore.programs import asserted, checks, current, limits, lines
from ottla.explore.programs.checks import Broken
from ottla.explore.programs.runner import Outcome, outcome_of
from ottla.explore.programs.story import story_of
from ottla.explore.programs.world import NotSettled, World
from ottla.explore.recording.recorder import Recorder

# Failures that have no line of the user's are told apart by their first words.
WORDS_MAX = 8
NUMBER = re.compile(r"\d[\d.]*")


def kind_of(error: BaseException) -> str:
    """What two failures have in common that are the same: the error, the check, and the line of the test."""
    name, where = type(error).__name__, lines.of_error(error)
    if isinstance(error, Broken):
        name += f" by {_check(error)}"
    elif isinstance(error, NotSettled):
        name += f", {error.reason}"
    return f"{name} at {where}" if where else f"{name}: {_words(str(error))}"


def _check(error: Broken) -> str:
    """The name of the function that found it broken."""
    return traceback.extract_tb(error.__traceback__)[-1].name


def _words(text: str) -> str:
    return " ".join(NUMBER.sub("N", text).split()[:WORDS_MAX])


def run_of(world: World, plan: Plan, outcome: Outcome, recorder: Recorder) -> Run:
    """All that is told of a run that has come to its end."""
    error = outcome.error
    if error is None:
        return _run(world, plan, outcome)
    name, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) and not text:
        text = f"a run may take {limits.MEMORY_MAX_BYTES / 2**30:g} GiB"
    if isinstance(error, AssertionError) and not text:
        text = asserted.told(error)
    return _run(
        world,
        plan,
        outcome,
        error=f"{name}: {text}" if text else name,
        kind=kind_of(error),
        traceback=lines.traceback_of(error),
        story=_story(plan, recorder, error),
    )


def _story(plan: Plan, recorder: Recorder, error: BaseException) -> Sequence[str]:
    return story_of(recorder.recording(), error) if plan.is_told else ()


def ended(world: World, plan: Plan, reason: str, frame: FrameType | None, recorder: Recorder) -> Run:
    """All that is told of a run that would not end."""
    where = lines.of_stack(frame)
    error = f"{reason}: it was ended at {where}"
    refusal = current.refusal()
    if refusal is not None:
        # It may be tried again and again.
        error = f"{type(refusal).__name__}: {refusal}; {error}"
    outcome = outcome_of(world, RuntimeError(error))
    return _run(
        world,
        plan,
        outcome,
        error=error,
        kind=f"{_words(reason)} at {where}" if refusal is None else kind_of(refusal),
        traceback=lines.stack_of(frame),
        story=_story(plan, recorder, RuntimeError(error)),
    )


def _run(world: World, plan: Plan, outcome: Outcome, **failure: Any) -> Run:
    return Run(
        seed=plan.seed,
        digest=outcome.digest,
        virtual_s=outcome.virtual_s,
        faults=world.faults.counts,
        strikes=world.faults.strikes if failure or plan.strikes is not None else (),
        nodes=len(world.nodes),
        longest_run_s=world.longest_run_s,
        checked=checks.made,
        cpu_s=limits.cpu_s(),
        **failure,
    )
