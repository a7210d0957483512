"""A user's program on a machine of its own: it runs, is killed, stands still, and starts again."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from ottla.explore.programs.directory import Directory
from ottla.explore.programs.refusing import NotSimulated
from ottla.explore.world.loop import WORLD, Process
from ottla.explore.world.machine import Machine
from ottla.explore.world.network import Fabric
from ottla.explore.world.trace import PAUSED, RESUMED
from ottla.extras import needed

# A program that ended, if it is to run again, is started again after so long, as by a service manager.
RESTART_S = 1.0
# One that has ended by an error at each of so many starts has never worked.
STARTS_MIN = 3
Main = Callable[..., Any]


class ProgramExited(AssertionError):
    """A program has ended its process by ``sys.exit()`` with an error, or by KeyboardInterrupt."""

    def __init__(self, name: str, raised: SystemExit | KeyboardInterrupt) -> None:
        code = raised.code if isinstance(raised, SystemExit) else None
        if isinstance(raised, KeyboardInterrupt):
            how = "by KeyboardInterrupt"
        else:
            # What is no number Python prints, and ends with 1.
            how = f"with exit code {code}" if isinstance(code, int) else f"with exit code 1: {code}"
        super().__init__(f"the program {name} has ended {how}")
        self.__cause__ = raised


class NeverWorked(AssertionError):
    """A program is started again and again, and ends by an error each time: a test of it says nothing."""

    def __init__(self, name: str, errors: list[BaseException]) -> None:
        super().__init__(
            f"the test passes, but the program {name} has ended by an error at each of its {len(errors)} "
            f"starts, the last time by {errors[-1]!r}"
        )
        self.__cause__ = errors[-1]


class Program:
    """``main(*arguments)`` as the one process of a machine.

    A fault that has killed it starts it again. ``restarts``: so does an error; otherwise an error ends the
    run, and `World` raises it. A program that has returned is done.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        fabric: Fabric,
        main: Main,
        arguments: tuple[Any, ...],
        restarts: bool,
        directory: Directory,
    ) -> None:
        self.name = name
        self.machine = machine
        self.directory = directory
        self.restarts = restarts
        self.starts = 0
        # What it returned; None until then.
        self.result: Any = None
        self.done = False
        # The errors that it ended by, oldest first.
        self.errors: list[BaseException] = []
        self.on_error: Callable[[Program, BaseException], None] | None = None
        self._fabric = fabric
        self._main = main
        self._arguments = arguments
        self._wanted = False
        # When it was started last.
        self._begun_us = 0
        self._process: Process | None = None
        self._changed: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return self.name

    @property
    def running(self) -> bool:
        return self._process is not None and not self._process.dead

    @property
    def has_worked(self) -> bool:
        """Whether it ever did something else than to end by an error, of some starts at least."""
        errors, starts = len(self.errors), self.starts
        if starts < STARTS_MIN or self.done:
            return True
        # It may have begun just now.
        loop = self._fabric.loop
        is_new = self.running and loop.now_us - self._begun_us < loop.us(RESTART_S)
        return errors < starts - (1 if is_new else 0)

    def start(self) -> None:
        """Begin, if it does not run."""
        self._wanted = True
        if self.running or self.done:
            return
        self.starts += 1
        self._begun_us = self._fabric.loop.now_us
        process = self._process = self.machine.begin(is_program=True)
        process.on_exit = partial(self._exit, process)
        self._fabric.trace(process, "starts")
        self._fabric.loop.spawn(process, self._run(process))

    async def _run(self, process: Process) -> None:
        error: BaseException | None = None
        try:
            self.result = await self._begin()
        except (SystemExit, KeyboardInterrupt) as raised:
            self._exit(process, raised)
            return
        except GeneratorExit:
            raise
        except BaseException as raised:  # noqa: BLE001 - users' code; `pytest.fail` raises no Exception
            error = raised
        self._fabric.loop.call_soon(self._ended, process, error, context=WORLD)

    def _exit(self, process: Process, raised: SystemExit | KeyboardInterrupt) -> None:
        """``sys.exit()``, wherever in the program it was called: by its code that is an error, or the end."""
        is_end = isinstance(raised, SystemExit) and raised.code in (None, 0)
        error = None if is_end else raised
        self._fabric.loop.call_soon(self._ended, process, error, context=WORLD)

    async def _begin(self) -> Any:
        """A coroutine function on the loop; any other function in a thread of its own."""
        if inspect.iscoroutinefunction(self._main):
            return await self._main(*self._arguments)
        with needed("a program that is no coroutine function"):
            from ottla.explore.programs import threads
        result = await threads.start(partial(self._main, *self._arguments), "MainThread", is_main=True)
        return await result if inspect.isawaitable(result) else result

    def _ended(self, process: Process, error: BaseException | None) -> None:
        if process.dead:
            return
        self._end(process)
        if error is None:
            self.done = True
            self._fabric.trace(process, "has ended")
        else:
            self.errors.append(error)
            self._fabric.trace(process, f"ended by {error!r}")
            if self.on_error is not None and (not self.restarts or isinstance(error, NotSimulated)):
                self.on_error(self, error)
        if self.restarts and self._wanted and not self.done:
            loop = self._fabric.loop
            loop.call_at_us(loop.now_us + loop.us(RESTART_S), self._again, self.starts, context=WORLD)
        self._tell()

    def _again(self, starts: int) -> None:
        """Unless somebody else has started it meanwhile."""
        if self._wanted and not self.done and self.starts == starts:
            self.start()

    def _end(self, process: Process) -> None:
        self._fabric.loop.kill(process)
        self._fabric.process_died(process)

    def kill(self) -> None:
        """As SIGKILL, at whatever it awaits. It stays dead until ``start``."""
        self._wanted = False
        if self.running and self._process is not None:
            self._fabric.trace(self._process, "is killed")
            self._end(self._process)

    def after_steps(self, count: int, callback: Callable[[], None]) -> None:
        """Have ``callback`` called after so many of the steps that its process takes from now on."""
        if self._process is not None:
            self._process.after_steps(count, callback)

    def pause(self) -> None:
        """As SIGSTOP: time goes by for everybody else, and its sessions end."""
        if self.running and self._process is not None and not self._process.paused:
            self._fabric.trace(self._process, PAUSED)
            self._fabric.loop.pause(self._process)

    def resume(self) -> None:
        if self.running and self._process is not None and self._process.paused:
            self._fabric.trace(self._process, RESUMED)
            self._fabric.loop.resume(self._process)

    # ------------------------------------------------------------ its end

    async def finished(self) -> None:
        """Return when it has returned, or at its next end by an error."""
        if not self.done:
            future = asyncio.get_running_loop().create_future()
            self._changed.append(future)
            await future

    def _tell(self) -> None:
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
