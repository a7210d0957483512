"""The process that ends what a world has started, whatever becomes of the test: `guardian.py MARK FOLDER`.

It reads ``+PID`` and ``-PID`` from its standard input: process groups that run, and that are over. Once the
input has ended, since the world was closed or the test's process is gone, it kills all that is left, and
removes the folder. On Linux it also finds processes that have left their group: MARK is in the environment of
all that the world has started. It runs as a script by itself, and imports nothing of Ottla.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress

MARK_VARIABLE = "EXPLORED_BY_OTTLA"
# A process may start another one while it is looked for.
ROUNDS_MAX = 200
ROUND_S = 0.01


def marked(mark: bytes) -> list[int]:
    """The processes that have the mark in their environment, and are not dead already."""
    found = []
    with suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            # Those of others cannot be read, and some end meanwhile.
            with suppress(OSError):
                if name.isdecimal():
                    with open(f"/proc/{name}/environ", "rb") as file:
                        if mark in file.read().split(b"\0"):
                            found.append(int(name))
    return found


def end_all(groups: set[int], mark: bytes) -> None:
    """Kill them until there is none."""
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(ROUNDS_MAX):
        left = marked(mark)
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(ROUND_S)


def main(mark: str, folder: str) -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    end_all(groups, f"{MARK_VARIABLE}={mark}".encode())
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
