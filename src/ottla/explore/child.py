"""The process that runs of a file's tests are forked from: `python -m ottla.explore.child FILE [JSON]`.

JSON says how another process has imported the file (`importing.Imported`): its name, and ``sys.path``.

It first prints a line of JSON about the file: its tests, and which of them no world has. Then nothing in it
changes any more, so that each run begins with the same memory: with sets of objects in the same order.

It is asked for workers, over the socket that is its stdin: a byte, with the files of one (`Files`). A worker
is forked, and serves requests of a byte each. `RUN` forks the process of a run, which reads its plan from a
file and writes what became of it into another one (``plan.Plan``, ``plan.Run``); the worker answers with its
number and how it ended (`ENDED`), as soon as it did. Any other byte, and the end of requests, ends the run
that is under way. A worker allocates the same things for each run and keeps none of them.
"""

from __future__ import annotations

import os

from ottla import implementation
from ottla.explore import addresses

if __name__ == "__main__":
    addresses.fix()
    # Before anything is imported that is compiled. A seed is the same run with it and without.
    implementation.use_build()
    addresses.forget_names()
    addresses.notice_compiled()

from ottla.explore.programs import runner

# It is refused in programs, where a limit may be reached.
_exit = os._exit
# Before anything of the user's is imported.
runner.install()

import gc  # noqa: E402
import json  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator, Mapping  # noqa: E402
from contextlib import contextmanager, suppress  # noqa: E402
from types import FrameType  # noqa: E402
from typing import NamedTuple, NoReturn  # noqa: E402

from ottla.explore import mistakes, warm  # noqa: E402
from ottla.explore import plan as plans  # noqa: E402
from ottla.explore.decorated import check_nodes  # noqa: E402
from ottla.explore.exploring import Exploration  # noqa: E402
from ottla.explore.finding import command  # noqa: E402
from ottla.explore.importing import Imported  # noqa: E402
from ottla.explore.plan import ENDED, REHEARSALS, RUN, Plan, Run  # noqa: E402
from ottla.explore.programs import chance, directory, limits, telling  # noqa: E402
from ottla.explore.programs.runner import run_seed  # noqa: E402
from ottla.explore.programs.striking import kinds_of  # noqa: E402
from ottla.explore.programs.world import World  # noqa: E402
from ottla.explore.recording.recorder import Recorder  # noqa: E402

IMPORT_SEED = 0
Tests = Mapping[str, Exploration]


def load(file: str, place: Imported | None = None) -> Tests:
    """The explorations of a file by their names. SystemExit, with what to tell the user, for no such file."""
    module = mistakes.module_of(file, place, _chance_of_imports)
    named = {name: getattr(value, "exploration", None) for name, value in vars(module).items()}
    return {name: found for name, found in named.items() if isinstance(found, Exploration)}


@contextmanager
def _chance_of_imports() -> Iterator[None]:
    """What modules draw when they are imported, as the name of a group, is the same in each process."""
    before = chance.begin(IMPORT_SEED)
    try:
        yield
    finally:
        chance.end(before)


def problem_of(exploration: Exploration) -> str:
    """What of it no world has; empty if there is nothing."""
    try:
        kinds_of(exploration.faults)
        check_nodes(exploration.nodes)
    except ValueError as error:
        return str(error)
    return ""


def world_of(exploration: Exploration, plan: Plan) -> World:
    """The world of a run."""
    world = World(
        plan.seed,
        nodes=exploration.nodes if plan.nodes is None else plan.nodes,
        topics=exploration.topics,
        faults=exploration.faults,
        config=exploration.config,
        is_any_order=exploration.any_order,
    )
    world.run_max_s = plan.run_max_s
    world.faults.kept = None if plan.strikes is None else frozenset(plan.strikes)
    return world


# ---------------------------------------------------------------- in the process of a run


