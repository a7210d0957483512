"""Processes that run plans, several at a time, and tell what became of them in the order of the plans."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

from ottla import implementation
from ottla.explore.importing import UNKNOWN, Imported
from ottla.explore.plan import Plan, Run

# How much is shown of what a process printed last that has not done its runs.
PRINTED_BYTES_MAX = 64 * 1024
READ_BYTES = 256 * 1024
# How long a process may take to end its run and itself, before it is killed.
END_S = 5.0
# Sets are gone through in one order, and clients in pure Python take the run's clock for timestamps.
CHILD_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "AIOKAFKA_NO_EXTENSIONS": "1",
    # Wherever a seed is run, dates are the same.
    "TZ": "UTC",
    implementation.PURE_VARIABLE: "1",
}


class CannotRun(RuntimeError):
    """A process that runs plans has ended by itself. ``str()`` is what it has said, for the user."""


class Worker:
    """A process that runs one plan at a time. CannotRun from ``read`` if it ends by itself."""

    def __init__(self, file: str, place: Imported) -> None:
        # What tests print goes to a file: nobody reads it meanwhile, and a full pipe would hold the runs.
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - ``close`` closes it
        # In a group of its own, so that a terminal's Ctrl-C reaches this process alone, which ends that one.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ottla.explore.child", file, place.to_json()],
            env=os.environ | CHILD_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            bufsize=0,
            process_group=0,
        )
        self._number = 0
        self._buffer = b""
        # Whether it has imported the file.
        self._is_ready = False
        # Where the plan stands that is under way; None: it has nothing to do.
        self.index: int | None = None

    def fileno(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def ask(self, index: int, plan: Plan) -> None:
        """Have a plan run."""
        self.index = index
        self._send(plan.to_json())

    def cancel(self) -> None:
        """Have the run that is under way ended; nothing more is heard of it."""
        if self.index is not None:
            self.index = None
            self._send(None)

    def _send(self, plan: Mapping[str, Any] | None) -> None:
        assert self._process.stdin is not None
        self._number += 1
        request = {"number": self._number, "plan": plan}
        # Where it has ended, whoever reads its answer is told.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def read(self) -> Run | None:
        """What became of the plan under way, once all of it has come. Waits for something to come."""
        run = None
        for answer in self._answers():
            # Others are of runs that were to be ended just then.
            if answer["number"] == self._number and self.index is not None:
                run = Run.from_json(answer["run"])
        return run

    def hello(self) -> Mapping[str, Mapping[str, float]]:
        """What it says first: the tests of its file."""
        while not (answers := self._answers()):
            pass
        tests: Mapping[str, Mapping[str, float]] = answers[0]["tests"]
        return tests

    def _answers(self) -> list[dict[str, Any]]:
        data = os.read(self.fileno(), READ_BYTES)
        if not data:
            raise CannotRun(self._last())
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._is_ready = self._is_ready or bool(lines)
        return [json.loads(line) for line in lines]

    def _last(self) -> str:
        """What it has printed last."""
        printed = self._printed
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - PRINTED_BYTES_MAX))
        return printed.read().decode(errors="replace").strip() or "a process ended, and said nothing"

    def close(self) -> None:
        """End it, with the run that is under way."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(END_S if self._is_ready and self.index is None else 0)
        except subprocess.TimeoutExpired:
            # The process of the run as well.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        finally:
            process.stdout.close()
            self._printed.close()


class Workers:
    """Up to ``jobs`` processes for the tests of a file, by the context they are in.

    ``place``: how this process has imported the file, if it has; the others import it in the same way.
    ``tests``: what is told of each by its name: "seeds", "nodes". CannotRun where the file cannot be
    imported, or where a process ends by itself.
    """

    def __init__(self, file: str, jobs: int = 1, place: Imported = UNKNOWN) -> None:
        self._file, self._jobs, self._place = file, jobs, place
        self._workers: list[Worker] = []
        self.tests: Mapping[str, Mapping[str, float]] = {}

    def __enter__(self) -> Self:
        try:
            # One alone, so that what is wrong with the file is said once.
            self.tests = self._started().hello()
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

    def _started(self) -> Worker:
        worker = Worker(self._file, self._place)
        self._workers.append(worker)
        return worker

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
                        worker.ask(*item)
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
            worker.ask(*item)

    def _ready(self, deadline_s: float | None) -> list[Worker]:
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(left_s)}
        if not ready:
            raise TimeoutError
        return [worker for worker in self._workers if worker.fileno() in ready]
