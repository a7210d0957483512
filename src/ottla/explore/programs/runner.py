"""Run a test in its world with one seed: the same seed, the same run, to the last message."""

from __future__ import annotations

import gc
import logging
import re
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ottla.explore.programs import (
    apart,
    asserted,
    chance,
    clocks,
    current,
    librdkafka,
    lines,
    machine,
    refusing,
)
from ottla.explore.programs.program import NeverWorked
from ottla.explore.programs.world import World
from ottla.explore.world.loop import CURRENT

Test = Callable[[World], Coroutine[Any, Any, None]]
# A run takes so much virtual time at most, and so many steps; one that takes more spins somewhere.
TIME_MAX_S = 24 * 3600.0
STEPS_MAX = 20_000_000
NOT_AWAITED = re.compile(r"coroutine 'World\.([a-z]\w*)' was never awaited")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run. ``error`` None: the test passed. ``digest`` is the same for the same run."""

    error: BaseException | None
    digest: str
    virtual_s: float
    steps: int


def outcome_of(world: World, error: BaseException | None) -> Outcome:
    """What became of the run of the world, which has ended, or ends now."""
    return Outcome(
        error=error,
        digest=world.trace.digest(),
        virtual_s=world.loop.time(),
        steps=world.loop.steps,
    )


class _Lines(logging.Handler):
    """Warnings of nodes and programs become remarks beside the trace."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - as logging does: a line that cannot be made ends no program
            self.handleError(record)
            return
        self._world.trace.note(f"{CURRENT.get()} {record.levelname} {said}")


def install() -> None:
    """Put virtual clocks, chance and refusals into this process, before the programs are imported.

    The process is to be one of its own: see `clocks`, `chance` and `refusing`.
    """
    clocks.install()
    chance.install()
    refusing.install()
    librdkafka.install()
    machine.install()
    apart.install()
    current.threads = find_spec("greenlet") is not None
    if current.threads:
        from ottla.explore.programs import sockets, threads

        threads.install()
        sockets.install()


@contextmanager
def _surroundings(world: World) -> Iterator[None]:
    logger, lines = logging.getLogger(), _Lines(world)
    logger.addHandler(lines)
    before = chance.begin(world.seed)
    current.enter(world.loop)
    apart.begin()
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        current.leave()
        chance.end(before)
        logger.removeHandler(lines)


@contextmanager
def _noted_if_not_awaited(missing: list[str]) -> Iterator[None]:
    """Python warns of a coroutine that nobody awaits. Of a world, it is a run in which nothing happens."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", NOT_AWAITED.pattern, RuntimeWarning)
        show = warnings.showwarning

        def noted(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, *other: Any
        ) -> None:
            found = NOT_AWAITED.match(str(message))
            if found is None:
                show(message, category, filename, lineno, *other)
            else:
                where = f"{filename}:{lineno}: " if lines.is_own(filename) else ""
                missing.append(f"{where}`await` is missing: write `await world.{found[1]}(…)`")

        warnings.showwarning = noted  # type: ignore[assignment]
        yield


def _not_awaited(missing: list[str], error: BaseException | None) -> BaseException:
    """What to tell of coroutines of the world that nobody has awaited, and of what the test failed by."""
    found = TypeError(missing[0])
    for other in missing[1:]:
        found.add_note(other)
    if error is None:
        return found
    # Those that a task was to await may be lost by the failure itself.
    if not missing[0].startswith("`"):
        where = lines.of_error(error)
        at = f" at {where}" if where else ""
        said = str(error) or asserted.told(error)
        found.add_note(f"The test failed{at} by {type(error).__name__}" + (f": {said}" if said else ""))
        return found
    for one in missing:
        error.add_note(one)
    return error


def run_seed(test: Test, world: World) -> Outcome:
    """Run the test in the world, to its end or to its first failure."""
    error: BaseException | None = None
    missing: list[str] = []

    async def main() -> None:
        await world.prepare()
        await test(world)
        world.beside.check()

    with _surroundings(world), _noted_if_not_awaited(missing):
        try:
            world.loop.run(main(), time_max_s=TIME_MAX_S, steps_max=STEPS_MAX)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001 - whatever a test fails by, as `pytest.fail`, is its outcome
            error = raised
        refusal = current.refusal()
        if refusal is not None and not isinstance(error, refusing.NotSimulated):
            # Whatever else has failed may have come of it.
            error = refusal
        if error is None and world.loop.failures:
            error = AssertionError("an exception that nobody caught: " + world.loop.failures[0])
        idle = next((one for one in world.programs.values() if not one.has_worked), None)
        if idle is not None and error is None:
            error = NeverWorked(idle.name, idle.errors)
        if missing and not isinstance(error, refusing.NotSimulated):
            error = _not_awaited(missing, error)
        elif isinstance(error, TypeError | AttributeError) and "'coroutine'" in str(error):
            error.add_note("`await` is missing before what the line calls, or called.")
        outcome = outcome_of(world, error)
        world.loop.close()
    return outcome
