"""The standard streams, and Ctrl-C: what goes wrong around a command, before it begins and after its end."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# In net allocations. Messages come in thousands and leave no circles behind: Python's search for circles,
# every 700 objects, would find none and take a fifth of the time.
COLLECTION_OBJECTS = 200_000

_MODES = ("r", "w", "w")
_NAMES = ("stdin", "stdout", "stderr")


def open_standard_streams() -> None:
    """Open /dev/null wherever a standard stream was closed by whoever started us.

    Otherwise the next file or socket gets its number: what is printed would be written into a database, and
    libuv aborts where it is asked to close one.
    """
    for fd, (name, mode) in enumerate(zip(_NAMES, _MODES, strict=True)):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number: those below are open by now.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115 - for good
    # Names may have characters that the terminal's encoding has not.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


class Interrupts:
    """Whether the user has pressed Ctrl-C: whatever goes wrong after that is no error, but the way it ends.

    KeyboardInterrupt may come up while librdkafka calls back, of which its binding makes a SystemError, or
    where Python can only write down that it ignores it.
    """

    def __init__(self) -> None:
        self.pressed = False

    def watch(self) -> None:
        """From now on, until the process ends."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)
        default = sys.unraisablehook

        def ignore(unraisable: Any) -> None:
            if not self.pressed:
                default(unraisable)

        sys.unraisablehook = ignore

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        raise KeyboardInterrupt

    @staticmethod
    def end() -> None:
        """The command is over: from here on Ctrl-C ends the process at once, and says nothing."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Collect garbage seldom, while a command has many small objects in its hands."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECTION_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
