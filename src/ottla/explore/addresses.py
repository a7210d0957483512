"""The addresses of objects in memory, the same whenever a seed is run: sets of objects go by them.

Runs are forked from a process in which nothing changes between them (`child`). Linux moves a process about in
memory at random, unless it is told not to; where that is refused, as by the usual rules of a container,
addresses are the same in all runs of one command, and others in the next one. So they are in another folder
or environment, whose names lie in memory, too. Tasks and futures do not go by them: they are numbered
(`world.loop.NumberedFuture`).
"""

from __future__ import annotations

import ctypes
import os
import sys

# personality(2).
ADDR_NO_RANDOMIZE = 0x0040000
LOOK = 0xFFFFFFFF
# An option of this interpreter (-X): a kernel that forgets it is not to have this begin again for ever.
FIXED = "ottla-addresses"


def fix() -> None:
    """Begin again in a process whose addresses are not random. Nothing must have happened in this one yet."""
    if sys.platform != "linux" or FIXED in sys._xoptions:
        return
    personality = ctypes.CDLL(None).personality
    before = personality(LOOK)
    if before < 0 or before & ADDR_NO_RANDOMIZE or personality(before | ADDR_NO_RANDOMIZE) < 0:
        return
    os.execv(sys.executable, [sys.executable, "-X", FIXED, *sys.orig_argv[1:]])
