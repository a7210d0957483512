"""Which simulated run has the word: clocks, chance and refusals ask here whether a program of it runs."""

from __future__ import annotations

from ottla.explore.world.loop import CURRENT, Process, VirtualLoop

# The loop whose run is under way in this process; one at a time, as a run has the thread to itself.
_running: list[VirtualLoop] = []
# The first refusal of that run, whatever the program did with the error.
_refusals: list[RuntimeError] = []
# Whether programs may have threads: the extra is installed.
threads = False


def enter(loop: VirtualLoop) -> None:
    """A run begins."""
    _refusals.clear()
    _running.append(loop)


def leave() -> None:
    """The run that began last has ended."""
    _running.pop()


def loop() -> VirtualLoop | None:
    """The loop of the run that is under way; None outside of one, where everything is real."""
    return _running[-1] if _running else None


def program() -> Process | None:
    """The program that runs now; None outside of a run, and while the world or a node of the cluster runs."""
    process = CURRENT.get() if _running else None
    return process if process is not None and process.is_program else None


def refuse(error: RuntimeError) -> None:
    """Remember that something was refused, if it is the first of the run; not of a program that is dead."""
    process = CURRENT.get()
    if _running and not _refusals and not (process is not None and process.dead):
        _refusals.append(error)


def refusal() -> RuntimeError | None:
    """What was refused first in the run that is under way, or that has ended last."""
    return _refusals[0] if _refusals else None
