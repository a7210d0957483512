"""The picture of a run, as its process draws it: a failure that was found is told whatever becomes of it."""

from __future__ import annotations

from dataclasses import replace

from ottla.explore.plan import Plan, Run
from ottla.explore.programs.checks import Broken
from ottla.explore.recording.picture import save
from ottla.explore.recording.recording import Recording


def drawn(plan: Plan, run: Run, recording: Recording, command: str, error: BaseException | None) -> Run:
    """Save the picture that the plan asks for. The run, with why there is none if that is so."""
    try:
        save(
            plan.picture,
            recording,
            f"{plan.test}, seed {plan.seed}",
            run.error,
            run.story,
            command=command,
            records=error.records if isinstance(error, Broken) else (),
        )
    except OSError as problem:
        return replace(run, no_picture=f"{plan.picture}: {problem.strerror or problem}")
    except Exception as problem:  # noqa: BLE001 - the report says it, with what was found
        return replace(run, no_picture=f"Ottla cannot draw this run, a bug of its own: {problem!r}")
    return run
