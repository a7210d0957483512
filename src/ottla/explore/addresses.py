"""The addresses of objects in memory, the same for the first run of each process: sets of objects go by them.

Linux moves a process about in memory at random, unless it is told not to. Where that is refused, as by the
usual rules of a container, and after other runs of a process, whose traces are in its memory, sets of objects
may be gone through in another order: only of those that are neither tasks nor futures, which are numbered
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
