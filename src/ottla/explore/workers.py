"""Processes that run plans, several at a time, and tell what became of them in the order of the plans."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Self

from ottla.explore import plan as plans
from ottla.explore.importing import UNKNOWN, Imported
from ottla.explore.plan import CANCEL, ENDED, REHEARSALS, RUN, Plan, Run
from ottla.explore.programs import directory

# How much is shown of what a process printed last that has not done its runs, and of what a run has printed.
PRINTED_BYTES_MAX = 64 * 1024
OF_RUN_BYTES_MAX = 16 * 1024
# How long a process may take to end its run and itself, before it is killed.
END_S = 5.0
# Sets are gone through in one order, and clients in pure Python take the run's clock for timestamps.
CHILD_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "AIOKAFKA_NO_EXTENSIONS": "1",
    # Wherever a seed is run, dates are the same.
    "TZ": "UTC",
}


class CannotRun(RuntimeError):
    """A process that runs plans has ended by itself. ``str()`` is what it has said, for the user."""


class Template:
    """The process that a file's runs are forked from. CannotRun from ``hello`` if it cannot be."""

    def __init__(self, file: str, place: Imported) -> None:
        # What tests print goes to a file: nobody reads it meanwhile, and a full pipe would hold the runs.
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - ``close`` closes it
        self._control, theirs = socket.socketpair()
        # In a group of its own, so that a terminal's Ctrl-C reaches this process alone, which ends that one.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ottla.explore.child", file, place.to_json()],
            env=os.environ | CHILD_ENVIRONMENT,
            stdin=theirs.fileno(),
            stdout=subprocess.PIPE,
            stderr=self._printed,
            bufsize=0,
            process_group=0,
        )
        theirs.close()
        # Whether it has imported the file.
        self._is_ready = False

    def hello(self) -> tuple[Mapping[str, Mapping[str, float]], Mapping[str, str]]:
        """What it says first: the tests of its file, and what is wrong with some of them."""
        assert self._process.stdout is not None
        said = self._process.stdout.read()
        if not said:
            raise CannotRun(_said(self._printed.fileno()))
        self._is_ready = True
        told = json.loads(said)
        return told["tests"], told["problems"]

    def fork_worker(self, files: Sequence[int]) -> None:
        """Have it fork a worker, ``child.Files``."""
        # Where this process has ended, whoever reads the worker's answer is told.
        with suppress(ConnectionError):
            socket.send_fds(self._control, [b"w"], files)

    def close(self) -> None:
        """End it, once its workers have ended."""
        process = self._process
        assert process.stdout is not None
        self._control.close()
        try:
            process.wait(END_S if self._is_ready else 0)
        except subprocess.TimeoutExpired:
            # The workers and their runs as well.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        finally:
            process.stdout.close()
            self._printed.close()


class Worker:
    """A process that runs one plan at a time. CannotRun from ``read`` if it ends by itself."""

    def __init__(self, template: Template) -> None:
        self._requests, theirs = socket.socketpair()
        # ``close`` closes them.
        files = [tempfile.TemporaryFile() for _ in range(4)]  # noqa: SIM115
        self._plan, self._told, self._answer, self._printed = files
        template.fork_worker([theirs.fileno(), *(one.fileno() for one in files)])
        theirs.close()
        # What is under way, behind that of which nothing is said: rehearsals, and runs that were to be ended.
        self._plans: deque[Plan | None] = deque([None] * REHEARSALS)
        self._buffer = b""
        # Where the plan stands that is under way; None: it has nothing to do.
        self.index: int | None = None

    def fileno(self) -> int:
        return self._requests.fileno()

    def ask(self, index: int, plan: Plan) -> None:
        """Have a plan run."""
        self.index = index
        for file, document in zip((self._plan, self._told), plan.to_json(), strict=True):
            plans.write(file.fileno(), document)
        self._plans.append(plan)
        self._send(RUN)

    def cancel(self) -> None:
        """Have the run that is under way ended; nothing more is heard of it."""
        if self.index is not None:
            self.index = None
            self._send(CANCEL)

    def _send(self, what: bytes) -> None:
        # Where it has ended, whoever reads its answer is told.
        with suppress(ConnectionError):
            self._requests.sendall(what)

    def read(self) -> Run | None:
        """What became of the plan under way, once it has ended. Waits for something to come."""
        data = self._requests.recv(ENDED.size - len(self._buffer))
        if not data:
            raise CannotRun(_said(self._printed.fileno()))
        self._buffer += data
        if len(self._buffer) < ENDED.size:
            return None
        pid, status = ENDED.unpack(self._buffer)
        self._buffer = b""
        directory.remove_all_of(pid)
        plan = self._plans.popleft()
        if plan is None or self._plans or self.index is None:
            return None
        run = _died(plan, status) if status else Run.from_json(json.loads(plans.read(self._answer.fileno())))
        printed = _last(self._printed.fileno(), OF_RUN_BYTES_MAX) if run.error else ""
        return replace(run, printed=printed)

    def close(self) -> None:
        """End it, with the run that is under way."""
        for one in (self._requests, self._plan, self._told, self._answer, self._printed):
            one.close()


