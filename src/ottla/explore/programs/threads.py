"""Threads of programs in virtual time: greenlets in the one thread of a run, on the loop of the run.

A thread runs until it waits: for a lock, an event, a queue, another thread, a socket (`sockets`), or in a
sleep. Then others have their turn, and virtual time goes by. So a run does not find a lock that is missing
between two waits. In a coroutine nothing may wait like this, since it would hold the loop: that is refused.
"""

from __future__ import annotations

import _thread
import _threading_local
import asyncio
import atexit
import queue
import sys
import threading
import time
from asyncio import AbstractEventLoop, Future, events
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import uvloop
from greenlet import GreenletExit, getcurrent, greenlet

from ottla.explore.programs import current
from ottla.explore.programs.refusing import refused
from ottla.explore.world.loop import CURRENT, Process

BLOCKS = "it would hold the event loop until something else happens: wait in `asyncio.to_thread()`"
# A look at what is ready takes some time too, as much as such a turn takes a program in Python: threads that
# look again and again until a time has come, as kafka-python's sender does, are not to take a run for it.
LOOK_S = 200e-6
_allocate = _thread.allocate_lock
_real_ident = threading.get_ident
_real_current = threading.current_thread
_real_main = threading.main_thread
# Far from what the system gives.
_FIRST_IDENT = 1 << 60
# All that have not ended, also of dead programs: a greenlet that is let go of would run its `finally` blocks.
_alive: dict[Simulated, None] = {}


class Simulated(greenlet):  # type: ignore[misc]
    """A thread of a program. ``main``: that of the program's main thread."""

    def __init__(
        self, loop: AbstractEventLoop, process: Process, thread: threading.Thread, work: Callable[[], object]
    ) -> None:
        here = getcurrent()
        super().__init__(self._run, parent=here.parent if isinstance(here, Simulated) else here)
        self.loop = loop
        self.process = process
        self.thread = thread
        self.main: threading.Thread = here.main if isinstance(here, Simulated) else thread
        self.is_over = False
        self.joining: list[Wait] = []
        self.at_exit: list[Callable[[], object]] = here.at_exit if isinstance(here, Simulated) else []
        self.ident = _FIRST_IDENT + len(_alive)
        while self.ident in threading._active:  # type: ignore[attr-defined]
            self.ident += 1
        self._work = work
        # A context of its own, in which it is a part of its process.
        self._context = process.context.copy()
        self.gr_context = process.context.copy()
        _alive[self] = None
        thread._started.set()  # type: ignore[attr-defined]
        thread._ident = self.ident  # type: ignore[attr-defined]
        thread._simulated = self  # type: ignore[attr-defined]
        threading._active[self.ident] = thread  # type: ignore[attr-defined]
        self.soon(self.resume)

    def _run(self) -> None:
        try:
            self._work()
        except (SystemExit, GreenletExit):
            pass
        except BaseException:  # noqa: BLE001 - as threads do
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self.thread)))
        finally:
            self.is_over = True
            _alive.pop(self, None)
            threading._active.pop(self.ident, None)  # type: ignore[attr-defined]
            for wait in self.joining:
                wait.wake()

    def soon(self, callback: Callable[[], object]) -> None:
        """Have it called by the loop, as a part of the process."""
        self.loop.call_soon(callback, context=self._context)

    def resume(self) -> None:
        """Go on where it waits. Called by the loop."""
        # In a thread no loop runs.
        events._set_running_loop(None)
        try:
            self.switch()
        finally:
            events._set_running_loop(self.loop)


class Wait:
    """One time that a thread waits, for ``timeout_s`` at most."""

    __slots__ = ("_timer", "is_over", "is_woken", "thread")

    def __init__(self, thread: Simulated, timeout_s: float | None = None) -> None:
        self.thread = thread
        self.is_woken = self.is_over = False
        self._timer = (
            None
            if timeout_s is None
            else thread.loop.call_later(max(timeout_s, LOOK_S), self._end, context=thread._context)
        )

    def wake(self, *_of_what: object) -> None:
        """It is worth looking again."""
        if not self.is_over:
            self.is_woken = self.is_over = True
            if self._timer is not None:
                self._timer.cancel()
            self.thread.soon(self.thread.resume)

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.thread.resume()

    def rest(self) -> bool:
        """Wait; whether it was woken before the time was over."""
        self.thread.parent.switch()
        return self.is_woken


def mine() -> Simulated | None:
    """The simulated thread that runs; None in coroutines, and outside of runs."""
    here = getcurrent()
    return here if isinstance(here, Simulated) else None


def waiting(timeout_s: float | None = None) -> Wait:
    """A wait of the present thread. NotSimulated in a coroutine."""
    thread = mine()
    if thread is None:
        raise refused(BLOCKS)
    return Wait(thread, timeout_s)


class Lock:
    """``threading.Lock``: in a simulated thread, waiting for it lets the others run."""

    def __init__(self) -> None:
        self._lock = _allocate()
        self._waits: deque[Wait] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._lock.acquire(False):
            return True
        if not blocking:
            return False
        thread = mine()
        if thread is None and current.program() is None:
            return self._lock.acquire(True, timeout)
        end_s = None if timeout < 0 or thread is None else thread.loop.time() + timeout
        while True:
            wait = waiting(None if end_s is None or thread is None else end_s - thread.loop.time())
            self._waits.append(wait)
            is_woken = wait.rest()
            if self._lock.acquire(False):
                return True
            if not is_woken:
                return False

    def release(self) -> None:
        self._lock.release()
        while self._waits:
            wait = self._waits.popleft()
            if not wait.is_over and not wait.thread.process.dead:
                wait.wake()
                break

    def locked(self) -> bool:
        return self._lock.locked()

    def _at_fork_reinit(self) -> None:
        """`logging` has its handlers' locks free in a new process, and each seed has one."""
        self._lock = _allocate()
        self._waits.clear()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.release()


