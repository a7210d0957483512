"""Processes that end with the one that started them, however that ends (Linux; elsewhere they stay); and how
they ended."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def death_signal() -> Callable[[], object]:
    """What makes the process that calls it end with its parent."""
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return lambda: None
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with(parent: int) -> None:
    """End when ``parent``, the process that started this one, does: now, if it has."""
    death_signal()()
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def ending(code: int) -> str:
    """How a process ended, in words, by its exit code; below 0 it is the signal that killed it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