def _said(fd: int) -> str:
    """What a process has printed last that ended by itself."""
    return _last(fd, PRINTED_BYTES_MAX).strip() or "a process ended, and said nothing"


def _last(fd: int, most_bytes: int) -> str:
    """The last of what a process has printed to a file."""
    end = os.fstat(fd).st_size
    return os.pread(fd, most_bytes, max(0, end - most_bytes)).decode(errors="replace")


def _died(plan: Plan, status: int) -> Run:
    """The process of a run ended without telling what became of it."""
    code = os.waitstatus_to_exitcode(status)
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    error = f"the process of the run ended before its time, with {how}"
    no_picture = "what was recorded went with the process of the run" if plan.picture else ""
    return Run(seed=plan.seed, error=error, kind=f"ended with {how}", no_picture=no_picture)


class Workers:
    """Up to ``jobs`` processes for the tests of a file, by the context they are in.

    ``place``: how this process has imported the file, if it has; the others import it in the same way.
    ``tests``: what is told of each by its name: "seeds", "nodes". CannotRun where the file cannot be
    imported, or where a process ends by itself.
    """

    def __init__(self, file: str, jobs: int = 1, place: Imported = UNKNOWN) -> None:
        self._file, self._jobs, self._place = file, jobs, place
        self._template: Template | None = None
        self._workers: list[Worker] = []
        self.tests: Mapping[str, Mapping[str, float]] = {}
        # What no world has, by the name of the test.
        self._problems: Mapping[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self._template = Template(self._file, self._place)
            self.tests, self._problems = self._template.hello()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End them all, with what they run."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()
        if self._template is not None:
            self._template.close()

    def _started(self) -> Worker:
        assert self._template is not None
        worker = Worker(self._template)
        self._workers.append(worker)
        return worker

    def _ask(self, worker: Worker, index: int, plan: Plan) -> None:
        if plan.test in self._problems:
            raise CannotRun(f"{plan.test}: {self._problems[plan.test]}")
        worker.ask(index, plan)

    def runs(self, plans: Iterable[Plan], deadline_s: float | None = None) -> Iterator[Run]:
        """What became of each plan, in their order. Runs beyond the last one asked for are ended.

        One iterator at a time: what another one has left under way is ended. TimeoutError after
        ``deadline_s``, of `time.monotonic`.
        """
        waiting = enumerate(plans)
        done: dict[int, Run] = {}
        following = 0
        # Whoever leaves a loop over runs at a failure may ask for others before its iterator is closed.
        self._cancel()
        try:
            self._begin(waiting)
            while any(worker.index is not None for worker in self._workers):
                for worker in self._ready(deadline_s):
                    index, run = worker.index, worker.read()
                    if index is None or run is None:
                        continue
                    done[index] = run
                    worker.index = None
                    if (item := next(waiting, None)) is not None:
                        self._ask(worker, *item)
                while following in done:
                    yield done.pop(following)
                    following += 1
        finally:
            self._cancel()

    def _cancel(self) -> None:
        for worker in self._workers:
            worker.cancel()

    def _begin(self, waiting: Iterator[tuple[int, Plan]]) -> None:
        """As many processes as there are plans, if they may be so many."""
        for position in range(self._jobs):
            item = next(waiting, None)
            if item is None:
                return
            worker = self._workers[position] if position < len(self._workers) else self._started()
            self._ask(worker, *item)

    def _ready(self, deadline_s: float | None) -> list[Worker]:
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(left_s)}
        if not ready:
            raise TimeoutError
        return [worker for worker in self._workers if worker.fileno() in ready]