def _start(real: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(real)
    def start(thread: threading.Thread) -> None:
        process, loop = current.program(), current.loop()
        if process is None or loop is None:
            real(thread)
        elif thread._started.is_set():  # type: ignore[attr-defined]
            raise RuntimeError("threads can only be started once")
        else:
            Simulated(loop, process, thread, thread.run)

    return start


def _join(real: Callable[..., None]) -> Callable[..., None]:
    @wraps(real)
    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        simulated: Simulated | None = getattr(thread, "_simulated", None)
        if simulated is None:
            real(thread, timeout)
        elif not simulated.is_over:
            if simulated is mine():
                raise RuntimeError("cannot join current thread")
            wait = waiting(timeout)
            simulated.joining.append(wait)
            wait.rest()

    return join


def _is_alive(real: Callable[[Any], bool]) -> Callable[[Any], bool]:
    @wraps(real)
    def is_alive(thread: threading.Thread) -> bool:
        simulated: Simulated | None = getattr(thread, "_simulated", None)
        return real(thread) if simulated is None else not simulated.is_over and not simulated.process.dead

    return is_alive


def _sleep(real: Callable[[float], None]) -> Callable[[float], None]:
    @wraps(real)
    def sleep(seconds: float, /) -> None:
        thread = mine()
        if thread is None:
            real(seconds)
        elif seconds < 0:
            raise ValueError("sleep length must be non-negative")
        else:
            Wait(thread, seconds).rest()

    return sleep


def get_ident() -> int:
    """``threading.get_ident``."""
    thread = mine()
    return _real_ident() if thread is None else thread.ident


def current_thread() -> threading.Thread:
    """``threading.current_thread``."""
    thread = mine()
    return _real_current() if thread is None else thread.thread


def main_thread() -> threading.Thread:
    """``threading.main_thread``: that of the program."""
    thread = mine()
    return _real_main() if thread is None else thread.main


def _register(real: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(real)
    def register(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
        thread = mine()
        if thread is None:
            return real(function, *arguments, **named)
        thread.at_exit.append(lambda: function(*arguments, **named))
        return function

    return register


def start(work: Callable[[], Any], name: str, *, is_main: bool = False) -> Future[Any]:
    """What ``work`` returns in a thread of the present process. ``is_main``: with what ends a process."""
    process, loop = CURRENT.get(), current.loop()
    assert process is not None and loop is not None
    future = loop.create_future()

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except GreenletExit:
            raise
        except BaseException as raised:  # noqa: BLE001 - whoever awaits it gets it
            error = raised
        if is_main:
            _finish(process)
        loop.call_soon(end, result, error)

    def end(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    Simulated(loop, process, threading.Thread(name=name), run)
    return future


def _finish(process: Process) -> None:
    """As Python at its end: other threads than daemons first, then `atexit`."""
    thread = mine()
    assert thread is not None
    for other in list(_alive):
        if other.process is process and other is not thread and not other.thread.daemon:
            other.thread.join()
    while thread.at_exit:
        thread.at_exit.pop()()


def _run_loop(real: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(real)
    def run(main: Coroutine[Any, Any, Any], **options: Any) -> Any:
        """``asyncio.run`` in a thread: the coroutine runs on the loop of the run."""
        thread = mine()
        if thread is None:
            return real(main, **options)
        wait = Wait(thread)
        task = thread.loop.create_task(main)
        task.add_done_callback(wait.wake)
        wait.rest()
        return task.result()

    return run


def _shutdown(real: Callable[..., None]) -> Callable[..., None]:
    @wraps(real)
    def shutdown(pool: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if wait and mine() is None and current.program() is not None:
            # In a coroutine: if its threads have nothing to do, the wait for their end is none.
            wait = pool._idle_semaphore._value < len(pool._threads)
        real(pool, wait, cancel_futures=cancel_futures)

    return shutdown


def install() -> None:
    """Serve threads from now on, in programs of runs; a second call changes nothing. After `refusing`."""
    if threading.current_thread is current_thread:
        return
    threads: Any = threading
    threads.Thread.start = _start(threading.Thread.start)
    threads.Thread.join = _join(threading.Thread.join)
    threads.Thread.is_alive = _is_alive(threading.Thread.is_alive)
    threads.Lock = threads._allocate_lock = Lock
    threads.RLock = threads._PyRLock
    threads.local = _threading_local.local
    threads.get_ident = get_ident
    threads.current_thread = threads.currentThread = current_thread
    threads.main_thread = main_thread
    queue.SimpleQueue = queue._PySimpleQueue  # type: ignore[misc, attr-defined]
    ThreadPoolExecutor.shutdown = _shutdown(ThreadPoolExecutor.shutdown)  # type: ignore[method-assign]
    time.sleep = _sleep(time.sleep)  # type: ignore[assignment]
    atexit.register = _register(atexit.register)
    asyncio.run = _run_loop(asyncio.run)
    uvloop.run = _run_loop(uvloop.run)
