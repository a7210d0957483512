"""The clocks of a run: `time` and `datetime` tell virtual time inside it, and real time everywhere else.

Many libraries take a clock when they are imported (``from time import monotonic``, a default argument). So
the clocks are put in once, before the program is imported, for as long as this process lives; each looks
whether a run is under way. A library that reads the clock in C is not reached.
"""

from __future__ import annotations

import datetime as datetime_module
import time
from functools import wraps
from typing import Any

# It imports kio's types without hypothesis, which would take a third of a second. One of them derives from
# datetime by a metaclass of its own, which goes with the real class alone.
import ottla.errors  # noqa: F401
from ottla.explore.programs import current
from ottla.explore.world.loop import CURRENT, VirtualLoop
from ottla.explore.world.machine import EPOCH_MS

_US_NS = 1_000
_EPOCH_NS = EPOCH_MS * 1_000_000
_COUNTERS = ("monotonic_ns", "perf_counter_ns", "process_time_ns", "thread_time_ns")
_real = {name: getattr(time, name) for name in ("time_ns", "clock_gettime_ns", *_COUNTERS)}
# Functions that take the present where they are not told when, and which of their arguments that is.
_OF_NOW = {"localtime": 0, "gmtime": 0, "ctime": 0, "asctime": 0, "strftime": 1}
_OF_TUPLES = ("asctime", "strftime")
# What a program was last told by a counter, and in which run.
_last: list[Any] = [None, 0]
_RealDatetime = datetime_module.datetime


def _wall_ns(loop: VirtualLoop) -> int:
    """The wall clock of the machine whose process runs, with what it is off by."""
    process = CURRENT.get()
    machine = process.machine if process is not None else None
    offset_ms = machine.wall_offset_ms if machine is not None else 0
    return _EPOCH_NS + loop.now_us * _US_NS + offset_ms * 1_000_000


def _time_ns() -> int:
    loop = current.loop()
    return _real["time_ns"]() if loop is None else _wall_ns(loop)


def _counter_ns(name: str) -> Any:
    """A clock that counts from somewhere: in a run, from its beginning."""

    def read_ns() -> int:
        loop = current.loop()
        if loop is None:
            return _real[name]()  # type: ignore[no-any-return]
        if current.program() is None:
            return loop.now_us * _US_NS
        last_ns = _last[1] if _last[0] is loop else 0
        # Each look of a program is later than the one before, as with a real clock: kafka-python puts what is
        # due at the same time in the order of addresses.
        now_ns = max(loop.now_us * _US_NS, last_ns + 1)
        _last[:] = loop, now_ns
        return now_ns

    return read_ns


def _of_now(name: str, position: int) -> Any:
    """A function of `time` that takes the present where it is not told when."""
    real = getattr(time, name)

    @wraps(real)
    def told(*arguments: Any) -> Any:
        loop = current.loop()
        if loop is None or (len(arguments) > position and arguments[position] is not None):
            return real(*arguments)
        now_s = _time_ns() / 1e9
        now = time.localtime(now_s) if name in _OF_TUPLES else now_s
        return real(*arguments[:position], now)

    return told


def _clock_gettime_ns(clock: int) -> int:
    if current.loop() is None:
        return _real["clock_gettime_ns"](clock)  # type: ignore[no-any-return]
    return _time_ns() if clock == time.CLOCK_REALTIME else time.monotonic_ns()


def _in_seconds(read_ns: Any) -> Any:
    def read() -> float:
        return read_ns() / 1e9  # type: ignore[no-any-return]

    return read


class _AsItsBase(type):
    """Objects of the real class are instances of the virtual one, too."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__mro__[1])

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.__mro__[1])


class VirtualDatetime(datetime_module.datetime, metaclass=_AsItsBase):
    """``datetime.datetime`` whose present is that of the run."""

    @classmethod
    def now(cls, tz: datetime_module.tzinfo | None = None) -> Any:
        return _RealDatetime.fromtimestamp(_time_ns() / 1e9, tz)

    @classmethod
    def today(cls) -> Any:
        return cls.now()

    @classmethod
    def utcnow(cls) -> Any:
        return _RealDatetime.fromtimestamp(_time_ns() / 1e9, datetime_module.UTC).replace(tzinfo=None)


class VirtualDate(datetime_module.date, metaclass=_AsItsBase):
    """``datetime.date`` whose present is that of the run."""

    @classmethod
    def today(cls) -> Any:
        return VirtualDatetime.now().date()


def install() -> None:
    """Put the clocks in, for as long as this process lives. A second call changes nothing."""
    if time.time_ns is _time_ns:
        return
    replaced: dict[str, Any] = {"time_ns": _time_ns}
    for name in _COUNTERS:
        replaced[name] = _counter_ns(name)
    for name, read_ns in replaced.items():
        setattr(time, name, read_ns)
        setattr(time, name.removesuffix("_ns"), _in_seconds(read_ns))
    time.clock_gettime_ns = _clock_gettime_ns
    time.clock_gettime = lambda clock: _clock_gettime_ns(clock) / 1e9
    for name, position in _OF_NOW.items():
        setattr(time, name, _of_now(name, position))
    datetime_module.datetime = VirtualDatetime  # type: ignore[misc]
    datetime_module.date = VirtualDate  # type: ignore[misc]
