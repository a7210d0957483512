"""A virtual asyncio event loop: time jumps to the next timer, nothing is real, a run repeats exactly.

Every callback belongs to a process (one run of a node, a client), known by a context variable that tasks and
callbacks inherit from whoever made them. So the loop can hold back what a paused or busy process has to do,
and never again run anything of a dead one, without the product knowing.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, NoReturn, TypeVar

from ottla.explore.world.turns import TIMER, Turns

T = TypeVar("T")

# So often a coroutine may wait while it is cleaned up, when a run is over.
BURY_STEPS_MAX = 100
SECOND_US = 1_000_000
MS_US = 1_000


class Deadlock(Exception):
    """Nothing is scheduled, and the run is not over."""


class OutOfTime(Exception):
    """The run took more virtual time, or more steps, than it may."""


class NumberedFuture(asyncio.Future[Any]):
    """A future whose place in a set is that of its making. Others have it from their address in memory."""

    __slots__ = ("number",)
    number: int

    def __hash__(self) -> int:
        return self.number


class NumberedTask(asyncio.Task[T]):
    """The same for a task: `asyncio.wait` and frameworks go through sets of them."""

    __slots__ = ("_number",)

    def __init__(
        self, coro: Coroutine[Any, Any, T], loop: VirtualLoop, name: str | None, context: Context | None
    ) -> None:
        self._number = loop.next_number()
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._number


class Tasks:
    """Tasks that are not done, held so that none is cleaned up while its process is dead."""

    __slots__ = ("_limit", "_tasks")

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []
        self._limit = 64

    def add(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)
        if len(self._tasks) > self._limit:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._limit = 64 + 2 * len(self._tasks)

    def there(self) -> set[asyncio.Task[Any]]:
        """Those that are not done."""
        return {task for task in self._tasks if not task.done()}

    def take(self) -> list[asyncio.Task[Any]]:
        """Those that are not done; they are not held here any more."""
        tasks, self._tasks = self._tasks, []
        return [task for task in tasks if not task.done()]


class Process:
    """One run of a program on a machine. After ``loop.kill`` nothing of it runs any more."""

    __slots__ = (
        "busy",
        "context",
        "dead",
        "gate",
        "held",
        "is_program",
        "machine",
        "name",
        "on_exit",
        "on_step",
        "paused",
        "steps_left",
        "tasks",
    )

    def __init__(self, name: str, machine: Any = None, *, is_program: bool = False) -> None:
        self.name = name
        self.machine = machine
        # Whether it is a user's program, for which clocks, chance and asyncio are those of a run.
        self.is_program = is_program
        self.dead = False
        self.paused = False
        # Until when it does something else, in virtual microseconds; 0: it does not.
        self.busy = 0
        # Whether any of these holds: what the loop looks at.
        self.gate = False
        self.held: deque[Handle] = deque()
        # Called when something of it ends the process; None: that ends the run.
        self.on_exit: Callable[[SystemExit | KeyboardInterrupt], None] | None = None
        # After how many of its steps ``on_step`` is called; 0: it is not.
        self.steps_left = 0
        self.on_step: Callable[[], None] | None = None
        self.tasks = Tasks()
        self.context = Context()
        self.context.run(CURRENT.set, self)

    def __repr__(self) -> str:
        return self.name

    def after_steps(self, count: int, callback: Callable[[], None]) -> None:
        """Have ``callback`` called after so many more of its steps, in place of the one before."""
        self.steps_left, self.on_step = count, callback

    def step(self) -> None:
        """It has taken one of the steps that are counted."""
        self.steps_left -= 1
        if not self.steps_left and self.on_step is not None:
            callback, self.on_step = self.on_step, None
            callback()


CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
# Of what belongs to no process: the world itself.
WORLD = Context()


class Handle:
    """What asyncio wants of ``Handle`` and ``TimerHandle``."""

    __slots__ = ("_args", "_callback", "context", "process", "source", "when_us")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context,
        when_us: int,
        source: object = None,
    ) -> None:
        """``source``: a connection, `turns.TIMER`, or None for ``call_soon``, whose order is promised."""
        self._callback: Callable[..., object] | None = callback
        self._args = args
        self.context = context
        self.process = context.get(CURRENT)
        self.when_us = when_us
        self.source = source

    def cancel(self) -> None:
        self._callback = None
        self._args = ()

    def cancelled(self) -> bool:
        return self._callback is None

    def when(self) -> float:
        return self.when_us / SECOND_US


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs callbacks in the order of their time.

    Without ``turns`` those of the same time run in the order of their scheduling; with them, what asyncio
    leaves open is drawn.
    """

    # How much virtual time each callback takes, in microseconds.
    creep_us = 0

    def __init__(self) -> None:
        self.now_us = 0
        self.steps = 0
        # What a callback raised, and what asyncio reported: nothing of that is expected in a run.
        self.failures: list[str] = []
        # Called after every ``step_interval`` callbacks.
        self.on_steps: Callable[[], None] | None = None
        self.step_interval = 64
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[int, int, int, Handle]] = []
        self._order = 0
        self._made = 0
        self._turns: Turns | None = None
        # What orders timers of the same instant: without ``turns`` nothing does.
        self._tie: Callable[[], int] = int
        # At which step a process waits for its core; 0: at none.
        self._wait_step = 0
        self._stop: BaseException | None = None
        self._graveyard: list[asyncio.Task[Any]] = []
        self._processes: dict[Process, None] = {}
        # Tasks that belong to no process.
        self._tasks = Tasks()
        self._closed = False

    @property
    def turns(self) -> Turns | None:
        """The draws of what asyncio leaves open."""
        return self._turns

    @turns.setter
    def turns(self, turns: Turns) -> None:
        self._turns = turns
        self._tie = turns.tie
        self._next_wait(turns)

    def _next_wait(self, turns: Turns) -> None:
        steps = turns.steps_until_wait()
        self._wait_step = self.steps + steps if steps else 0

    def next_number(self) -> int:
        """Of the next task or future that is made."""
        self._made += 1
        return self._made

    # ------------------------------------------------------------ asyncio's side

    def time(self) -> float:
        return self.now_us / SECOND_US

    def us(self, seconds: float) -> int:
        """Seconds of a timer as virtual microseconds."""
        return round(seconds * SECOND_US)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, copy_context() if context is None else context, self.now_us)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        delay_us = self.us(delay)
        when_us = self.now_us + delay_us if delay_us > 0 else self.now_us
        return self.timer(when_us, callback, args, copy_context() if context is None else context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        when_us = max(self.now_us, self.us(when))
        return self.timer(when_us, callback, args, copy_context() if context is None else context)

    def call_at_us(
        self, when_us: int, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """As ``call_at``, in virtual microseconds, which are exact."""
        return self.timer(when_us, callback, args, copy_context() if context is None else context)

    def timer(
        self, when_us: int, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> Handle:
        """As ``call_at_us``, for whoever sets many: what is called by position alone is called sooner."""
        handle = Handle(callback, args, context, when_us, TIMER)
        self._order += 1
        heappush(self._timers, (when_us, self._tie(), self._order, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        # Its constructor is C's: futures are many.
        made = NumberedFuture(loop=self)
        self._made += 1
        made.number = self._made
        return made

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        task = NumberedTask(coro, self, name, context)
        process = CURRENT.get() if context is None else context.get(CURRENT)
        (self._tasks if process is None else process.tasks).add(task)
        return task

    # False. A function in C, since asyncio asks for each future and each task.
    get_debug = staticmethod(bool)

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        process = CURRENT.get()
        where = f"{process}: " if process is not None else ""
        self.failures.append(f"{where}{context.get('message')}: {error!r}")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        raise NotImplementedError("no threads in a simulation: blocking work goes through Disk.run")

    # ------------------------------------------------------------ processes

    def spawn(self, process: Process, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as part of a process, which all that it starts belongs to."""
        if process not in self._processes:
            self._processes[process] = None
            if self._turns is not None:
                self.charge(process, self._turns.begin_us())
        return process.context.run(self.create_task, coro)

    def kill(self, process: Process) -> None:
        """Nothing of the process runs any more. Its tasks are kept, so that none of them is cleaned up."""
        process.dead = process.gate = True
        process.held.clear()
        self._graveyard += process.tasks.take()

    def pause(self, process: Process) -> None:
        """As SIGSTOP: what it has to do is held until ``resume``; time goes on."""
        process.paused = process.gate = True

    def resume(self, process: Process) -> None:
        if process.paused:
            process.paused = False
            self._open(process)

    def charge(self, process: Process, cost_us: int) -> None:
        """A synchronous call took its time: what the process has to do next is done so much later."""
        if cost_us > 0 and not process.dead:
            process.busy = max(process.busy, self.now_us) + cost_us
            process.gate = True
            self.call_at_us(process.busy, self._end_busy, process, context=WORLD)

    def _end_busy(self, process: Process) -> None:
        if process.busy and process.busy <= self.now_us:
            process.busy = 0
            self._open(process)

    def _open(self, process: Process) -> None:
        process.gate = process.dead or process.paused or process.busy > 0
        if not process.gate:
            held = process.held
            self._ready.extend(held if self._turns is None else self._turns.in_turn(held))
            held.clear()

    def hand_over(
        self, process: Process, source: object, callback: Callable[..., object], *args: Any
    ) -> None:
        """Run a callback as a part of the process: now if it is free to, otherwise as soon as it is.

        ``source`` is the connection that it comes from; of one source, all is handed over in order.
        """
        if not process.gate:
            try:
                process.context.run(callback, *args)
            except (SystemExit, KeyboardInterrupt) as error:
                _exit(process, error)
        elif not process.dead:
            process.held.append(Handle(callback, args, process.context, self.now_us, source))

    # ------------------------------------------------------------ running

    def end(self, error: BaseException) -> None:
        """End the run after the present callback, with an error."""
        if self._stop is None:
            self._stop = error

    def run(self, main: Coroutine[Any, Any, T], *, time_max_s: float = 3600, steps_max: int = 10**9) -> T:
        """Run until ``main`` is done. Deadlock, OutOfTime, or what was given to ``end``."""
        hooks = sys.get_asyncgen_hooks()
        before = events._get_running_loop()
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(finalizer=self._finalize)
        try:
            task = WORLD.copy().run(self.create_task, main)
            self._run(task, self.now_us + round(time_max_s * SECOND_US), self.steps + steps_max)
            return task.result()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(before)

    def _run(self, main: asyncio.Task[Any], end_us: int, steps_end: int) -> None:
        ready, timers = self._ready, self._timers
        check, creep_us = self.step_interval, self.creep_us
        any_order = self._turns is not None and self._turns.is_any_order
        is_over = main.done
        while not is_over():
            if not ready:
                self._advance(end_us)
            handle = ready.popleft() if not any_order else self._any()
            if handle._callback is None:
                continue
            process = handle.process
            if process is not None and process.gate:
                if not process.dead:
                    process.held.append(handle)
                continue
            self.steps += 1
            self.now_us += creep_us
            try:
                handle.context.run(handle._callback, *handle._args)
            except Exception as error:  # noqa: BLE001 - as asyncio does; a run that has any fails
                handle.context.run(
                    self.call_exception_handler, {"message": f"in {handle._callback}", "exception": error}
                )
            except (SystemExit, KeyboardInterrupt) as error:
                _exit(process, error)
            if process is not None and process.steps_left:
                process.step()
            if self.steps == self._wait_step:
                self._wait(process)
            if self.on_steps is not None and not self.steps % check:
                self.on_steps()
            if self._stop is not None:
                raise self._stop
            if self.steps > steps_end:
                raise OutOfTime(f"{self.steps} steps by {self.time():.3f} s: something spins")
            # What is due now comes behind what was ready before it.
            while timers and timers[0][0] <= self.now_us:
                ready.append(heappop(timers)[3])

    def _wait(self, process: Process | None) -> None:
        """The operating system lets somebody else run than this process."""
        turns = self._turns
        assert turns is not None
        if process is not None:
            self.charge(process, turns.wait_us())
        self._next_wait(turns)

    def _any(self) -> Handle:
        """Any of the next callbacks if it is a user's program's, otherwise the first one."""
        ready = self._ready
        index = self._turns.index(len(ready)) if self._turns is not None else 0
        process = ready[index].process
        if index and (process is None or not process.is_program):
            return ready.popleft()
        handle = ready[index]
        del ready[index]
        return handle

    def _advance(self, end_us: int) -> None:
        """Move on to the next timer."""
        timers = self._timers
        while timers:
            when_us, _, _, handle = heappop(timers)
            if handle._callback is None:
                continue
            if when_us > end_us:
                raise OutOfTime(f"the run is not over after {self.time():.3f} s")
            self.now_us = max(self.now_us, when_us)
            self._ready.append(handle)
            return
        raise Deadlock("nothing is scheduled and the run is not over")

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self._closed:
            self.create_task(generator.aclose())

    def close(self) -> None:
        """Let go of everything, without running any of it."""
        self._closed = True
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            for process in self._processes:
                self.kill(process)
            while tasks := [*self._graveyard, *self._tasks.take()]:
                self._graveyard.clear()
                for task in tasks:
                    _bury(task)
        finally:
            events._set_running_loop(before)
            self._ready.clear()
            self._timers.clear()


def _exit(process: Process | None, error: SystemExit | KeyboardInterrupt) -> None:
    """Something called ``sys.exit()``, or so: it ends its process, or the run where nobody cares for that."""
    if process is None or process.on_exit is None:
        raise error
    process.on_exit(error)


def _bury(task: asyncio.Task[Any]) -> None:
    """End a task's coroutine so that Python does not complain of it: what it still does concerns nobody."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coro = task.get_coro()
    for _ in range(BURY_STEPS_MAX):
        try:
            # Not ``close`` or GeneratorExit, which give up where cleaning up takes more than one step.
            coro.throw(asyncio.CancelledError())
        except BaseException:  # noqa: BLE001 - whatever it is, the coroutine has ended
            return