def _run(exploration: Exploration, plan: Plan, given: Files) -> NoReturn:
    """Run it, and write what became of it. The process ends here."""
    world = world_of(exploration, plan)
    # All runs are recorded: one that is recorded has other objects in memory, so it may be another run.
    recorder = Recorder(world)

    def answer(run: Run, told: Plan, error: BaseException | None) -> NoReturn:
        if told.picture:
            # Few runs are drawn.
            from ottla.explore import drawing

            run = drawing.drawn(told, run, recorder.recording(), command(exploration.target, plan), error)
        plans.write(given.answer, run.to_json())
        _exit(0)

    def told() -> Plan:
        return plan.with_told(plans.read(given.told))

    def ended(reason: str, frame: FrameType | None) -> NoReturn:
        # What is raised in here would be raised in the program, which may take it.
        with _last_words():
            limits.lift()
            asked = told()
            answer(telling.ended(world, asked, reason, frame, recorder), asked, None)

    limits.begin(world.loop, exploration.cpu_s if plan.cpu_max_s is None else plan.cpu_max_s, ended)
    outcome = run_seed(exploration.test, world)
    limits.lift()
    asked = told()
    answer(telling.run_of(world, asked, outcome, recorder), asked, outcome.error)


@contextmanager
def _last_words() -> Iterator[None]:
    """The process ends here, whatever happens."""
    try:
        yield
    except BaseException:  # noqa: BLE001 - nothing of the worker's may go on in here
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        _exit(1)


# ---------------------------------------------------------------- in a worker


class Files(NamedTuple):
    """What a worker is given: its requests, and what a run reads, answers and prints."""

    requests: int
    plan: int
    told: int
    answer: int
    printed: int


def _work(tests: Tests, given: Files) -> None:
    """Fork a process for each run that is asked for, until requests end."""
    # What tests and programs print is not among the answers.
    os.dup2(given.printed, 1)
    os.dup2(given.printed, 2)
    for _ in range(REHEARSALS):
        _serve(None, given)
    while order := os.read(given.requests, 1):
        # Otherwise the run had ended just then.
        if order == RUN:
            _serve(tests, given)


def _serve(tests: Tests | None, given: Files) -> None:
    """Fork the process of a run, wait for its end, and tell it; None for one that ends at once."""
    # What other runs have printed is not kept: seeds may be many.
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    alive, held = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(alive)
        if tests is None:
            _exit(0)
        with _last_words():
            plan = Plan.from_json(plans.read(given.plan))
            _run(tests[plan.test], plan, given)
    os.close(held)
    # The run has ended if nobody holds the other end any more.
    ready, _, _ = select.select((alive, given.requests), (), ())
    if alive not in ready:
        os.kill(pid, signal.SIGKILL)
    os.close(alive)
    _, status = os.waitpid(pid, 0)
    try:
        os.write(given.requests, ENDED.pack(pid, status))
    except ConnectionError:
        # Nobody is there to do it.
        directory.remove_all_of(pid)


# ---------------------------------------------------------------- in the process that all are forked from


def _fork_workers(tests: Tests, control: socket.socket) -> None:
    """Fork a worker for each set of files that comes, until no more can come; then wait for them to end."""
    while True:
        asked, found, _, _ = socket.recv_fds(control, 1, len(Files._fields))
        if not asked:
            break
        if not os.fork():
            with _last_words():
                control.close()
                _work(tests, Files(*found))
                _exit(0)
        for fd in found:
            os.close(fd)
    with suppress(ChildProcessError):
        while True:
            os.wait()


@contextmanager
def _as_begun(requests: int, answers: int) -> Iterator[None]:
    """Meanwhile stdin, stdout and what Ctrl-C does are what they were when this process began."""
    now = os.dup(0), os.dup(1)
    os.dup2(requests, 0)
    os.dup2(answers, 1)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        for position, fd in enumerate(now):
            os.dup2(fd, position)
            os.close(fd)


def main(file: str, place: str = "") -> None:
    # Ctrl-C is for the process that asks; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control, hello = socket.socket(fileno=os.dup(0)), os.dup(1)
    # What tests and programs print is not among the answers, and they read no requests.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    tests = load(file, Imported.from_json(place))
    told = {
        "tests": {name: one.listed() for name, one in tests.items()},
        "problems": {name: problem for name, one in tests.items() if (problem := problem_of(one))},
    }
    warm.up()
    with _as_begun(control.fileno(), hello):
        addresses.begin_again_if_compiled()
    # What only a run imports is compiled in each, or in none.
    sys.dont_write_bytecode = True
    # A collection in a forked process would copy every page, and all that a run has left ends with it.
    gc.collect()
    gc.freeze()
    gc.disable()
    os.write(hello, json.dumps(told).encode() + b"\n")
    os.close(hello)
    with _last_words():
        _fork_workers(tests, control)
        _exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
