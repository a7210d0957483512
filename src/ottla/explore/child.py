"""The process in which tests of a file are run: `python -m ottla.explore.child FILE [JSON]`.

JSON says how another process has imported the file (`importing.Imported`): its name, and ``sys.path``.

It first prints a line of JSON about the file: its tests. Then it reads a request a line, a plan with a
number, and prints what became of each, with that number (``plan.Plan``, ``plan.Run``). A request ends the
run that is under way, whose answer never comes; so does the end of requests. What tests print goes to
stderr, if that is a file only the last of it.
"""

from __future__ import annotations

import os

from ottla.explore import addresses

if __name__ == "__main__":
    addresses.fix()

from ottla.explore.programs import runner

# It is refused in programs, where a limit may be reached.
_exit = os._exit
# Before anything of the user's is imported.
runner.install()

import gc  # noqa: E402
import json  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import stat  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator, Mapping  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from types import FrameType  # noqa: E402
from typing import NoReturn  # noqa: E402

from ottla.explore import drawing, mistakes, warm  # noqa: E402
from ottla.explore.decorated import check_nodes  # noqa: E402
from ottla.explore.exploring import Exploration  # noqa: E402
from ottla.explore.finding import command  # noqa: E402
from ottla.explore.importing import Imported  # noqa: E402
from ottla.explore.plan import Plan, Run  # noqa: E402
from ottla.explore.programs import chance, directory, limits, telling  # noqa: E402
from ottla.explore.programs.runner import run_seed  # noqa: E402
from ottla.explore.programs.striking import kinds_of  # noqa: E402
from ottla.explore.programs.world import World  # noqa: E402
from ottla.explore.recording.recorder import Recorder  # noqa: E402

REQUEST_BYTES_MAX = 1024 * 1024
READ_BYTES = 64 * 1024
IMPORT_SEED = 0
# Of what a run has printed, so much is told.
PRINTED_BYTES_MAX = 16 * 1024
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


def check(exploration: Exploration) -> None:
    """ValueError for what no world has."""
    kinds_of(exploration.faults)
    check_nodes(exploration.nodes)


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


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


# ---------------------------------------------------------------- in the process of a run


def _run(exploration: Exploration, plan: Plan, out: int) -> NoReturn:
    """Run it, and write what became of it. The process ends here."""
    world = world_of(exploration, plan)
    recorder = Recorder(world) if plan.is_recorded else None

    def answer(run: Run) -> NoReturn:
        _write_all(out, b"\n".join((run.to_json().encode(), warm.needed())))
        _exit(0)

    def drawn(run: Run, error: BaseException | None) -> Run:
        if recorder is None or not plan.picture:
            return run
        return drawing.drawn(plan, run, recorder.recording(), command(exploration.target, plan), error)

    def ended(reason: str, frame: FrameType | None) -> NoReturn:
        # What is raised in here would be raised in the program, which may take it.
        with _last_words():
            limits.lift()
            answer(drawn(telling.ended(world, plan, reason, frame, recorder), None))

    limits.begin(world.loop, plan.cpu_max_s, ended)
    outcome = run_seed(exploration.test, world)
    limits.lift()
    answer(drawn(telling.run_of(world, plan, outcome, recorder), outcome.error))


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


def _run_forked(exploration: Exploration, plan: Plan, out: int) -> NoReturn:
    # It would look at all that the run has left, and the process ends.
    gc.disable()
    with _last_words():
        _run(exploration, plan, out)
    raise AssertionError("the process has ended")


# ---------------------------------------------------------------- in the worker


class Worker:
    """Serves requests one by one, each by a process that is forked for it.

    Libraries count connections and requests, and a plan is to be the same run wherever it stands. What is
    Ottla's own is loaded but once.
    """

    def __init__(self, tests: Tests, requests: int, answers: int) -> None:
        self._tests = tests
        self._requests, self._answers = requests, answers
        self._buffer = b""

    def serve(self) -> None:
        """Until requests end."""
        while (line := self._next_line()) is not None:
            request = json.loads(line)
            if request["plan"] is None:
                continue
            plan = Plan.from_json(request["plan"])
            answer = self._served(plan)
            if answer is not None:
                self._write({"number": request["number"], "run": answer})

    def _write(self, document: object) -> None:
        _write_all(self._answers, json.dumps(document).encode() + b"\n")

    def hello(self) -> None:
        """Say which tests there are."""
        self._write({"number": 0, "tests": {name: one.listed() for name, one in self._tests.items()}})

    def _next_line(self) -> bytes | None:
        """The next request; None if they have ended."""
        while b"\n" not in self._buffer:
            data = os.read(self._requests, READ_BYTES)
            if not data or len(self._buffer) > REQUEST_BYTES_MAX:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _served(self, plan: Plan) -> dict[str, object] | None:
        """The run, as JSON has it; None if something else is asked for meanwhile."""
        exploration = self._tests[plan.test]
        try:
            check(exploration)
        except ValueError as error:
            raise SystemExit(f"{plan.test}: {error}") from None
        _forget_printed()
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ours)
            _run_forked(exploration, plan, theirs)
        os.close(theirs)
        told, ended = b"", False
        try:
            while not ended:
                ready, _, _ = select.select([ours, self._requests], [], [])
                if ours in ready:
                    data = os.read(ours, READ_BYTES)
                    told, ended = told + data, not data
                elif self._requests in ready:
                    os.kill(pid, signal.SIGKILL)
                    return None
        finally:
            os.close(ours)
            _, status = os.waitpid(pid, 0)
            directory.remove_all_of(pid)
        answer, _, needed = told.partition(b"\n")
        if status == 0:
            warm.learn(needed)
        run: dict[str, object] = json.loads(answer if status == 0 else _died(plan, status).to_json())
        return run | {"printed": _printed()} if run["error"] else run


def _died(plan: Plan, status: int) -> Run:
    """The process of a run ended without telling what became of it."""
    code = os.waitstatus_to_exitcode(status)
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    error = f"the process of the run ended before its time, with {how}"
    no_picture = "what was recorded went with the process of the run" if plan.picture else ""
    return Run(seed=plan.seed, error=error, kind=f"ended with {how}", no_picture=no_picture)


def _forget_printed() -> None:
    """What other runs have printed is not kept: seeds may be many."""
    if stat.S_ISREG(os.fstat(2).st_mode):
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)


def _printed() -> str:
    if not stat.S_ISREG(os.fstat(2).st_mode):
        return ""
    end = os.fstat(2).st_size
    return os.pread(2, PRINTED_BYTES_MAX, max(0, end - PRINTED_BYTES_MAX)).decode(errors="replace")


def main(file: str, place: str = "") -> None:
    # Ctrl-C is for the process that asks; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.dup(0), os.dup(1)
    # What tests and programs print is not among the answers, and they read no requests.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    worker = Worker(load(file, Imported.from_json(place)), requests, answers)
    worker.hello()
    # So that a collection in a forked process does not copy every page.
    gc.freeze()
    worker.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
